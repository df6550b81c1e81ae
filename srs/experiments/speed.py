"""Notebook 41: evaluations of f and seconds of a vote and of a certificate, ours and the released code's, by turns.

Every repetition takes another image; contenders vote on the same copies in turn, so what slows the machine slows all of them.
"""

import time
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from srs import data, sealed, settings, store
from srs.analysis import measures, show
from srs.deq import checkpoints, inference, mdeq
from srs.deq.released import RELEASED_TOL
from srs.experiments.certified_accuracy import model_of, name_of
from srs.settings import Method, Profile, Run, STOP
from srs.smoothing import certify, engine, noise, votes

TABLES = {"cpu": "bench.csv"} | {kind: f"bench_{kind}.csv" for kind in ("cuda", "mps", "xpu")}  # by the kind of device
AUTHORS = "authors'"  # begins the label of a way of the released code
BEST_BATCH = 8  # the released code runs in batches of an eighth, too, 50 of its 400: on some CPUs it is faster so
TIMES = ("nfe", "seconds", "ratio", "ratio_best", "differing")
COLUMNS = {"label": str, "batch": int, "repetitions": int} | dict.fromkeys(TIMES, float)
LARGE_N = 10_000  # the paper's sample size, at which costs are compared
SAMPLES = (1_000, LARGE_N, 100_000)
DIGITS = {"ms/vote": 3, "NFE/vote": 1, "seconds": 1, "NFE": 0, "votes, adaptive": 0}


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
    path = (store.tracked if ship else store.own)(run, TABLES[torch.device(device).type])
    store.save_frame(path, compare(run, contenders, repetitions=repetitions, copies=copies, device=device))
    sealed.write_json(path.with_suffix(".json"), store.provenance(
        run=run.id, device=inference.device_name(device, rounded=True), threads=torch.get_num_threads(), copies=copies,
        methods=[asdict(m) for m in contenders], weights=checkpoints.digest(store.own(run, store.WEIGHTS)),
    ))  # fmt: skip
    return path


def read(run: Run, device: str = "cpu") -> pd.DataFrame | None:
    """The stored timings of a run's methods; None where they were not taken."""
    path = store.find(run, TABLES[device])
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


def per_vote(timings: pd.DataFrame) -> pd.DataFrame:
    """Cost of a vote of every way, and how many times less it is than the authors' MDEQ-30A's in their two batch sizes."""
    faster = {f"times faster, batch {b}": timings[ratio] for b, ratio in zip(timings["batch"], ("ratio", "ratio_best"))}
    cost = {"method": timings["label"], "NFE/vote": timings["nfe"], "ms/vote": 1000 * timings["seconds"]}
    return pd.DataFrame(cost | faster | {"votes unlike row 1 %": 100 * timings["differing"]})


def per_certificate(run: Run, timings: pd.DataFrame) -> pd.DataFrame:
    """What an image costs every way at N = 10,000; how many times faster, adaptively too, than the authors' better MDEQ-30A."""
    cost, full = {n: certificate_cost(run, timings, n) for n in SAMPLES}, timings["label"].str.startswith(f"{AUTHORS} MDEQ-30A")
    faster = {f"times faster, N = {n}": c["seconds"][full].min() / c["seconds"] for n, c in cost.items()}
    rows = cost[LARGE_N].rename(columns={"label": "method", "nfe": "NFE"}).assign(**faster)
    if run.profile.adaptive and (counted := store.read_run(run)) is not None:
        votes, n0 = rows["method"].map(counted.groupby("method", observed=True)["n"].mean()), run.profile.n0
        rows["votes, adaptive"], share = votes, (n0 + votes) / (n0 + LARGE_N)
        rows["times faster, adaptive"] = rows["seconds"][full].min() / (rows["seconds"] * share)
    return rows[~rows["method"].str.contains("audit")].reset_index(drop=True)


def table_finding(run: Run, timings: pd.DataFrame) -> str:
    """How much sooner than the authors' full solve the fastest way makes the table of adaptive votes, and what that loses."""
    rows = per_certificate(run, timings).set_index("method").astype(float)
    best, counted = rows["times faster, adaptive"].idxmax(), store.read_run(run)
    held = measures.certified_accuracy(measures.holding(counted, alpha=run.profile.alpha), run.profile.radii, ["method"])
    lost = (held.loc[run.profile.reference] - held.loc[best]).drop("ACR").max()
    each, whole = rows[f"times faster, N = {LARGE_N}"][best], rows["times faster, adaptive"][best]
    return (
        f"{best} makes the table {whole:.1f} times faster than the authors' MDEQ-30A at N = {LARGE_N:,}: {each:.1f} times by "
        f"cheaper votes, {whole / each:.1f} times by fewer, {rows['votes, adaptive'][best]:,.0f} an image on average. It "
        f"certifies its own solve: at most {lost:.1f} points less than {run.profile.reference} at any radius."
    )


def srs_finding(costs: pd.DataFrame) -> str:
    """What of the cost of the authors' SRS certificate, in its better batch, ours takes; nothing where either was not timed."""
    costs = costs.set_index("method")[["NFE", "seconds"]]
    theirs, ours = costs[costs.index.str.startswith(f"{AUTHORS} SRS-")], costs[costs.index == "SRS-MDEQ-3A"]
    if theirs.empty or ours.empty:
        return ""
    nfe, seconds = (100 * ours / theirs.min()).iloc[0]
    return f"SRS-MDEQ-3A takes {nfe:.0f} % of the evaluations and {seconds:.0f} % of the seconds of the authors' own."


def speed(profile: Profile) -> list[show.Shown]:
    """The tables of cost of every run that was timed, here or as shipped, and what of the authors' cost SRS takes."""
    shown = []
    for run, device in product(profile.runs, TABLES):
        if (timings := read(run, device)) is None:
            continue
        made_by = sealed.read_json(store.find(run, TABLES[device]).with_suffix(".json"), "record of timings", by="bench")
        where, costs = f"({model_of(run)}; {made_by['device']})", per_certificate(run, timings)
        vote = (
            f"What a vote costs {where}, in one process and by turns; medians. Rows \"authors'\" follow the released code, "
            "which stops early. 'times faster': than its MDEQ-30A in batches of that size."
        )
        whole = [
            f"What a certificate costs at N = {LARGE_N}: n0 = {profile.n0} and N votes, start and audit {where}. 'times "
            f"faster': than the authors' MDEQ-30A in its faster batch.", srs_finding(costs),
            f"'adaptive': with votes until each radius is decided, against its N = {LARGE_N}." * profile.adaptive,
        ]
        for name, frame, caption in (("speed", per_vote(timings), vote), ("cost_by_n", costs, " ".join(filter(None, whole)))):
            digits = DIGITS | dict.fromkeys((column for column in frame if "times" in column), 1)
            shown.append(show.table(profile, name_of(name + f"_{device}" * (device != "cpu"), run), frame, caption, digits))
    return shown
