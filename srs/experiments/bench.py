"""Evaluations of f and seconds of a vote and of a certificate, ours and the released code's, in one process and by turns.

Every repetition takes another image; contenders vote on the same copies in turn, so what slows the machine slows all of them.
"""

import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from srs import data, sealed, settings, store
from srs.deq import checkpoints, inference, mdeq
from srs.deq.released import RELEASED_TOL
from srs.settings import Method, Run, STOP
from srs.smoothing import certify, engine, noise, votes

AUTHORS = "authors'"  # begins the label of a way of the released code
BEST_BATCH = 8  # on a CPU the released code is fastest in batches of 50, an eighth of its 400
COLUMNS = {"label": str, "batch": int, "repetitions": int, "nfe": float, "seconds": float, "ratio": float, "ratio_best": float,
           "differing": float}  # fmt: skip


def contenders_of(run: Run, copies: int) -> tuple[Method, ...]:
    """The released code's ways, then every method of the run's profile."""
    audits = [method.audit for method in run.profile.methods if method.audit]
    return (*released(copies, min(audits, default=0)), *(replace(m, batch=min(m.batch, copies)) for m in run.profile.methods))


def released(copies: int, audit: int) -> tuple[Method, ...]:
    """The released code's MDEQ-30A, SRS-MDEQ-3A and audit by 10 steps, each in batches of all copies and of an eighth.

    It stops a batch at its worst residual. MDEQ-30A stands a third time without that stop, which cannot be switched off there.
    """
    full, srs, audits = [], [], []
    for batch in (copies, max(copies // BEST_BATCH, 1)):
        where, solver = f", batch {batch}", dict(solver="anderson_as_released", batch=batch, tol=RELEASED_TOL)
        full.append(Method(f"{AUTHORS} MDEQ-30A{where}", steps=30, **solver))
        audits.append(Method(f"{AUTHORS} audit{where}", steps=10, **solver))
        chain = dict(start="previous", warmup=10, audit=audit, auditor=audits[-1])
        srs.append(Method(f"{AUTHORS} SRS-MDEQ-3A{where}", steps=3, **solver, **chain))
    return (*full, replace(full[0], name=f"{full[0].name}, no stop", tol=0.0), *srs, *audits)


def compare(
    run: Run, contenders: tuple[Method, ...], *, repetitions: int = 5, copies: int = 400, device: str = "cpu",
    progress: bool = True,
) -> pd.DataFrame:
    """Seconds and evaluations of f per vote of each contender, without start and warm-up; medians over the repetitions.

    `ratio` and `ratio_best` are the first and the second one's seconds over a contender's, `differing` is its share of votes
    unlike the first one's. The released code's ways run on the model unfolded.
    """
    settings.check_count(repetitions, 1, "repetitions")
    inference.check_device(device)
    profile, images = run.profile, data.load(run.profile.data, "test")
    plain = checkpoints.load(store.own(run, store.WEIGHTS), run.model, profile.data).to(device)
    folded = certify.load_model(run, device)
    seconds, nfe, differing = np.zeros((3, repetitions, len(contenders)))
    for i in engine.tqdm(range(repetitions), desc=f"bench {run.id}", unit="image", disable=not progress):
        idx, drawn = profile.evaluated[i % profile.images], []
        x = images.x(idx).to(device)
        for j, method in enumerate(contenders):
            model = plain if method.solver == "anderson_as_released" else folded
            found, seconds[i, j], nfe[i, j] = _vote(method, model, x, run, idx, copies)
            drawn.append(found)
            differing[i, j] = np.mean(found != drawn[0])
    return pd.DataFrame({
        "label": [m.name for m in contenders], "batch": [m.batch for m in contenders], "repetitions": repetitions,
        "nfe": np.median(nfe / copies, axis=0), "seconds": np.median(seconds / copies, axis=0),
        "ratio": np.median(seconds[:, :1] / seconds, axis=0), "ratio_best": np.median(seconds[:, 1:2] / seconds, axis=0),
        "differing": differing.mean(axis=0),
    })  # fmt: skip


def _vote(method: Method, model: mdeq.DEQ, x: torch.Tensor, run: Run, idx: int, copies: int) -> tuple[np.ndarray, float, int]:
    """The votes on noisy copies, and the seconds and evaluations of f that they took; a chain runs for a batch before."""
    p, early = run.profile, method.batch * (method.start == "previous")
    settings.check(early <= copies, f"chains of {method.name}", early, f"at most the {copies} copies that are timed")
    pilot, estimate = (noise.Copies(x, run.sigma, p.seed, idx, stage) for stage in ("pilot", "estimate"))
    fixed, _ = votes.fixed_start(model, pilot, method, reference=p.method(p.reference))
    noisy, spent, began = estimate(np.arange(2 * copies)), [], []  # drawn before the clock runs

    def give(samples: np.ndarray) -> torch.Tensor:
        if samples[0] == copies:
            spent.clear()
            began.append(_now(x))
        return noisy[samples]

    def f(z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        spent.append(len(u))
        return model.f(z, u)

    counted = SimpleNamespace(inject=model.inject, initial=model.initial, f=f, head=model.head)
    drawn, _ = votes.sample(counted, give, method, np.arange(copies - early, 2 * copies), fixed=fixed)
    return drawn[early:], _now(x) - began[0], sum(spent)


def _now(x: torch.Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()  # what neighbours take of a CPU is not counted


def bench(run: Run, *, device: str = "cpu", repetitions: int = 5, copies: int = 400, ship: bool = False) -> Path:
    """Time a run's methods beside the released code's and store the table, where it is tracked if `ship`.

    Args:
        repetitions: images, one after the other.
        copies: noisy copies of each image.
        ship: whether to store the table where it is tracked.
    """
    contenders = contenders_of(run, copies)
    path = (store.tracked if ship else store.own)(run, file_of(device))
    store.save_frame(path, compare(run, contenders, repetitions=repetitions, copies=copies, device=device))
    sealed.write_json(path.with_suffix(".json"), store.provenance(
        run=run.id, device=inference.device_name(device), threads=torch.get_num_threads(), copies=copies,
        methods=[asdict(m) for m in contenders], weights=checkpoints.digest(store.own(run, store.WEIGHTS)),
    ))  # fmt: skip
    return path


def file_of(device: str) -> str:
    """The name of the table of timings of a kind of device."""
    kind = torch.device(device).type
    return "bench.csv" if kind == "cpu" else f"bench_{kind}.csv"


def read(run: Run, device: str = "cpu") -> pd.DataFrame | None:
    """The stored timings of a run's methods; None where they were not taken."""
    path = store.find(run, file_of(device))
    return path and store.read_frame(path, COLUMNS, "table of timings", by="bench")


def certificate_cost(run: Run, timings: pd.DataFrame, n: int) -> pd.DataFrame:
    """Evaluations of f and seconds of one certificate at N = n with each contender: selection, estimation, start and audit.

    A start takes its auditor's seconds per evaluation.
    """
    cost, profile = timings.set_index("label")[["nfe", "seconds"]], run.profile
    methods, rows = {m.name: m for m in contenders_of(run, int(timings["batch"][0]))}, []
    for label, vote in cost.iterrows():
        method = settings.pick(label, methods, "timed method")
        total = (profile.n0 + n) * vote
        start = profile.sampling.reference.steps if method.start == "clean" else method.pilot_nfe
        if method.needs_audit:
            audited = settings.pick((method.auditor or STOP).name, dict(cost.iterrows()), "timed method")
            if method.start == "previous":  # selection and estimation begin with a batch of longer solves each
                longer = (audited["nfe"] if method.tol else method.warmup) - vote["nfe"]
                start = (min(method.batch, profile.n0) + min(method.batch, n)) * longer
            total = total + method.audit * audited + start * audited / audited["nfe"]
        rows.append({"label": label, **total})
    return pd.DataFrame(rows)
