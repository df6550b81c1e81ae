"""Certify a model of your own: a DEQ, any network that maps images to logits, or a DEQ written for torchdeq.

`Smooth(model, classes=10, sigma=0.5).certify(x)` gives a class and a radius, as Cohen et al.'s (2019) class of that name does.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from srs import data, sealed, settings, store
from srs.deq import adapters, mdeq
from srs.settings import ABSTAIN, check, Method, Sampling, Stop
from srs.smoothing import engine, votes
from srs.smoothing.certify import Certificate, certify_image

STANDARD = Method("RS", "safe_anderson", 30, tol=0.001)  # each copy from zero until it is solved: its votes need no audit


class Smooth:
    """The smoothed classifier of a model: the class that the model gives most often to x + sigma e, e ~ N(0, I).

    Args:
        model: a DEQ with the methods inject, initial, f, head, or a network that maps images (B, C, H, W) to logits.
        classes: number of classes.
        sigma: noise level in units of [0, 1] pixels.
        method: how votes are drawn; None: plain randomized smoothing, every copy solved by itself. Votes that start from
            earlier solutions are audited; the classifier of the audit is certified.
        seed: of the noise.
        keep: stop once the radius is this share of what all n votes would give, as 0.95; 0: n votes, as where an audit is due.
    """

    ABSTAIN = ABSTAIN  # as Cohen et al.'s own class has it

    def __init__(
        self, model: object, classes: int = 10, sigma: float = 0.5, *, method: Method | None = None, seed: int = 0,
        keep: float = 0.0,
    ):
        check(0 <= keep < 1, "keep", keep, "a share of the radius, from 0 to below 1")
        self.model, self.sigma = adapters.as_deq(model, classes), settings.check_sigma(sigma)
        usual = settings.EXPLICIT if getattr(self.model, "explicit", False) else STANDARD
        stop = Stop((0.0,), keep=keep) if keep else None
        self.method, self.sampling = method or usual, Sampling(classes, seed=seed, reference=STANDARD, stop=stop)

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
        x = check_image(self.model, x, sampling.classes)
        idx = int(digest_of(x)[:8], 16) if idx is None else idx
        return certify_image(self.model, x, self.method, sampling, sigma=self.sigma, alpha=alpha, idx=idx)


@torch.inference_mode()
def check_image(model: mdeq.DEQ, x: Tensor, classes: int) -> Tensor:
    """The image where the model's weights lie, checked by `votes.check_inputs`.

    Refuses a model whose answer to an image depends on the images beside it, or on chance: its votes would not be independent.
    """
    device = next((weight.device for network in mdeq.networks_of(model) for weight in network.parameters()), None)
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
    """Certify images into a table with Cohen et al.'s columns (`predict` -1: abstains); an interrupted call goes on.

    Args:
        model: what `Smooth` takes, or a `Smooth`, whose classes and sigma then count.
        images, labels: images (C, H, W) in [0, 1], by position, and their classes.
        skip, most: every skip-th image, and at most so many of them.
        out: the table; beside it, ending in .json, what it was made with: other settings, weights or images are refused.
    """
    smooth = model if isinstance(model, Smooth) else Smooth(model, classes, sigma)
    settings.check_count(skip, 1, "skip")
    weights = digest_of(*(w for network in mdeq.networks_of(smooth.model) for w in network.state_dict().values()))
    key = settings.fingerprint(weights, smooth.sigma, smooth.method, replace(smooth.sampling, n0=n0, n=n), alpha)
    out, told, rows, seen = Path(out), Path(out).with_suffix(".json"), [], {}
    if out.is_file():
        before = sealed.read_json(told, "record of what a table was made with", by="certify")
        check(before["key"] == key, "out", str(out), "another name: this table is of another model or other settings")
        rows, seen = store.read_rows(out).to_dict("records"), before["images"]
    for idx in engine.tqdm(range(0, len(labels), skip)[:most], desc="certify", unit="image"):
        x, label = torch.as_tensor(images.x(idx) if isinstance(images, data.Images) else images[idx]), int(labels[idx])
        known = seen.setdefault(str(idx), digest_of(x))
        check(known == digest_of(x), "out", str(out), f"another name: image {idx} of this table is another one")
        if idx not in (row["idx"] for row in rows):
            found = smooth.certificate(x, n0, n, alpha, idx=idx)
            row = idx, label, found.predict, found.radius, int(found.predict == label)
            rows.append(dict(zip(store.ROW, (*row, float(found.votes.seconds.sum())))))
            sealed.write_json(told, {"key": key, "images": seen})
            sealed.write(out, pd.DataFrame(rows).to_csv(sep="\t", index=False, lineterminator="\n").encode())
    return pd.DataFrame(rows)
