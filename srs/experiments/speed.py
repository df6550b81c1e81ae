"""Notebook 41: what a vote costs: disagreement against evaluations of f, cost against the released code.

Tables and figures are made from stored measurements (`measure_agreement`, `bench`) only.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from srs import sealed, settings, store
from srs.analysis import plots, show
from srs.analysis.show import Shown
from srs.experiments import bench
from srs.experiments.certified_accuracy import name_of, source_note
from srs.settings import Method, Profile, Run
from srs.smoothing import certify, votes

WAY = {"start": str, "solver": str, "steps": int, "tol": float, "margin": float}  # what names a way to vote
POINTS = WAY | {"votes": int, "differing": int, "nfe": float}
LARGE_N = 10_000  # the paper's sample size, at which costs are compared
SAMPLES = (1_000, LARGE_N, 100_000)
STOPS = ("after fixed steps", "at a residual", "at a lead")

# ------------------------------------------------------------------------------------------------ agreement


def ways(chains: int) -> tuple[Method, ...]:
    """Every start with Anderson's steps, naive iteration from two, and the two rules that stop a sample early."""
    base = Method("", "anderson", 1, batch=chains, warmup=10, pilot=16)
    steps = [replace(base, start=start, steps=k) for start in settings.STARTS for k in (1, 2, 4, 8)]
    steps += [replace(base, start=start, solver="naive", steps=k) for start in ("zero", "pilot_mean") for k in (2, 4, 8)]
    long = [replace(base, solver="safe_anderson", start=start, steps=30) for start in ("zero", "pilot_mean", "train_mean")]
    stopped = [replace(m, tol=tol) for m in long for tol in (0.3, 0.1, 0.01)]
    stopped += [replace(m, margin=margin) for m in long for margin in (0.1, 0.4)]
    stopped += [replace(base, start="corrected_pilot_mean", steps=4, margin=margin) for margin in (0.05, 0.1, 0.2)]
    return tuple(replace(m, name=f"{m.start}-{m.solver}-{m.steps}-{m.tol:g}-{m.margin:g}") for m in (*steps, *stopped))


def measure_agreement(
    run: Run, *, images: int = 25, copies: int = 40, chains: int = 10, device: str = "cpu", progress: bool = True
) -> pd.DataFrame:
    """Draw votes in all `ways` with a run's trained model, and store their cost and disagreement with the reference method's.

    A row per way: what names it, `votes`, `differing`, and `nfe` per vote without the start. Of the `copies` of each image the
    first `chains`, which `previous` begins with, are not counted.
    """
    reference = replace(run.profile.method(run.profile.reference), batch=copies)
    has_mean = store.own(run, store.TRAIN_MEAN).is_file()
    every = [m for m in ways(chains) if m.start != "train_mean" or has_mean]
    p, images = run.profile, min(images, run.profile.images)
    some = {"images": images, "stride": p.stride * (p.images // images), "plan": (), "adaptive": False}  # evenly spread
    part = replace(run, profile=replace(p, **some, n0=1, n=copies, methods=(reference, *every)))
    certify.certify(part, count=False, device=device, progress=progress)
    key, rows = certify.vote_key(part, device), []
    for idx in part.profile.evaluated:
        standard, *drawn = (votes.read(certify.vote_file(part, m, key, idx)) for m in part.profile.methods)
        for method, own in zip(every, drawn):
            first = chains * (method.warmup if method.start == "previous" else own.nfe[1] / copies)
            differing = int((own.estimate != standard.estimate)[chains:].sum())
            rows.append([*(getattr(method, name) for name in WAY), copies - chains, differing, own.nfe[1] - first])
    points = pd.DataFrame(rows, columns=list(POINTS)).groupby(list(WAY), sort=False).sum().reset_index()
    points = points.assign(nfe=points["nfe"] / points["votes"])
    path = store.own(run, "agreement-test.csv")
    store.save_frame(path, points)
    sealed.write_json(path.with_suffix(".json"), store.provenance(run=run.id, votes=key.shared, images=list(key.images)))
    return points


def agreement_figure(points: pd.DataFrame) -> Figure:
    """Disagreement with the reference against evaluations of f per vote, a line per start, a panel per rule that stops."""
    rule = np.select([points["tol"] > 0, points["margin"] > 0], STOPS[1:], STOPS[0])
    points = points.assign(stop=pd.Categorical(rule, STOPS, ordered=True), start=store.in_order(points["start"]))
    points = points.sort_values("nfe")
    floor = 50 / points["votes"].max()  # half a vote, in percent: where none differs
    points["percent"] = np.maximum(100 * points["differing"] / points["votes"], floor)
    shown = points[(points["solver"] == "anderson") | (points["stop"] != STOPS[0])]
    labels = ("evaluations of f per vote", "votes that differ (%)")
    return plots.lines(shown, x="nfe", y="percent", hue="start", panel="stop", labels=labels, log="xy")


def agreement(profile: Profile) -> list[Shown]:
    """The figure of agreement of every run that was measured, here or in what is shipped."""
    shown = []
    for run, points in _measured(profile, "agreement-test", POINTS).items():
        told = (
            f"How far a vote may be cut short ({_where(run)}, noisy test images; disagreement is with {profile.reference} on "
            "the same copies). NFE of the start itself are not in it. The lowest marks stand for no differing vote at all."
        )
        shown.append(show.figure(profile, name_of("agreement", run), agreement_figure(points), told))
    return shown


# ------------------------------------------------------------------------------------------------ cost


def per_vote(timings: pd.DataFrame) -> pd.DataFrame:
    """Cost of a vote of every way, and how many times less it is than the authors' MDEQ-30A's in their two batch sizes."""
    faster = {f"times faster, batch {b}": timings[ratio] for b, ratio in zip(timings["batch"], ("ratio", "ratio_best"))}
    cost = {"method": timings["label"], "NFE/vote": timings["nfe"], "ms/vote": 1000 * timings["seconds"]}
    return pd.DataFrame(cost | faster | {"votes unlike row 1 %": 100 * timings["differing"]})


def per_certificate(run: Run, timings: pd.DataFrame) -> pd.DataFrame:
    """What an image costs with every way at N = 10,000, and how many times faster than the second way that is at several N."""
    cost = {n: bench.certificate_cost(run, timings, n) for n in SAMPLES}
    faster = {f"times faster, N = {n}": c["seconds"][1] / c["seconds"] for n, c in cost.items()}
    rows = cost[LARGE_N].rename(columns={"label": "method", "nfe": "NFE"}).assign(**faster)
    return rows[~rows["method"].str.contains("audit")].reset_index(drop=True)


def srs_finding(costs: pd.DataFrame) -> str:
    """What of the cost of the authors' SRS certificate, in its better batch, ours takes; nothing where either was not timed."""
    costs = costs.set_index("method")[["NFE", "seconds"]]
    theirs, ours = costs[costs.index.str.startswith(f"{bench.AUTHORS} SRS-")], costs[costs.index == "SRS-MDEQ-3A"]
    if theirs.empty or ours.empty:
        return ""
    nfe, seconds = (100 * ours / theirs.min()).iloc[0]
    return f"SRS-MDEQ-3A takes {nfe:.0f} % of the evaluations and {seconds:.0f} % of the seconds of the authors' own."


def speed(profile: Profile) -> list[Shown]:
    """The tables of cost of every run that was timed, and what of the authors' cost SRS takes."""
    shown = []
    for run, timings in _measured(profile, "bench", bench.COLUMNS).items():
        vote = (
            f"What a vote costs ({_where(run)}), in one process and by turns; medians. Rows \"authors'\" follow the released "
            "code, which stops. 'times faster': than its MDEQ-30A in batches of that size."
        )
        costs = per_certificate(run, timings)
        whole = (
            f"What a certificate costs at N = {LARGE_N}: n0 = {profile.n0} and N votes, start and audit ({_where(run)}). "
            f"'times faster': than the authors' MDEQ-30A in the smaller batch. {srs_finding(costs)}"
        )
        for name, frame, caption in (("speed", per_vote(timings), vote), ("cost_by_n", costs, whole)):
            digits = dict.fromkeys((column for column in frame if "times" in column), 1)
            digits |= {"ms/vote": 2, "NFE/vote": 1, "seconds": 1, "NFE": 0}
            shown.append(show.table(profile, name_of(name, run), frame, caption, digits))
    return shown


def _measured(profile: Profile, name: str, columns: Mapping[str, type]) -> dict[Run, pd.DataFrame]:
    """What was measured of each run, here or in what is shipped."""
    found = {run: store.find(run, f"{name}.csv") for run in profile.runs}
    return {run: store.read_frame(path, columns, f"table {name}", by="") for run, path in found.items() if path is not None}


def _where(run: Run) -> str:
    p = run.profile
    return f"MDEQ-{run.model.name}, recipe '{run.train.recipe}', {p.data.name}{source_note(run)}, sigma = {run.sigma:.2f}"
