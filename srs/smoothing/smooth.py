"""Certify a model of your own: a DEQ, any network that maps images to logits, or a DEQ written for torchdeq.

`Smooth(model, classes=10, sigma=0.5).certify(x)` gives a class and a radius, as Cohen et al.'s (2019) class of that name does.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from srs import data, sealed, settings, store
from srs.deq import adapters, inference, mdeq
from srs.settings import ABSTAIN, check, Method, Sampling, Stop
from srs.smoothing import engine
from srs.smoothing.certify import alike, answers, Certificate, certify_image, check_image, digest_of, prepared, VOTES_DEPEND_ON

STANDARD = Method("RS", "safe_anderson", 30, tol=0.001)  # each copy from zero until it is solved: its votes need no audit


class Smooth:
    """The smoothed classifier of a model: the class that the model gives most often to x + sigma e, e ~ N(0, I).

    Args:
        model: a DEQ with the methods inject, initial, f, head, or a network that maps images (B, C, H, W) to logits.
        classes: number of classes.
        sigma: noise level in units of [0, 1] pixels.
        method: how votes are drawn; None: plain randomized smoothing, every copy solved by itself. Votes that start from
            earlier solutions are audited; the classifier of the audit is certified.
        seed: of the noise, whose chance alpha is: who chooses an image may not know it.
        keep: stop once the radius is this share of what all n votes would give, as 0.95; 0: n votes, as where an audit is due.
        levels: exact noise for pixels that are multiples of 1/levels, as 255 (`exact`); None: floating point, whose rounding a
            model may read, so that its certificates hold in real arithmetic alone.
    """

    ABSTAIN = ABSTAIN  # as Cohen et al.'s own class has it

    def __init__(
        self, model: object, classes: int = 10, sigma: float = 0.5, *, method: Method | None = None, seed: int = 0,
        keep: float = 0.0, levels: int | None = None,
    ):
        check(0 <= keep < 1, "keep", keep, "a share of the radius, from 0 to below 1")
        self.model, self.sigma = adapters.as_deq(model, classes), settings.check_sigma(sigma)
        usual = settings.EXPLICIT if getattr(self.model, "explicit", False) else STANDARD
        stop = Stop((0.0,), keep=keep) if keep else None
        exact = {"noise": "grid", "levels": levels} if levels else {}
        self.method, self.sampling = method or usual, Sampling(classes, seed=seed, reference=STANDARD, stop=stop, **exact)

    def certify(self, x: Tensor, n0: int = 100, n: int = 1_000, alpha: float = 0.001) -> tuple[int, float]:
        """The class of an image and the l2 radius within which it holds, but for a chance alpha; else (ABSTAIN, 0.0).

        Args:
            x: image (C, H, W) or (1, C, H, W) in [0, 1], floating point.
            n0, n: noisy copies that choose the class, and that estimate its probability.
            alpha: failure probability.
        """
        return self.certificate(x, n0, n, alpha)[:2]

    def certificate(
        self, x: Tensor, n0: int = 100, n: int = 1_000, alpha: float = 0.001, *, idx: int | None = None
    ) -> Certificate:
        """The same with the bound on p_A, the cost and the votes; `idx` names the noise, else the image's own pixels do."""
        sampling = replace(self.sampling, n0=n0, n=n, stop=self.sampling.stop and replace(self.sampling.stop, alpha=alpha))
        return certify_image(self.model, x, self.method, sampling, sigma=self.sigma, alpha=alpha, idx=idx)


def certify_images(
    model: object, images: Sequence[Tensor] | data.Images, labels: Sequence[int], *, classes: int = 10, sigma: float = 0.5,
    n0: int = 100, n: int = 1_000, alpha: float = 0.001, skip: int = 1, most: int | None = None, out: str | Path,
    workers: int = 1, scheduler: str = "",
) -> pd.DataFrame:
    """Certify images into a table with Cohen et al.'s columns (`predict` -1: abstains); an interrupted call goes on.

    Args:
        model: what `Smooth` takes, or a `Smooth`, whose classes and sigma then count.
        images, labels: images (C, H, W) in [0, 1], by position, and their classes.
        skip, most: every skip-th image, and at most so many of them.
        out: the table; beside it, in `out`.json, what it was made with: of another model or code of srs, with other settings,
            images or labels, on another kind of device, it does not go on.
        workers, scheduler: whose processes share the images, one thread each; see `engine`.
    """
    engine.check(workers, scheduler)
    smooth, labels = model if isinstance(model, Smooth) else Smooth(model, classes, sigma), [int(label) for label in labels]
    settings.check_count(skip, 1, "skip")
    there, classes = len(images.labels if isinstance(images, data.Images) else images), smooth.sampling.classes
    check(0 < len(labels) == there, "labels", len(labels), f"a label for each of the images, {there}, and an image at least")
    check(0 <= min(labels) and max(labels) < classes, "labels", (min(labels), max(labels)), f"classes from 0 to {classes - 1}")
    image = images.x if isinstance(images, data.Images) else images.__getitem__
    chosen = range(0, len(labels), skip)[:most]
    seen = {str(idx): f"{digest_of(torch.as_tensor(image(idx)))} {labels[idx]}" for idx in chosen}  # all, before any work
    networks, mean = mdeq.networks_of(smooth.model), getattr(smooth.model, "train_mean", None)
    weights = [w for network in networks for w in (*network.state_dict().values(), *network.buffers())]
    device = str(weights[0].device if weights else "cpu")
    made_by = inference.computed_on(device), store.code_digest(*VOTES_DEPEND_ON)
    given = digest_of(*weights, *([] if mean is None else [mean])), smooth.sigma, smooth.method
    key = settings.fingerprint(*given, replace(smooth.sampling, n0=n0, n=n), alpha, *made_by)
    first = answers(smooth.model, check_image(smooth.model, torch.as_tensor(image(0)), classes))  # shows what no digest sees
    out, told, rows = Path(out), Path(f"{out}.json"), []
    with sealed.alone(out.with_name(f".{out.name}.lock"), f"certifying into {out}"):
        before = sealed.read_json(told, "record of a table", by="certify") if told.is_file() else {"images": {}}
        if out.is_file():
            same = before.get("key") == key and alike(torch.tensor(before["first"]), first.cpu())
            check(same, "out", str(out), "another name: this table is of another model or other settings")
            other = [idx for idx, known in seen.items() if before["images"].get(idx, known) != known]
            check(not other, "out", str(out), f"another name: image {''.join(other[:1])} of this table or its label is another")
            rows = store.read_rows(out).to_dict("records")
        sealed.write_json(told, {"key": key, "first": first.tolist(), "images": before["images"] | seen})
        done = {row["idx"] for row in rows}
        todo = [idx for idx in chosen if idx not in done]
        given = ((torch.as_tensor(image(idx)), idx) for idx in todo)
        prepare = prepared(lambda _: lambda x, idx: smooth.certificate(x, n0, n, alpha, idx=idx), device, VOTES_DEPEND_ON)
        found = engine.compute(prepare, given, workers=min(workers, max(1, len(todo))), scheduler=scheduler)
        with closing(found), engine.tqdm(found, total=len(todo), desc="certify", unit="image") as shown:
            for i, certificate in shown:
                idx = todo[i]
                row = idx, labels[idx], certificate.predict, certificate.radius, int(certificate.predict == labels[idx])
                rows.append(dict(zip(store.ROW, (*row, float(certificate.votes.seconds.sum())))))
                table = pd.DataFrame(rows).sort_values("idx")
                sealed.write(out, table.to_csv(sep="\t", index=False, lineterminator="\n").encode())
    return pd.DataFrame(rows, columns=[*store.ROW]).sort_values("idx", ignore_index=True)
