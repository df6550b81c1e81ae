"""Certify a model of your own: a DEQ, any network that maps images to logits, or a DEQ written for torchdeq.

`Smooth(model, classes=10, sigma=0.5).certify(x)` gives a class and a radius, as Cohen et al.'s (2019) class of that name does.
"""

import hashlib
import re
import runpy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from srs import data, profiles, sealed, settings, store
from srs.adapters import as_deq, networks_of
from srs.analysis import plots
from srs.deq import checkpoints, inference, mdeq
from srs.progress import tqdm
from srs.settings import ABSTAIN, check, Method, Sampling
from srs.smoothing import votes
from srs.smoothing.certify import Certificate, certify_image

STANDARD = Method("RS", "safe_anderson", 30, tol=0.001)  # each copy from zero until it is solved: its votes need no audit
AUDIT = 400  # K of a method that a command line names
COLUMNS = {"idx": int, "label": int, "predict": int, "radius": float, "correct": int}  # of Cohen et al.'s logs, before the time


class Smooth:
    """The smoothed classifier of a model: the class that the model gives most often to x + sigma e, e ~ N(0, I).

    Args:
        model: a DEQ with the methods inject, initial, f, head, or a network that maps images (B, C, H, W) to logits.
        classes: number of classes.
        sigma: noise level in units of [0, 1] pixels.
        method: how votes are drawn. None: plain randomized smoothing, every copy solved by itself. Votes that start from earlier
            solutions are audited; the classifier of the audit is certified.
        seed: of the noise.
        batch: noisy copies solved together, where no method is given.
    """

    ABSTAIN = ABSTAIN

    def __init__(
        self, model: object, classes: int = 10, sigma: float = 0.5, *, method: Method | None = None, seed: int = 0,
        batch: int = 400,
    ):  # fmt: skip
        self.model, self.sigma = as_deq(model, classes), settings.check_sigma(sigma)
        usual = settings.EXPLICIT if getattr(self.model, "explicit", False) else STANDARD
        self.method, self.sampling = method or replace(usual, batch=batch), Sampling(classes, seed=seed, reference=STANDARD)

    def certify(self, x: Tensor, n0: int = 100, n: int = 1_000, alpha: float = 0.001) -> tuple[int, float]:
        """The class of an image and the l2 radius within which it holds, but for a chance alpha; (ABSTAIN, 0.0) if there is none.

        Args:
            x: image (C, H, W) or (1, C, H, W) in [0, 1], floating point.
            n0, n: noisy copies that choose the class, and that estimate its probability.
            alpha: failure probability.
        """
        found = self.certificate(x, n0, n, alpha)
        return found.predict, found.radius

    def certificate(
        self, x: Tensor, n0: int = 100, n: int = 1_000, alpha: float = 0.001, *, idx: int | None = None
    ) -> Certificate:
        """The same with the bound on p_A, the cost and the votes; `idx` names the noise, else the image's own pixels do."""
        sampling = replace(self.sampling, n0=n0, n=n)
        x = check_image(self.model, x, sampling.classes)
        idx = int(digest_of(x)[:8], 16) if idx is None else idx
        return certify_image(self.model, x, self.method, sampling, sigma=self.sigma, alpha=alpha, idx=idx)


@torch.inference_mode()
def check_image(model: mdeq.DEQ, x: Tensor, classes: int) -> Tensor:
    """The image where the model's weights lie, checked by `votes.check_inputs`.

    Refuses a model whose answer to an image depends on the images beside it, or on chance: its votes would not be independent.
    """
    device = next((weight.device for network in networks_of(model) for weight in network.parameters()), None)
    x = votes.check_inputs(model, x.to(device) if isinstance(x, Tensor) and device else x, classes)

    def logits(images: Tensor) -> Tensor:
        u = model.inject(images)
        return model.head(model.f(model.initial(u), u))[0]

    alone, beside = logits(x[None]), logits(torch.stack([x, 1 - x]))
    same = torch.allclose(alone, beside, rtol=1e-3, atol=1e-3 * float(alone.abs().max()), equal_nan=True)
    right = "one that gives an image the same logits alone and in a batch: batch norm with running statistics, no dropout"
    check(same, "model", "one whose logits of an image change with its batch", right)
    return x


def digest_of(*tensors: Tensor) -> str:
    """Sixteen hex digits of tensors."""
    return hashlib.sha256(b"".join(t.detach().cpu().contiguous().numpy().tobytes() for t in tensors)).hexdigest()[:16]


def certify_images(
    model: object, images: Sequence[Tensor] | data.Images, labels: Sequence[int], *, classes: int = 10, sigma: float = 0.5,
    n0: int = 100, n: int = 1_000, alpha: float = 0.001, skip: int = 1, most: int | None = None, out: str | Path,
) -> pd.DataFrame:
    """Certify images into a table with the columns of Cohen et al.'s logs; an interrupted call goes on where it stopped.

    Args:
        model: what `Smooth` takes, or a `Smooth`, whose classes and sigma then count.
        images, labels: images (C, H, W) in [0, 1], by position, and their classes.
        classes, sigma, n0, n, alpha: as for `Smooth` and `Smooth.certify`.
        skip, most: every skip-th image, and at most so many of them.
        out: the table; beside it, ending in .json, what it was made with: other settings, weights or images are refused.

    Returns:
        The table: idx, label, predict (-1: abstains), radius, correct, time in seconds.
    """
    smooth = model if isinstance(model, Smooth) else Smooth(model, classes, sigma)
    settings.check_count(skip, 1, "skip")
    weights = digest_of(*(w for network in networks_of(smooth.model) for w in network.state_dict().values()))
    key = settings.fingerprint(weights, smooth.sigma, smooth.method, replace(smooth.sampling, n0=n0, n=n), alpha)
    out, told, rows, seen = Path(out), Path(out).with_suffix(".json"), [], {}
    if sealed.present(out):
        before = sealed.read_json(told, "record of what a table was made with", by="certify")
        check(before["key"] == key, "out", str(out), "another name: this table is of another model or other settings")
        rows, seen = read_table(out).to_dict("records"), before["images"]
    for idx in tqdm(range(0, len(labels), skip)[:most], desc="certify", unit="image"):
        x, label = torch.as_tensor(images.x(idx) if isinstance(images, data.Images) else images[idx]), int(labels[idx])
        known = seen.setdefault(str(idx), digest_of(x))
        check(known == digest_of(x), "out", str(out), f"another name: image {idx} of this table is another one")
        if idx not in (row["idx"] for row in rows):
            found = smooth.certificate(x, n0, n, alpha, idx=idx)
            row = idx, label, found.predict, found.radius, int(found.predict == label)
            rows.append(dict(zip(COLUMNS, row)) | {"time": float(found.votes.seconds.sum())})
            sealed.write_json(told, {"key": key, "images": seen})
            sealed.write(out, pd.DataFrame(rows).to_csv(sep="\t", index=False, lineterminator="\n").encode())
    return pd.DataFrame(rows)


def read_table(path: str | Path) -> pd.DataFrame:
    """A table of certificates, ours or one of Cohen et al.'s logs."""

    def parse(content: bytes) -> pd.DataFrame:
        lines = [line.split("\t") for line in content.decode().splitlines()]
        return pd.DataFrame(lines[1:], columns=lines[0])[[*COLUMNS, "time"]].astype(COLUMNS)

    return sealed.read(Path(path), "table of certificates", parse, by="certify", plain=True)


def plot_certified_accuracy(*tables: str | Path) -> Figure:
    """Certified accuracy against radius, a line per table; `.savefig("mine.png")` keeps it."""
    found = pd.concat([read_table(path).assign(table=Path(path).stem, panel="") for path in tables], ignore_index=True)
    return plots.accuracy_curves(found.assign(correct=found["correct"] == 1), hue="table", panel="panel", title=str)


def load(name: str, device: str = "cpu") -> mdeq.DEQ:
    """A trained model of the zoo, ready to be certified: load("cifar10/SMALL-s0.50"), or with its recipe behind a dash."""
    every = (run for profile in reversed(profiles.PROFILES.values()) for run in profile.every_run)
    runs = {f"{run.profile.data.name}/{run.id}": run for run in every if store.find(run, store.WEIGHTS)}
    run = settings.pick(name if name in runs else f"{name}-paper", runs, "model")
    anchor = store.find(run, store.ANCHOR)
    model = checkpoints.load(store.find(run, store.WEIGHTS), run.model, run.profile.data).to(device)
    model.anchor = checkpoints.load_anchor(anchor).to(device) if anchor else None
    return inference.prepare(model)


def certify_folder(
    *, model: str, images: str, sigma: float = 0.5, n: int = 1_000, method: str = "", skip: int = 1, channels: int = 3,
    device: str = "cpu", out: str = "mine.tsv",
) -> Iterator[str]:
    """Certify the images of a folder by a model of your own.

    Args:
        model: FILE.py:FUNCTION, which gives the model; or the name of a zoo model, as cifar10/SMALL-s0.50.
        images: a folder with a folder of images per class.
        sigma: noise level in units of [0, 1] pixels.
        n: noisy copies that estimate the probability of the class.
        method: START-SOLVER-STEPS, as `srs tune` prints it; empty: plain randomized smoothing with the full solve.
        skip: every skip-th image.
        channels: 3 for colour, 1 for grey.
        device: a torch device.
        out: the table; a call that was interrupted goes on.
    """
    own, source, classes = given(model, images, channels, device)
    words = re.fullmatch(r"(\w+)-(\w+)-(\d+)", method)
    check(bool(words or not method), "method", method, "START-SOLVER-STEPS, as zero-anderson-4 or previous-anderson-3")
    chosen = Method(method, words[2], int(words[3]), start=words[1], batch=100, warmup=10) if words else None
    chosen = replace(chosen, audit=min(AUDIT, n)) if chosen and chosen.serialized else chosen
    table = certify_images(Smooth(own, classes, sigma, method=chosen), source, source.labels, n=n, skip=skip, out=out)
    yield f"{out}: {len(table)} images, {(table['predict'] == ABSTAIN).sum()} abstentions"
    radius = table["radius"].where(table["correct"] == 1, -1.0)
    for r in np.arange(0.0, max(radius.max(), 0.0) + 0.25, 0.25):
        yield f"certified accuracy at r = {r:.2f}: {100 * (radius >= r).mean():.1f} %"


def given(model: str, images: str, channels: int, device: str) -> tuple[object, data.Images, int]:
    """The model, the images and the number of classes that a command line names; no folder: what a zoo model learned."""
    inference.check_device(device)
    (file, _, function), data_set = model.rpartition(":"), model.partition("/")[0]
    check(bool(images or not file), "images", images, "a folder with a folder of images per class")
    check(not file or Path(file).is_file(), "model", model, "FILE.py:FUNCTION with a file that is there, or a zoo model")
    if images:
        source = data.image_folder(Path(images), channels)
    else:
        source = data.load(settings.pick(data_set, profiles.DATASETS, "data set"), "train")
    own = settings.pick(function, runpy.run_path(file), "function")() if file else load(model, device)
    return own.to(device) if isinstance(own, nn.Module) else own, source, int(source.labels.max()) + 1
