"""What is asked of a model of one's own: its certificates as a table and a curve, and which method should certify it."""

import copy
import re
import runpy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.stats import norm
from torch import Tensor, nn

from srs import data, profiles, settings, store
from srs.analysis import plots, show
from srs.deq import adapters, checkpoints, inference, mdeq, solvers
from srs.settings import ABSTAIN, check, Method
from srs.smoothing import bounds, certify, votes
from srs.smoothing.noise import Copies
from srs.smoothing.smooth import certify_images, Smooth, STANDARD

OTHER_NOISE = 1_000_003  # the seed here: what is chosen may not depend on the noise of a certificate
AUDIT = 400  # K of a method that a command line names
STEPS, SHARED_STEPS, BATCH = 30, 10, 100  # most steps from zero, most from the shared start; copies solved together


def plot_certified_accuracy(*tables: str | Path) -> Figure:
    """Certified accuracy against radius, a line per table; `.savefig("mine.png")` keeps it."""
    found = pd.concat([store.read_rows(path).assign(table=Path(path).stem, panel="") for path in tables], ignore_index=True)
    return plots.accuracy_curves(found.assign(correct=found["correct"] == 1), hue="table", panel="panel", title=str)


def load(name: str, device: str = "cpu") -> mdeq.DEQ:
    """A trained model of the zoo, ready to be certified: load("cifar10/SMALL-s0.50"), or with its recipe behind a dash."""
    every = (run for profile in reversed(profiles.PROFILES.values()) for run in profile.every_run)
    runs = {f"{run.profile.data.name}/{run.id}": run for run in every if store.find(run, store.WEIGHTS)}
    run = settings.pick(name if name in runs else f"{name}-paper", runs, "model")
    model = checkpoints.load(store.find(run, store.WEIGHTS), run.model, run.profile.data).to(device)
    model.train_mean = checkpoints.load_train_mean(path).to(device) if (path := store.find(run, store.TRAIN_MEAN)) else None
    return inference.prepare(model)


def certify_folder(
    *, model: str, images: str = "", sigma: float = 0.5, n: int = 1_000, alpha: float = 0.001, method: str = "", skip: int = 1,
    channels: int = 3, classes: int = 0, device: str = "cpu", keep: float = 0.0, levels: int = 0, out: str = "mine.tsv",
    workers: int = 1, scheduler: str = "",
) -> Iterator[str]:
    """Certify the images of a folder by a model of your own.

    Args:
        model: FILE.py:FUNCTION, which gives the model; or the name of a zoo model, as cifar10/SMALL-s0.50.
        images: a folder with a folder of images per class.
        sigma: noise level in units of [0, 1] pixels.
        n: noisy copies that estimate the probability of the class.
        alpha: failure probability.
        method: START-SOLVER-STEPS, as `srs tune` prints it; empty: plain randomized smoothing with the full solve.
        skip: every skip-th image.
        channels: 3 for colour, 1 for grey.
        classes: of the model, where a folder is missing and the others are named by numbers from 0; 0: as many as folders.
        keep: stop drawing at this share of the radius of all n copies, as 0.95; 0: all are drawn, as where an audit is due.
        levels: 255: exact noise on 8-bit pixels, see `Smooth`; 0: floating point.
        out: the table; a call that was interrupted goes on.
    """
    own, source, found = _given(model, images, channels, device, classes)
    words = re.fullmatch(r"(\w+)-(\w+)-(\d+)(?: audited by (zero-(\w+)-(\d+)))?", method)
    check(bool(words or not method), "method", method, "START-SOLVER-STEPS, as zero-anderson-4 or previous-anderson-3")
    auditor = Method(words[4], words[5], int(words[6])) if words and words[4] else None
    chosen = Method(method, words[2], int(words[3]), words[1], batch=100, warmup=10, auditor=auditor) if words else None
    chosen = replace(chosen, audit=min(AUDIT, n)) if chosen and chosen.needs_audit else chosen
    smooth = Smooth(own, classes or found, sigma, method=chosen, keep=keep, levels=levels or None)
    shared = dict(out=out, workers=workers, scheduler=scheduler)
    table = certify_images(smooth, source, source.labels, n=n, alpha=alpha, skip=skip, **shared)
    yield f"{out}: {len(table)} images, {(table['predict'] == ABSTAIN).sum()} abstentions"
    radius = table["radius"].where(table["correct"] == 1, -1.0)
    for r in np.arange(0.0, max(radius.max(), 0.0) + 0.25, 0.25):
        yield f"certified accuracy at r = {r:.2f}: {100 * (radius >= r).mean():.1f} %"


def tune_folder(
    *, model: str = "cifar10/SMALL-s0.50", images: str = "", sigma: float = 0.5, n: int = 1_000, most: int = 200,
    channels: int = 3, device: str = "cpu",
) -> str:
    """Say which method should certify your model.

    Args:
        model: FILE.py:FUNCTION, which gives the model; or the name of a zoo model.
        images: a folder with a folder of training images per class; empty: those that the zoo model was trained on.
        sigma: noise level in units of [0, 1] pixels.
        n: noisy copies that a certificate will take.
        most: images that are looked at, evenly spread over the folder.
        channels: 3 for colour, 1 for grey.
    """
    check(most >= 1, "most", most, "at least 1 image")
    own, source, classes = _given(model, images, channels, device)
    some = data.spread(len(source.labels), most)
    found = tune(own, source.x(some), source.labels[some], classes=classes, sigma=sigma, n=n)
    lacks = found.method.start == "train_mean" and getattr(own, "train_mean", None) is None
    how = "\nto start there, give your model the attribute `train_mean`: that of srs.tune(...).model"
    return f"{found}{how if lacks else ''}"


def _given(model: str, images: str, channels: int, device: str, classes: int = 0) -> tuple[object, data.Images, int]:
    """The model, the images and the number of classes that a command line names; no folder: what a zoo model learned."""
    inference.check_device(device)
    file, _, function = model.rpartition(":")
    there = Path(file).is_file() if file else not model.endswith((".py", ".pt", ".pth", ".safetensors"))
    check(there, "model", model, "FILE.py:FUNCTION with a file that is there, or the name of a zoo model")
    check(bool(images or not file), "images", images, "a folder with a folder of images per class")
    if images:
        source = data.image_folder(Path(images), channels, classes)
    else:
        source = data.load(settings.pick(model.partition("/")[0], profiles.DATASETS, "data set"), "train")
    if file:
        sys.path.insert(0, str(Path(file).resolve().parent))  # as for `python FILE.py`
        functions = {name: made for name, made in runpy.run_path(file).items() if callable(made) and name[0] != "_"}
    own = settings.pick(function, functions, "function")() if file else load(model, device)
    return own.to(device) if isinstance(own, nn.Module) else own, source, int(source.labels.max()) + 1


class Choice(NamedTuple):
    """What `tune` found; printed, it is the answer in words."""

    method: Method  # for `Smooth(model, method=...)`
    model: mdeq.DEQ  # the model with a `train_mean`, from which some methods start
    table: pd.DataFrame  # a row per method: `NFE` per certified image, mean `radius`, share of the full solve's that is `kept`
    answer: str

    def __str__(self) -> str:
        return self.answer


def tune(
    model: object, images: Sequence[Tensor], labels: Sequence[int], *, classes: int = 10, sigma: float = 0.5, n0: int = 100,
    n: int = 1_000, alpha: float = 0.001, copies: int = 3, keep: float = 0.95,
) -> Choice:
    """Find the cheapest sound method that keeps the mean certified radius of the full solve; wrong images have radius 0.

    Args:
        model, classes, sigma, n0, n, alpha: as for `Smooth` and `Smooth.certify`.
        images, labels: some two hundred training images, none that is to be certified, and their classes.
        copies: noisy copies of each image, at least 2. Radii differ by image, so more images tell more than more copies.
        keep: share of the full solve's mean radius that the choice must reach.
    """
    for what, value, least in (("copies", copies, 2), ("n0", n0, 1), ("n", n, 1)):
        settings.check_count(value, least, what)
    settings.check_sigma(sigma)
    check(len(images) == len(labels), "labels", len(labels), f"one for each of the {len(images)} images")
    model, labels, rows = copy.copy(adapters.as_deq(model, classes)), np.asarray(labels, np.int64), []
    known = np.unique(labels).tolist()
    check(known != [] and 0 <= known[0] and known[-1] < classes, "labels", known, f"classes from 0 to {classes - 1}")
    explicit = getattr(model, "explicit", False)
    own = [Copies(certify.check_image(model, x, classes), sigma, OTHER_NOISE, i, "estimate") for i, x in enumerate(images)]
    noisy = torch.stack([draw(np.arange(copies)) for draw in own], dim=1)  # (copies, images, C, H, W)

    def add(method: Method, share: np.ndarray, wrong: float = 0.0) -> None:
        """Note the cost of a method, and the radius of each image that n votes with this share for its label would certify."""
        n_a = np.rint(n * share).astype(int)
        k = np.minimum(method.audit, n_a)
        counts = bounds.Counts(n, n_a, k, np.rint(wrong * k).astype(int))
        radius = bounds.certify(bounds.rules_for(method.needs_audit)[0], counts, sigma, alpha)[1]
        longer = 2 * method.batch * (method.warmup - method.steps) if method.needs_audit else 0  # the first batch of each stage
        cost = (n0 + n) * method.steps + longer + method.audit * (method.auditor.steps if method.auditor else 0)
        rows.append({"method": method, "NFE": cost, "radius": radius.mean(), "each": radius})

    zero, mean = _margins(model, noisy, labels, None, 1 if explicit else STEPS)
    for k, margins in enumerate(zero, start=1):
        add(settings.EXPLICIT if explicit else Method(f"zero-anderson-{k}", "anderson", k), share_of(margins))
    full = rows[-1]["each"]
    check(full.mean() > 0, "mean radius", 0.0, "images that the model classifies rightly at this noise level")
    if not explicit:
        # What audits is what is certified: the full solve, or the shortest from zero that keeps its radius.
        auditors = {rows[-1]["method"], next(row["method"] for row in rows if keeps(row["each"], full, keep))}
        model.train_mean = mean if getattr(model, "train_mean", None) is None else model.train_mean
        for k, margins in enumerate(_margins(model, noisy, labels, model.train_mean, SHARED_STEPS)[0], start=1):
            add(Method(f"train_mean-anderson-{k}", "anderson", k, start="train_mean"), share_of(margins))
        # A chain per image, whose first copy is the warm-up.
        chains = np.array_split(np.arange(copies * len(own)).reshape(copies, -1), len(own) // BATCH + 1, axis=1)
        for k in (1, 3):
            srs = Method(f"previous-anderson-{k}", "anderson", k, "previous", warmup=10, audit=min(AUDIT, n))
            drawn = np.empty((copies, len(own)), int)
            for some in chains:
                chained, place = replace(srs, batch=some.shape[1]), some.ravel()
                drawn.flat[place] = votes.sample(model, noisy.flatten(0, 1).__getitem__, chained, place)[0]
            right, solved = (drawn == labels)[1:], zero[:, 1:] > 0
            share = np.clip(share_of(zero[-1]) + right.mean(axis=0) - solved[-1].mean(axis=0), 0, 1)
            for auditor in auditors:
                wrong = float((right & ~solved[auditor.steps - 1]).sum() / max(right.sum(), 1))
                add(replace(srs, name=f"{srs.name} audited by {auditor.name}", batch=100, auditor=auditor), share, wrong)
    table = pd.DataFrame(rows)
    table["kept"] = table["radius"] / full.mean()
    enough = table[[keeps(each, full, keep) for each in table["each"]]].sort_values(["NFE", "radius"], ascending=[True, False])
    return Choice(enough["method"].iloc[0], model, table.drop(columns="each"), _answer(table, enough))


def share_of(margins: np.ndarray) -> np.ndarray:
    """Expected share of votes for each image's label from margins on a few copies (copies, images), as if they were normal."""
    # Few counted votes hide what a shorter solve changes. Mean variance: two degrees of freedom; one or four choose alike.
    own, freedom = margins.var(axis=0, ddof=1), len(margins) - 1
    moderated = (freedom * own + 2 * np.nanmean(own)) / (freedom + 2) + 1e-12
    return np.nan_to_num(norm.cdf(margins.mean(axis=0) / np.sqrt(moderated)))  # 0 where an answer is not finite


def keeps(each: np.ndarray, full: np.ndarray, keep: float) -> bool:
    """Whether radii per image lie a standard error above that share of the full solve's: few images mislead."""
    over = each - keep * full
    return each is full or bool(over.mean() >= over.std(ddof=1) / len(over) ** 0.5)


@torch.inference_mode()
def _margins(model, noisy, labels, start, steps) -> tuple[np.ndarray, Tensor]:
    """By how much the label's logit leads after each step (steps, copies, images), and the mean solution (D,)."""
    inference.choose_kernels()
    margins, solved = np.empty((steps, len(noisy) * len(labels))), []
    wanted = torch.as_tensor(labels, device=noisy.device).repeat(len(noisy))[:, None]
    for i in range(0, len(wanted), BATCH):
        u = model.inject(noisy.flatten(0, 1)[i : i + BATCH])
        cold = model.initial(u)

        def look(step: int, active: Tensor, z: Tensor, i: int = i) -> Tensor:
            logits, label = model.head(z), wanted[i + active]
            lead = (logits.gather(1, label)[:, 0] - logits.scatter(1, label, -torch.inf).amax(dim=1)).cpu()
            margins[step:, i + active.cpu().numpy()] = lead  # later, too: a solved copy leaves
            return torch.zeros_like(active, dtype=torch.bool)

        z0 = cold if start is None else start.expand_as(cold)
        z = solvers.SOLVERS["anderson"](model.f, z0, u, max_steps=steps, tol=STANDARD.tol, decided=look).z
        solved.append(z[torch.isfinite(z).all(dim=1)])
    return margins.reshape(steps, len(noisy), -1), torch.cat(solved).mean(dim=0)


def _answer(table: pd.DataFrame, enough: pd.DataFrame) -> str:
    """The choice, the full solve, and the cheapest way from each start; `enough`: rows that keep the radius, cheapest first."""
    def told(rows: pd.DataFrame) -> str:
        if rows.empty:
            return "none keeps the radius"
        row = rows.iloc[0]
        cost = f"{row['method'].name}: {row['NFE']:,} evaluations of f per image"
        return f"{cost}, expected radius {show.round_down(row['radius'])}, {100 * row['kept']:.0f} % of the full solve's"

    if len(table) == 1:
        return f"plain {told(table)}; an explicit network has no solver to shorten"
    starts = {"zero": "from zero", "train_mean": "from a shared start", "previous": "with an audit"}
    lines = {"cheapest sound method": enough, "full solve": table.iloc[STEPS - 1 :]}
    lines |= {title: enough[[method.start == name for method in enough["method"]]] for name, title in starts.items()}
    of = "A certificate without an audit is of the model as its steps run it, an audited one of the solve that audits."
    return "\n".join([*(f"{title}: {told(rows)}" for title, rows in lines.items()), of])
