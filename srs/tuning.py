"""Which method should certify my model? Measured on a few training images, on other noise than a certificate's."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from srs import settings
from srs.adapters import as_deq
from srs.deq import inference, mdeq
from srs.deq.solvers import SOLVERS
from srs.settings import Method
from srs.smooth import AUDIT, check_image, given
from srs.smoothing import bounds, votes
from srs.smoothing.noise import Copies

OTHER_NOISE = 1_000_003  # the seed here: what is chosen may not depend on the noise of a certificate
STEPS, SHARED_STEPS, CHAINS = 30, 10, 10  # most steps from zero, most from the shared start, chains of SRS


class Choice(NamedTuple):
    """What `tune` found; printed, it is the answer in words."""

    method: Method  # for `Smooth(model, method=...)`
    model: mdeq.DEQ  # the model with an `anchor`, from which some methods start
    table: pd.DataFrame  # a row per method: `NFE` per certified image, mean `radius`, share of the full solve's that is `kept`
    answer: str

    def __str__(self) -> str:
        return self.answer


def tune(
    model: object, images: Sequence[Tensor], labels: Sequence[int], *, classes: int = 10, sigma: float = 0.5, n0: int = 100,
    n: int = 1_000, alpha: float = 0.001, copies: int = 24, keep: float = 0.95,
) -> Choice:
    """Find the cheapest sound method that keeps the mean certified radius of the full solve; wrong images have radius 0.

    Args:
        model, classes, sigma, n0, n, alpha: as for `Smooth` and `Smooth.certify`.
        images, labels: twenty training images or more, none that is to be certified, and their classes.
        copies: noisy copies of each image.
        keep: share of the full solve's mean radius that the choice must reach.
    """
    model, noisy, rows = as_deq(model, classes), [], []
    explicit = getattr(model, "explicit", False)
    for i, x in enumerate(images):
        noisy.append(Copies(check_image(model, x, classes), sigma, OTHER_NOISE, i, "estimate")(np.arange(copies)))

    def add(method: Method, drawn: np.ndarray, wrong: float = 0.0) -> dict:
        """Note the cost of a method, and the radius that n votes of the measured shares would certify."""
        top = np.array([bounds.top_class(own, classes) for own in drawn])
        share = ((drawn == top[:, None]).sum(axis=1) + 0.5) / (drawn.shape[1] + 1)  # Jeffreys: few copies never show a share of 1
        n_a = np.rint(n * share).astype(int)
        k = np.minimum(method.audit, n_a)
        counts = bounds.Counts(n, n_a, k, np.rint(wrong * k).astype(int))
        radius = bounds.certify(bounds.rules_for(method.serialized)[0], counts, sigma, alpha)[1]
        longer = 2 * method.batch * (method.warmup - method.steps) if method.serialized else 0  # the first batch of each stage
        cost = (n0 + n) * method.steps + longer + method.audit * (method.auditor.steps if method.auditor else 0)
        each = np.where(top == np.asarray(labels), radius, 0.0)
        rows.append({"method": method, "NFE": cost, "radius": float(each.mean()), "each": each})
        return rows[-1]

    if explicit:
        full = add(settings.EXPLICIT, _every_step(model, noisy, None, 1)[0][0])
    else:
        zero, mean = _every_step(model, noisy, None, STEPS)
        full = [add(Method(f"zero-anderson-{k}", "anderson", k), drawn) for k, drawn in enumerate(zero, start=1)][-1]
    settings.check(full["radius"] > 0, "mean radius", 0.0, "images that the model classifies rightly at this noise level")
    if not explicit:
        # What audits is what is certified: the full solve, or the shortest from zero that keeps its radius.
        auditors = {full["method"], next(row["method"] for row in rows if row is full or keeps(row["each"], full["each"], keep))}
        model = copy.copy(model)
        model.anchor = mean if getattr(model, "anchor", None) is None else model.anchor
        for k, drawn in enumerate(_every_step(model, noisy, model.anchor, SHARED_STEPS)[0], start=1):
            add(Method(f"anchor-anderson-{k}", "anderson", k, start="anchor"), drawn)
        for k in (1, 3):
            srs = Method(f"previous-anderson-{k}", "anderson", k, start="previous", batch=CHAINS, warmup=10, audit=min(AUDIT, n))
            drawn = np.stack([votes.sample(model, lambda some, x=x: x[some], srs, np.arange(copies))[0] for x in noisy])
            for auditor in auditors:
                wrong = float(np.mean((drawn != zero[auditor.steps - 1])[:, CHAINS:]))  # the first batch is the chains' warm-up
                name = f"{srs.name} audited by {auditor.name}"
                add(replace(srs, name=name, batch=100, auditor=auditor), drawn[:, CHAINS:], wrong)
    table = pd.DataFrame(rows).drop(columns="each").assign(kept=[row["radius"] / full["radius"] for row in rows])
    enough = table[[row is full or keeps(row["each"], full["each"], keep) for row in rows]]
    enough = enough.sort_values(["NFE", "radius"], ascending=[True, False])
    full_at = next(i for i, row in enumerate(rows) if row is full)
    return Choice(enough["method"].iloc[0], model, table, _answer(table, enough, full_at))


def keeps(each: np.ndarray, full: np.ndarray, keep: float) -> bool:
    """Whether radii per image lie a standard error above that share of the full solve's: few images mislead."""
    over = each - keep * full
    return bool(over.mean() >= over.std(ddof=1) / len(over) ** 0.5)


@torch.inference_mode()
def _every_step(model: mdeq.DEQ, noisy: Sequence[Tensor], start: Tensor | None, steps: int) -> tuple[np.ndarray, Tensor]:
    """The votes after each step of one solve of every copy (steps, images, copies), and the mean solution (D,)."""
    inference.choose_kernels(tf32=False)
    drawn, solved = np.empty((steps, len(noisy), len(noisy[0])), np.int16), []
    for i, x in enumerate(noisy):
        u = model.inject(x)
        cold = model.initial(u)

        def look(step: int, active: Tensor, z: Tensor, i: int = i) -> Tensor:
            drawn[step:, i, active.cpu().numpy()] = votes.predict(model.head(z))  # later, too: a solved copy leaves
            return torch.zeros_like(active, dtype=torch.bool)

        z = SOLVERS["anderson"](model.f, cold if start is None else start.expand_as(cold), u, max_steps=steps, decided=look).z
        solved.append(z[torch.isfinite(z).all(dim=1)])
    return drawn, torch.cat(solved).mean(dim=0)


def _answer(table: pd.DataFrame, enough: pd.DataFrame, full: int) -> str:
    """The choice in words, and what other ways cost; `enough` are the rows that keep the radius, cheapest first."""

    def told(at: int) -> str:
        radius, kept = bounds.round_down(table["radius"][at], 3), 100 * table["kept"][at]
        cost = f"{table['method'][at].name}: {table['NFE'][at]:,} evaluations of f per image"
        return f"{cost}, expected radius {radius:.3f}, {kept:.0f} % of the full solve's"

    if len(table) == 1:
        return f"plain {told(0)}; an explicit network has no solver to shorten"
    start = table["method"].map(lambda method: method.start)
    first = {name: next((at for at in enough.index if start[at] == name), None) for name in ("zero", "anchor")}
    lines = {"cheapest sound method": enough.index[0], "full solve": full, "from zero": first["zero"],
             "from a shared start": first["anchor"], "with an audit": table["radius"][start == "previous"].idxmax()}  # fmt: skip
    return "\n".join(f"{title}: {'too few steps to keep the radius' if at is None else told(at)}" for title, at in lines.items())


def tune_folder(
    *, model: str = "cifar10/SMALL-s0.50", images: str = "", sigma: float = 0.5, n: int = 1_000, most: int = 20,
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
        device: a torch device.
    """
    own, source, classes = given(model, images, channels, device)
    some = torch.linspace(0, len(source.labels) - 1, min(most, len(source.labels))).long()
    found = tune(own, source.x(some), source.labels[some], classes=classes, sigma=sigma, n=n)
    lacks = found.method.start == "anchor" and getattr(own, "anchor", None) is None
    return f"{found}\nto start there, give your model the attribute `anchor`: that of srs.tune(...).model" if lacks else str(found)
