"""Seconds and evaluations of f per vote, ours and the released code's, in one process and by turns.

Every repetition takes another image, and every contender votes on the same copies of it, one after the other, so that a
machine that slows down slows all of them. What is compared is medians and ratios, never a bare time.
"""

import contextlib
import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from srs import data, sealed, settings, store
from srs.deq import checkpoints, inference, mdeq, memory
from srs.progress import tqdm
from srs.settings import Method, Run
from srs.smoothing import certify, votes
from srs.smoothing.noise import Copies

COMPILED = ", compiled"  # ends the label of a contender that is compiled
KEPT = ", memory kept"  # ends the label of the released code's ways with our allocator
RELEASED_AUDIT_STEPS = 12  # the released code audits by a 10-step solve, which costs it 12 evaluations of f


@dataclass(frozen=True)
class Contender:
    """One way to vote: a method, and whether the model is folded (ours) or as it was trained (released), and so on."""

    label: str
    method: Method
    folded: bool = True
    compiled: bool = False
    kept: bool = True  # whether freed memory is kept, see deq.memory


def released(batch: int = 400) -> tuple[Contender, ...]:
    """The released code's MDEQ-30A and SRS-MDEQ-3A: two evaluations more, unfolded, batches of 400, memory as usual.

    Both stand a second time with memory kept, as ours have it, to show what that alone does.
    """
    full = Method("released MDEQ-30A", "released_anderson", 30, batch=batch)
    srs = Method("released SRS-MDEQ-3A", "released_anderson", 3, start="previous", batch=batch, warmup=30)
    as_it_is = [Contender(m.name, m, folded=False, kept=False) for m in (full, srs)]
    return (*as_it_is, *(replace(c, label=c.label + KEPT, kept=True) for c in as_it_is))


def compare(
    run: Run, contenders: tuple[Contender, ...], *, repetitions: int = 5, copies: int = 400, device: str = "cpu",
    progress: bool = True,
) -> pd.DataFrame:
    """Seconds and evaluations of f per vote of each contender on the trained model of a run; all are compared with the first.

    The first batch of `previous` is longer than the others and is not timed: at N = 10,000 it is a small part.

    Args:
        run: a trained run.
        contenders: what votes.
        repetitions: images, one after the other.
        copies: noisy copies of each image.
        device: a torch device.
        progress: whether to show a progress bar.

    Returns:
        A row per contender, medians over the repetitions: `label`, `repetitions`, `nfe` and `seconds` per vote, `ratio` of the first
        one's seconds over these, `differing` (share of votes unlike the first one's on the same copies), `peak_share` (floating-point
        operations per second over those of a large matrix product in the same repetition).
    """
    settings.check_count(repetitions, 1, "repetitions")
    inference.check_device(device)
    memory.keep_freed()
    folded = certify.load_model(run, device)
    plain = checkpoints.load(store.own(run, store.WEIGHTS), run.model, run.profile.data).to(device)
    forms = {(True, False): folded, (False, False): plain}
    if any(c.compiled for c in contenders):
        forms[True, True] = certify.load_model(replace(run, profile=replace(run.profile, compiled=True)), device)
    images, profile = data.load(run.profile.data, "test"), run.profile
    flop = flops(folded, images.x(slice(0, 1)).to(device))
    seconds, nfe, wrong = (np.zeros((repetitions, len(contenders))) for _ in range(3))
    peaks = np.zeros(repetitions)
    for contender in contenders:
        if contender.compiled:  # the first call of a compiled function compiles it
            idx = profile.evaluated[0]
            _vote(contender, forms[True, True], images.x(idx).to(device), run, idx, copies)
    for i in tqdm(range(repetitions), desc=f"bench {run.id}", unit="image", disable=not progress):
        idx = profile.evaluated[i % profile.images]
        x = images.x(idx).to(device)
        peaks[i] = matrix_peak(device)
        first = None
        for j, contender in enumerate(contenders):
            with contextlib.nullcontext() if contender.kept else memory.as_usual():
                form = forms[contender.folded, contender.compiled]
                drawn, seconds[i, j], nfe[i, j] = _vote(contender, form, x, run, idx, copies)
            first = drawn if first is None else first
            wrong[i, j] = np.mean(drawn != first)
    heads = np.where([c.method.margin > 0 for c in contenders], nfe / copies, 1)  # a margin asks the head at every step
    common = np.array([c.folded and c.method.start != "previous" for c in contenders])  # the first step from one state
    work = (nfe / copies - common) * flop["f"] + common * flop["f, common state"] + heads * flop["head"] + flop["inject"]
    share = work * copies / seconds / peaks[:, None]
    return pd.DataFrame({
        "label": [c.label for c in contenders], "repetitions": repetitions, "nfe": np.median(nfe / copies, axis=0),
        "seconds": np.median(seconds / copies, axis=0), "ratio": np.median(seconds[:, :1] / seconds, axis=0),
        "differing": wrong.mean(axis=0), "peak_share": np.median(share, axis=0),
    })  # fmt: skip


def _vote(
    contender: Contender, model: mdeq.MDEQ, x: torch.Tensor, run: Run, idx: int, copies: int
) -> tuple[np.ndarray, float, int]:
    """The votes on the copies, and the seconds and evaluations of f that they took, starts and warm-up aside."""
    method, precision = contender.method, run.profile.precision
    pilot, estimate = (Copies(x, run.sigma, run.profile.seed, idx, stage) for stage in ("pilot", "estimate"))
    drawn_copies = estimate(np.arange(2 * copies))  # before the clock runs
    sample = functools.partial(votes.sample, model, lambda samples: drawn_copies[samples], precision=precision)
    fixed, _ = votes.fixed_start(model, pilot, method, reference=run.profile.method(run.profile.reference), precision=precision)
    timed = np.arange(copies, 2 * copies)
    if method.start == "previous":  # the votes come from a chain that has run for a batch
        settings.check(method.batch == copies, "batch", method.batch, f"{copies}, the copies that are timed")
        drawn = sample(method, np.arange(2 * copies))[0][copies:]
        began = time.perf_counter()
        _, nfe = sample(replace(method, warmup=0), timed)
        return drawn, _since(began, x), nfe
    began = time.perf_counter()
    drawn, nfe = sample(method, timed, fixed=fixed)
    return drawn, _since(began, x), nfe


def _since(began: float, x: torch.Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


@torch.inference_mode()
def flops(model: mdeq.MDEQ, x: torch.Tensor) -> dict[str, int]:
    """Floating-point operations per image of f, the head and the injection (a multiply-add counts two).

    `f, common state` is what one more image costs whose state is that of the others.
    """
    u = model.inject(x)
    z = model.initial(u).contiguous()

    def count(call: Callable[[], torch.Tensor]) -> int:
        with FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops()

    def common(rows: int) -> int:
        return count(lambda: model.f(z[:1].expand(rows, -1), u[:1].expand(rows, *u.shape[1:])))

    return {
        "f": count(lambda: model.f(z, u)) // len(x), "f, common state": common(3) - common(2),
        "head": count(lambda: model.head(z)) // len(x), "inject": count(lambda: model.inject(x)) // len(x),
    }  # fmt: skip


def matrix_peak(device: str, size: int = 1024, tries: int = 5) -> float:
    """Floating-point operations per second of a large float32 matrix product, the best of a few tries."""
    a = torch.ones(size, size, device=device)
    best = np.inf
    for _ in range(tries):
        began = time.perf_counter()
        a @ a
        best = min(best, _since(began, a))
    return 2 * size**3 / best


def read(path: Path) -> pd.DataFrame:
    """The stored timings of a file; raises what `store.read` raises."""
    columns = {"label": str, "repetitions": int, "nfe": float, "seconds": float, "ratio": float, "differing": float, "peak_share": float}
    return store.read_frame(path, columns, "table of timings", by="bench")


def contenders_of(run: Run, copies: int, *, compiled: bool = False) -> tuple[Contender, ...]:
    """The released code's two ways, then every method of the run's profile (compiled, too, if asked), chains as long as the timed batch is wide."""
    ours = [replace(m, batch=copies) if m.start == "previous" else m for m in run.profile.methods]
    twice = [Contender(m.name + COMPILED, m, compiled=True) for m in ours] if compiled else []
    return (*released(copies), *(Contender(m.name, m) for m in ours), *twice)


def bench(
    run: Run, *, device: str = "cpu", repetitions: int = 5, copies: int = 400, compiled: bool = False, only: tuple[str, ...] = (),
    ship: bool = False,
) -> Path:
    """Time one run's methods against the released code's cost and store the table.

    Args:
        run: a trained run.
        device: a torch device.
        repetitions: images, one after the other.
        copies: noisy copies of each image.
        compiled: time our methods compiled, too.
        only: labels of what is timed besides the released MDEQ-30A.
        ship: store the table where it is tracked.
    """
    contenders = contenders_of(run, copies, compiled=compiled)
    if only:
        by_label = {c.label: c for c in contenders}
        contenders = (contenders[0], *(settings.pick(label, by_label, "contender") for label in only))
    timings = compare(run, contenders, repetitions=repetitions, copies=copies, device=device)
    path = (store.tracked if ship else store.measured)(run, "bench.csv")
    store.save_frame(path, timings)
    sealed.write_json(path.with_suffix(".json"), store.provenance(
        run=run.id, device=inference.device_name(device), threads=torch.get_num_threads(), copies=copies,
        methods=[asdict(c.method) for c in contenders], weights=checkpoints.digest(store.own(run, store.WEIGHTS)),
    ))  # fmt: skip
    return path


def certificate_seconds(run: Run, timings: pd.DataFrame, n: int) -> pd.Series:
    """Seconds of one certificate at N = n with each contender, from seconds per vote: selection, estimation, start and audit."""
    seconds = timings.set_index("label")["seconds"]
    per_step = seconds / timings.set_index("label")["nfe"]
    return timings["label"].map(lambda label: (run.profile.n0 + n) * seconds[label] + _besides(run, label, seconds, per_step))


def _besides(run: Run, label: str, seconds: pd.Series, per_step: pd.Series) -> float:
    """Seconds of the start and the audit of one certificate."""
    profile = run.profile
    method = {m.name: m for m in profile.methods}.get(label.removesuffix(COMPILED))
    compiled = COMPILED if label.endswith(COMPILED) else ""
    if method is None:  # the released code; its SRS audits too
        k = min(m.audit for m in profile.methods if m.audit) if "SRS" in label else 0
        return k * RELEASED_AUDIT_STEPS * per_step["released MDEQ-30A" + (KEPT if label.endswith(KEPT) else "")]
    start = method.pilot_nfe
    if method.start == "clean":
        start = profile.sampling.reference.steps
    if method.start == "previous":
        start = 2 * method.batch * max(method.warmup - method.steps, 0)
    if not (method.audit or start):
        return 0.0
    audited = settings.pick((method.auditor or profile.sampling.reference).name + compiled, dict(seconds), "timed method")
    return method.audit * audited + start * settings.pick(profile.reference + compiled, dict(per_step), "timed method")
