"""Votes: the class that the DEQ gives to each noisy copy of an image. The only costly thing here.

RS and SRS share this code and differ only in the start and the number of solver steps. Noise is a function of
(seed, image, stage, sample), so RS and SRS see the same noise, and an audit can draw any single copy again.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from srs import sealed
from srs.deq.inference import choose_kernels
from srs.deq.mdeq import DEQ, networks_of
from srs.deq.released import anderson_as_released
from srs.deq.solvers import SOLVERS as OURS
from srs.settings import check, check_sigma, FIXED_STARTS, Method, Sampling
from srs.smoothing import adaptive
from srs.smoothing.bounds import ABSTAIN, top_class
from srs.smoothing.noise import audit_order, Copies

SOLVERS = OURS | {"anderson_as_released": anderson_as_released}


@dataclass(frozen=True)
class ImageVotes:
    """All that was sampled for one image under one method."""

    idx: int
    label: int
    select: np.ndarray  # (n0,) int16 votes that choose c_A
    estimate: np.ndarray  # (n,) int16 votes that estimate p_A
    audited: np.ndarray  # (k,) int32 positions in `estimate` that were solved again, in the audit's random order
    standard: np.ndarray  # (k,) int16 what the standard DEQ votes there
    nfe: np.ndarray  # (3,) int64 evaluations of f in selection (with the start), estimation, audit
    seconds: np.ndarray  # (3,) float64 wall time of the same


class Fixed(NamedTuple):
    """One state that every copy starts from: given that state, votes are independent."""

    z: Tensor  # (1, D)
    shift: Tensor | None = None  # (steps, classes): how far logits are from the solution's after each step, on the pilot's mean


class Decision:
    """Stops a sample once two iterates in a row give one class, whose probability leads by more than `margin`.

    Where the pilot has measured how far each step's logits are from the solution's, the lead alone decides. What stops early
    depends on that sample alone, so the vote stays a function of the noisy copy and its start.
    """

    def __init__(self, head: Callable[[Tensor], Tensor], count: int, margin: float, shift: Tensor | None):
        self.head, self.count, self.margin, self.shift = head, count, margin, shift

    def __call__(self, step: int, active: Tensor, z: Tensor) -> Tensor:
        """Whether each of the active samples' votes is known, given their new iterates z; `logits` holds the last of all."""
        logits = self.head(z) if self.shift is None else self.head(z) + self.shift[step]
        if step == 0:
            self.logits = logits.new_empty(self.count, logits.shape[1])
        before, now = self.logits[active].argmax(dim=1), logits.argmax(dim=1)
        self.logits[active] = logits
        top = logits.softmax(dim=1).topk(2, dim=1).values
        leads = top[:, 0] - top[:, 1] > self.margin
        return leads if self.shift is not None else leads & (before == now) & (step > 0)


@torch.inference_mode()
def check_inputs(model: DEQ, x: Tensor, classes: int) -> Tensor:
    """The image (C, H, W) as float32, which it may be converted to; no evaluation of f is spent.

    ConfigError for a model or an image whose certificate would not hold.
    """
    floating = isinstance(x, Tensor) and x.is_floating_point()
    right = "a floating-point tensor in [0, 1]: noise on whole numbers is rounded"
    check(floating, "image", getattr(x, "dtype", type(x)), right)
    shape = tuple(x.shape)
    x = (x[0] if len(shape) == 4 and shape[0] == 1 else x).float()
    check(x.dim() == 3 and x.numel() > 0, "image shape", shape, "one image, (C, H, W) or (1, C, H, W)")
    low, high = float(x.min()), float(x.max())  # not a number where a pixel is none
    check(low >= 0 and high <= 1, "image", f"pixels from {low:g} to {high:g}", "finite pixels in [0, 1], the unit of sigma")
    training = any(part.training for network in networks_of(model) for part in network.modules())
    check(not training, "model", "a network in train mode", "model.eval(): its votes must depend on the copy alone")
    kinds = {weight.dtype for network in networks_of(model) for weight in network.parameters()} - {torch.float32}
    check(not kinds, "weights of the model", kinds, "torch.float32")
    u = model.inject(x.expand(2, *x.shape))
    logits = tuple(model.head(model.initial(u).contiguous()).shape)
    check(logits == (2, classes), "shape of the logits of two images", logits, f"(2, {classes})")
    return x


@torch.inference_mode()
def sample(
    model: DEQ, copies: Callable[[np.ndarray], Tensor], method: Method, samples: np.ndarray, *, fixed: Fixed | None = None
) -> tuple[np.ndarray, int]:
    """Votes (len(samples),) int16 for the copies of those sample numbers, in their order, and the evaluations of f spent.

    Standard RS (Cohen et al. 2019) and SRS (the paper's Algorithm 1) are the same loop with another start. `fixed` is what
    `fixed_start` gives. A vote is ABSTAIN where a logit is not finite.
    """
    choose_kernels()
    asked = method.start in FIXED_STARTS
    check(asked == (fixed is not None), "fixed", fixed, f"what `fixed_start` gives for the start {method.start}")
    solve, shift, chain = SOLVERS[method.solver], fixed and fixed.shift, method.start == "previous"
    head = head_of(model, method)
    votes, nfe, ended = np.empty(len(samples), np.int16), 0, None
    for i in range(0, len(samples), method.batch):
        part = samples[i : i + method.batch]
        u = model.inject(copies(part))
        z0 = model.initial(u)
        if fixed is not None:
            z0 = fixed.z.expand_as(z0)
        elif ended is not None:  # SRS: where the same slot of the batch before ended; cold where that is not finite
            finite = torch.isfinite(ended[: len(part)]).all(dim=1, keepdim=True)
            z0 = torch.where(finite, ended[: len(part)], z0)
        steps = method.warmup if chain and ended is None and method.warmup else method.steps
        decision = Decision(head, len(part), method.margin, shift) if method.margin else None
        z, spent = solve(model.f, z0, u, max_steps=steps, tol=method.tol, decided=decision)
        logits = decision.logits if decision else head(z) if shift is None else head(z) + shift[-1]
        votes[i : i + method.batch] = predict(logits)
        nfe += int(spent.sum())
        ended = z if chain else None
    return votes, nfe


@torch.inference_mode()
def fixed_start(model: DEQ, pilot: Copies, method: Method, *, reference: Method) -> tuple[Fixed | None, int]:
    """The one state that all copies of an image start from, and the evaluations of f that it cost; None for other starts.

    `clean` (the paper's ablation): the noise-free image's solution by the reference method. `pilot_mean`: the mean solution of
    a pilot of noisy copies that no stage sees again. `corrected_pilot_mean`: the same, and the pilot solved once more from
    there, by the method, to learn what its logits miss on average. `train_mean`: the model's own, for every image; ConfigError
    if it has none. Means are over the pilot copies with a finite solution; without one the start is cold.
    """
    choose_kernels()
    if method.start not in FIXED_STARTS:
        return None, 0
    if method.start == "train_mean":
        train_mean = getattr(model, "train_mean", None)
        check(train_mean is not None, "start", "train_mean", "a model with a training mean; `srs train` writes one")
        return Fixed(train_mean[None]), 0
    clean = method.start == "clean"
    u = model.inject(pilot.x[None] if clean else pilot(np.arange(method.pilot)))
    z = SOLVERS[reference.solver](model.f, model.initial(u), u, max_steps=reference.steps if clean else method.warmup).z
    mean = _finite_mean(z, model.initial(u)[0])[None]
    shift = _missing(model, method, mean.expand_as(z), u, z) if method.start == "corrected_pilot_mean" else None
    return Fixed(mean, shift), reference.steps if clean else method.pilot_nfe


def _missing(model: DEQ, method: Method, z0: Tensor, u: Tensor, z: Tensor) -> Tensor:
    """What the logits after each of the method's steps from z0 miss of those of z, on average (steps, classes)."""
    missing, head = [], head_of(model, method)
    solved = head(z)

    def look(step: int, active: Tensor, z: Tensor) -> Tensor:
        missing.append(_finite_mean(solved - head(z), torch.zeros_like(solved[0])))
        return torch.zeros_like(active, dtype=torch.bool)

    SOLVERS[method.solver](model.f, z0, u, max_steps=method.steps, decided=look)
    return torch.stack(missing)


def head_of(model: DEQ, method: Method) -> Callable[[Tensor], Tensor]:
    """The model's head as a method runs it; rounded, it is another classifier, and a sound certificate is that one's."""
    if method.head is None:
        return model.head

    def rounded(z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, torch.bfloat16):
            return model.head(z).float()

    return rounded


def _finite_mean(rows: Tensor, otherwise: Tensor) -> Tensor:
    finite = rows[torch.isfinite(rows).all(dim=1)]
    return finite.mean(dim=0) if len(finite) else otherwise


def predict(logits: Tensor) -> np.ndarray:
    """The class of each row of logits; ties go to the lowest class, a row that is not finite to ABSTAIN."""
    finite = torch.isfinite(logits).all(dim=1)
    return torch.where(finite, logits.argmax(dim=1), ABSTAIN).cpu().numpy().astype(np.int16)


def draw_votes(
    model: DEQ, x: Tensor, method: Method, sampling: Sampling, sigma: float, *, idx: int = 0, label: int = -1
) -> ImageVotes:
    """Select, estimate and audit one image (C, H, W) in [0, 1] under one method.

    `idx` names the image's noise streams and its place in the data set. Where `sampling.stop` is set, votes that need no audit
    end at a look of `adaptive.Looks`: once each radius is decided, or at the first if c_A is not the `label` (-1: unknown).
    The audit solves again, by the method's auditor or else the reference, from a cold start, the first K votes for c_A in a
    random order that is independent of the votes: a uniform draw without replacement among them.
    """
    check_sigma(sigma)
    sampling.check_method(method)
    x = check_inputs(model, x, sampling.classes)
    clock = [time.perf_counter()]
    copies = partial(Copies, x, sigma, sampling.seed, idx, levels=sampling.levels if sampling.noise == "grid" else None)
    fixed, nfe_start = fixed_start(model, copies("pilot"), method, reference=sampling.reference)
    select, nfe_select = sample(model, copies("select"), method, np.arange(sampling.n0), fixed=fixed)
    clock.append(time.perf_counter())
    c_a = top_class(select, sampling.classes)
    looks, estimate, nfe_estimate = adaptive.Looks(sampling.n) if sampling.n_max(method) else None, np.empty(0, np.int16), 0
    for first, last in pairwise((0, *(looks.at if looks else (sampling.n,)))):
        part, spent = sample(model, copies("estimate"), method, np.arange(first, last), fixed=fixed)
        estimate, nfe_estimate = np.append(estimate, part), nfe_estimate + spent
        n_a = int((estimate == c_a).sum())
        hopeless = c_a == ABSTAIN or label not in (-1, c_a)  # then it counts for no radius, whatever its votes
        if looks and (hopeless or adaptive.enough(n_a, last, sigma=sigma, stop=sampling.stop, looks=looks)):
            break
    clock.append(time.perf_counter())
    audited = _audited(estimate, c_a, method, sampling, idx)
    standard, nfe_audit = sample(model, copies("estimate"), method.auditor or sampling.reference, audited)
    clock.append(time.perf_counter())
    return ImageVotes(
        idx, label, select, estimate, audited.astype(np.int32), standard,
        np.array([nfe_start + nfe_select, nfe_estimate, nfe_audit]), np.diff(clock),
    )


def write(path: Path, votes: ImageVotes) -> None:
    """Store one image's votes, whole or not at all."""
    content = io.BytesIO()
    np.savez_compressed(content, **vars(votes))
    sealed.save(path, content.getvalue())


def _audited(estimate: np.ndarray, c_a: int, method: Method, sampling: Sampling, idx: int) -> np.ndarray:
    """The positions of the first K votes for c_A in the audit's order."""
    order = audit_order(sampling.seed, idx, len(estimate))
    return order[(estimate[order] == c_a) & (c_a != ABSTAIN)][: method.audit]


def read(path: Path, method: Method, sampling: Sampling) -> ImageVotes:
    """Read one image's votes; raises what `sealed.read` raises, also where they are not as many or audited as that asks."""

    def parse(body: bytes) -> ImageVotes:
        with np.load(io.BytesIO(body), allow_pickle=False) as stored:
            votes = ImageVotes(**{name: stored[name][()] for name in ImageVotes.__dataclass_fields__})
        every = np.concatenate([votes.select, votes.estimate, votes.standard])
        audited = _audited(votes.estimate, top_class(votes.select, sampling.classes), method, sampling, votes.idx)
        enough = len(votes.estimate) == sampling.n or bool(sampling.n_max(method))
        if not (enough and np.array_equal(audited, votes.audited) and -1 <= every.min() <= every.max() < sampling.classes):
            raise ValueError
        return votes

    return sealed.read(path, "file of one image's votes", parse, by="certify")
