"""Notebook 41: what a vote costs: disagreement against evaluations of f, cost against the released code, adaptive votes.

Tables and figures are made from stored measurements (`few_steps`, `bench`, `measure_adaptive`) and stored votes only.
"""

from dataclasses import replace
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import norm

from srs import data, sealed, settings, store
from srs.analysis import plots, show
from srs.analysis.show import Shown
from srs.deq import checkpoints, inference
from srs.experiments import bench, few_steps
from srs.experiments.certified_accuracy import name_of, source_note
from srs.smoothing.engine import tqdm
from srs.settings import Profile, Run
from srs.smoothing import adaptive, bounds, certify, votes
from srs.smoothing.adaptive import Looks

LARGE_N = 10_000  # the paper's sample size, at which costs are compared
SAMPLES = (1_000, LARGE_N, 100_000)
ALL = "all"  # a table of certified accuracy asks for every radius at once
STOPS = ("after fixed steps", "at a residual", "at a lead")


# ------------------------------------------------------------------------------------------------ agreement


def starts(points: pd.DataFrame) -> pd.DataFrame:
    """Disagreement in percent after a few of Anderson's steps, a line per start."""
    plain = points[(points["solver"] == "anderson") & (points["tol"] == 0) & (points["margin"] == 0)]
    wide = plain.assign(percent=100 * plain["differing"] / plain["votes"]).pivot(index="start", columns="steps", values="percent")
    wide = wide.rename(columns=lambda k: f"{k} NFE %").reindex(pd.unique(points["start"]))
    return wide.rename_axis(index="start", columns=None).reset_index()


def cheapest_votes(points: pd.DataFrame) -> pd.DataFrame:
    """The ways that no other beats in both cost and disagreement, cheapest first."""
    ways = few_steps.front(points)
    return pd.DataFrame({
        "start": ways["start"], "solver": ways["solver"], "stops at": [stops_at(way) for way in ways.itertuples()],
        "NFE/vote": ways["nfe"], "disagreement %": 100 * ways["differing"] / ways["votes"], "votes": ways["votes"],
    })  # fmt: skip


def stops_at(way) -> str:
    """When a way to vote stops, in words."""
    return f"residual <= {way.tol:g}" if way.tol else f"lead > {way.margin:g}" if way.margin else f"{way.steps} steps"


def agreement_figure(points: pd.DataFrame) -> Figure:
    """Disagreement with the reference against evaluations of f per vote, a line per start, a panel per rule that stops a sample."""
    rule = np.select([points["tol"] > 0, points["margin"] > 0], STOPS[1:], STOPS[0])
    points = points.assign(stop=pd.Categorical(rule, STOPS, ordered=True), start=store.in_order(points["start"])).sort_values("nfe")
    floor = 50 / points["votes"].max()  # half a vote, in percent: where none differs
    points["percent"] = np.maximum(100 * points["differing"] / points["votes"], floor)
    shown = points[(points["solver"] == "anderson") | (points["stop"] != STOPS[0])]
    labels = ("evaluations of f per vote", "votes that differ (%)")
    return plots.lines(shown, x="nfe", y="percent", hue="start", panel="stop", labels=labels, log="xy")


def agreement(profile: Profile) -> list[Shown]:
    """Figure and tables of agreement of every run that was measured, here or in what is shipped."""
    shown = []
    for run, points in _measured(profile, "agreement-test", few_steps.read):
        where = f"{_where(run)}, noisy test images; disagreement is with {profile.reference} on the same copies"
        told = f"How far a vote may be cut short ({where}). The lowest marks stand for no differing vote at all."
        shown.append(show.figure(profile, name_of("agreement", run), agreement_figure(points), told))
        told = f"Percent of votes that differ after k of Anderson's steps from each start ({where})."
        digits = {f"{k} NFE %": 2 for k in points["steps"].unique()}
        shown.append(show.table(profile, name_of("starts", run), starts(points), told, digits))
        told = (
            f"The ways to vote that none beats in both cost and disagreement, of all starts, solvers and rules ({where}). "
            "NFE of the start itself (pilot, clean image) are not in it."
        )
        shown.append(show.table(profile, name_of("cheapest_votes", run), cheapest_votes(points), told))
    return shown


# ------------------------------------------------------------------------------------------------ cost


def per_vote(timings: pd.DataFrame) -> pd.DataFrame:
    """Cost of a vote of every way, and how many times less it is than the authors' MDEQ-30A's in their two batch sizes."""
    faster = {f"times faster, batch {b}": timings[ratio] for b, ratio in zip(timings["batch"], ("ratio", "ratio_best"))}
    cost = {"method": timings["label"], "NFE/vote": timings["nfe"], "ms/vote": 1000 * timings["seconds"]}
    return pd.DataFrame(cost | faster | {"unlike row 1 %": 100 * timings["differing"]})


def per_certificate(run: Run, timings: pd.DataFrame, looks: pd.DataFrame | None = None) -> pd.DataFrame:
    """What an image costs with every way at N = 10,000, and how many times faster than the second way that is at several N.

    With `looks`, the run's adaptive votes, a last row is their method stopped once all radii of the profile's table are decided.
    """
    cost = {n: bench.certificate_cost(run, timings, n) for n in SAMPLES}
    faster = {f"times faster, N = {n}": c["seconds"][1] / c["seconds"] for n, c in cost.items()}
    rows = pd.DataFrame({"method": timings["label"], "NFE": cost[LARGE_N]["nfe"], "seconds": cost[LARGE_N]["seconds"]} | faster)
    if looks is not None and looks["method"][0] in set(rows["method"]):
        name, votes_of = looks["method"][0], decisions(looks, run.profile.radii, sigma=run.sigma, alpha=run.profile.alpha)
        own = bench.certificate_cost(run, timings, votes_of["mean votes"].iloc[-1]).set_index("label").loc[name]
        last = {"method": f"{name}, adaptive", "NFE": own["nfe"], "seconds": own["seconds"]}
        rows.loc[len(rows)] = last | {f"times faster, N = {LARGE_N}": rows["seconds"][1] / own["seconds"]}
    return rows[~rows["method"].str.contains("audit")].reset_index(drop=True)


def srs_finding(run: Run, timings: pd.DataFrame) -> str:
    """What of the cost of the authors' SRS certificate, in its better batch, ours takes; nothing where either was not timed."""
    told = []
    for n in SAMPLES[:2]:
        cost = bench.certificate_cost(run, timings, n).set_index("label")
        theirs, ours = cost[cost.index.str.startswith(f"{bench.AUTHORS} SRS-")], cost[cost.index == "SRS-MDEQ-3A"]
        if len(theirs) and len(ours):
            nfe, seconds = (100 * ours / theirs.min()).iloc[0]
            told.append(f"{nfe:.0f} % of the evaluations and {seconds:.0f} % of the seconds at N = {n}")
    return f"A whole certificate by SRS-MDEQ-3A, audit included, takes of the authors' {' and '.join(told)}." if told else ""


def speed(profile: Profile) -> list[Shown]:
    """The tables of cost of every run that was timed, and what of the authors' cost SRS takes."""
    shown = []
    looks = {run.id: stored for run, stored in _measured(profile, "adaptive", read_looks)}
    for run, timings in _measured(profile, "bench", bench.read):
        caption = (
            f"What a vote costs ({_where(run)}), in one process and by turns; medians. Rows \"authors'\" follow the released code: it stops "
            "a batch once its worst relative residual is below 1e-3, makes two evaluations more than its answer needs, copies its iterates "
            "and gives memory back; 'no stop' is not what it does. 'times faster': than its MDEQ-30A in batches of that size."
        )
        whole = (
            f"What a certificate costs at N = {LARGE_N}, from the cost of a vote: n0 = {profile.n0} and N votes, start and audit "
            f"({_where(run)}). 'times faster': than the authors' MDEQ-30A in the smaller batch. 'adaptive': as many votes as decide all "
            f"radii of the table of certified accuracy, at most {LARGE_N}. {srs_finding(run, timings)}"
        )
        for name, frame, told in (("speed", per_vote(timings), caption), ("cost_by_n", per_certificate(run, timings, looks.get(run.id)), whole)):
            digits = {column: 1 for column in frame if "times" in column} | {"ms/vote": 2, "NFE/vote": 1, "seconds": 1, "NFE": 0}
            shown.append(show.table(profile, name_of(name, run), frame, told, digits))
    return shown


# ------------------------------------------------------------------------------------------------ adaptive


def measure_adaptive(run: Run, method: settings.Method, *, images: int, n: int) -> None:
    """Draw n votes for some images, evenly spread, by a method that needs no audit, and store those for c_A at every look."""
    settings.check(not method.serialized, "method", method.name, "one that starts from zero or from an anchor: its votes need no audit")
    profile, inputs = run.profile, certify.read_inputs(run)
    model, key = certify.load_model(run, inputs=inputs), certify.vote_key(run, inputs=inputs)
    test, sampling = data.load(profile.data, "test"), replace(profile.sampling, n=n)
    rows, shared = [], settings.fingerprint(key.shared, method, n)
    some = np.linspace(0, profile.images - 1, min(images, profile.images)).astype(int)
    for idx in tqdm([profile.evaluated[i] for i in some], desc=f"adaptive {run.id}", unit="image"):
        path = store.own(run, f"votes/{method.name}-adaptive-{shared}/{idx:05d}-{key.images[idx]}.npz")
        if not sealed.present(path):
            drawn = votes.draw_votes(model, test.x(idx), method, sampling, run.sigma, idx=idx, label=int(test.labels[idx]))
            votes.write(path, drawn)
        drawn = votes.read(path)
        count = adaptive.stored(drawn.estimate, bounds.top_class(drawn.select, sampling.classes))
        rows += [{"method": method.name, "idx": idx, "n": k, "n_a": count(k)} for k in Looks(n).at]
    path = store.measured(run, "adaptive.csv")
    store.save_frame(path, pd.DataFrame(rows))
    sealed.write_json(path.with_suffix(".json"), store.provenance(
        run=run.id, weights=checkpoints.digest_of(inputs.weights), device=inference.device_name("cpu"), images=test.source,
    ))  # fmt: skip


def read_looks(path: Path) -> pd.DataFrame:
    """The votes for c_A at every look, as `measure_adaptive` stores them."""
    columns = {"method": str, "idx": int, "n": int, "n_a": int}
    return store.read_frame(path, columns, "table of adaptive votes", by="")


def adaptive_method(profile: Profile) -> settings.Method:
    """The shortest method of a profile that needs no audit and is more than a step: what adaptive votes are shown with."""
    return min((m for m in profile.methods if not m.serialized and m.steps > 1), key=lambda m: m.steps)


def decisions(stored: pd.DataFrame, radii: Iterable[float], *, sigma: float, alpha: float) -> pd.DataFrame:
    """What deciding "is the radius at least r?" costs adaptively against a fixed N, on the same votes; last, all radii at once."""
    seen, looks, rows = stored.pivot(index="idx", columns="n", values="n_a"), Looks(int(stored["n"].max())), []
    for asked in (*((r,) for r in radii), tuple(radii)):
        stop = settings.Stop(asked, alpha)
        n = np.array([
            next(n for n in looks.at if adaptive.enough(n_a[n], n, sigma=sigma, stop=stop, looks=looks)) for _, n_a in seen.iterrows()
        ])  # fmt: skip
        fixed, stopped = (
            (low[:, None] >= norm.cdf(np.array(asked) / sigma)) & (low[:, None] > 0.5)
            for low in (
                bounds.lower_confidence_bound(seen[looks.n], looks.n, alpha),
                bounds.lower_confidence_bound([seen[k].iloc[i] for i, k in enumerate(n)], n, alpha * looks.share(n)),
            )
        )
        rows.append({
            "r": ALL if len(asked) > 1 else f"{asked[0]:.2f}", "images": len(seen), "certified, fixed N": fixed.sum(),
            "certified, adaptive": stopped.sum(), "decided otherwise": (fixed != stopped).sum(), "mean votes": n.mean(),
            "share of N %": 100 * n.mean() / looks.n, "most votes": n.max(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def adaptive_votes(profile: Profile) -> list[Shown]:
    """The table of adaptive decisions of every run that was measured, here or in what is shipped."""
    shown = []
    for run, stored in _measured(profile, "adaptive", read_looks):
        caption = (
            f"Deciding whether the radius is at least r, adaptively and with fixed N = {stored['n'].max()}, on the same votes of "
            f"{stored['method'][0]} ({_where(run)}, alpha = {profile.alpha:g}). The adaptive test looks after 100, 125, 156, ... votes: "
            "half of alpha is for the look at N, the rest in equal parts for those before."
        )
        frame = decisions(stored, profile.radii, sigma=run.sigma, alpha=profile.alpha)
        shown.append(show.table(profile, name_of("adaptive", run), frame, caption, {"mean votes": 0}))
    return shown


def _measured(profile: Profile, name: str, read: Callable) -> list[tuple[Run, pd.DataFrame]]:
    """What was measured of each run, here or in what is shipped."""
    found = ((run, store.find(run, f"{name}.csv")) for run in profile.runs)
    return [(run, read(path)) for run, path in found if path is not None]


def _where(run: Run) -> str:
    p = run.profile
    return f"MDEQ-{run.model.name}, recipe '{run.train.recipe}', {p.data.name}{source_note(run)}, sigma = {run.sigma:.2f}"
