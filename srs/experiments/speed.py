"""Notebook 41: what a vote costs: disagreement against evaluations of f, seconds against the released code, adaptive votes.

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
from srs.progress import tqdm
from srs.settings import Profile, Run
from srs.smoothing import adaptive, bounds, certify, votes
from srs.smoothing.adaptive import Looks

LARGE_N = 10_000  # the paper's sample size, at which costs are compared
SAMPLES = (1_000, LARGE_N, 100_000)
STOPS = {"steps": ("-", "o", "fixed steps"), "residual": ("--", "s", "stops at residual"), "lead": (":", "^", "stops at lead")}


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
    """Disagreement with the reference against evaluations of f per vote, a colour per start, a line style per way to stop."""
    rule = np.where(points["tol"] > 0, "residual", np.where(points["margin"] > 0, "lead", "steps"))
    points = points.assign(rule=rule)[(points["solver"] == "anderson") | (rule != "steps")]
    floor = 50 / points["votes"].max()  # half a vote, in percent: where none differs
    names = list(pd.unique(points["start"]))
    with plots.style():
        fig = Figure(figsize=(plots.WIDTH, 2.6), layout="constrained")
        ax = fig.subplots()
        for (start, stop), own in points.groupby(["start", "rule"], sort=False):
            line, marker, _ = STOPS[stop]
            own = own.sort_values("nfe")
            y = np.maximum(100 * own["differing"] / own["votes"], floor)
            label = start if stop == "steps" else None
            ax.plot(own["nfe"], y, line, color=plots.look(start, names)[0], marker=marker, markersize=2.5, label=label)
        for line, marker, text in STOPS.values():
            ax.plot([], [], line, color="0.3", marker=marker, markersize=2.5, label=text)
        ax.set(xscale="log", yscale="log", xlabel="evaluations of f per vote", ylabel="votes unlike the full solve's (%)")
        ax.set_xticks([1, 2, 4, 8, 16, 30], ["1", "2", "4", "8", "16", "30"])
        ax.minorticks_off()
        plots.add_legend(fig, 3)
    return fig


def agreement(profile: Profile) -> list[Shown]:
    """Figure and tables of agreement of every run that was measured, here or in what is shipped."""
    shown = []
    for run, points in _measured(profile, "agreement-test", few_steps.read):
        where = f"{_where(run)}, noisy test images; disagreement is with {profile.reference} on the same copies"
        shown += [
            show.figure(profile, name_of("agreement", run), agreement_figure(points),
                        f"How far a vote may be cut short ({where}). The lowest marks stand for no differing vote at all."),
            show.table(profile, name_of("starts", run), starts(points),
                       f"Percent of votes that differ after k of Anderson's steps from each start ({where}).",
                       {f"{k} NFE %": 2 for k in points["steps"].unique()}),
            show.table(profile, name_of("cheapest_votes", run), cheapest_votes(points),
                       f"The ways to vote that none beats in both cost and disagreement, of all starts, solvers and rules ({where}). "
                       "NFE of the start itself (pilot, clean image) are not in it."),
        ]  # fmt: skip
    return shown


# ------------------------------------------------------------------------------------------------ seconds


def per_vote(timings: pd.DataFrame) -> pd.DataFrame:
    """Cost of a vote of every way beside the first one's, the released MDEQ-30A's."""
    return pd.DataFrame({
        "method": timings["label"], "NFE/vote": timings["nfe"], "ms/vote (seconds)": 1000 * timings["seconds"],
        "times faster per vote (seconds)": timings["ratio"], f"unlike {timings['label'][0]} %": 100 * timings["differing"],
        "share of matrix peak % (seconds)": 100 * timings["peak_share"],
    })  # fmt: skip


def per_certificate(run: Run, timings: pd.DataFrame) -> pd.DataFrame:
    """What a certificate costs with every way: its seconds at N = 10,000, and how many times faster than the first one at several N."""
    seconds = {n: bench.certificate_seconds(run, timings, n) for n in SAMPLES}
    return pd.DataFrame({
        "method": timings["label"], f"certificate at N = {LARGE_N} (seconds)": seconds[LARGE_N],
        **{f"times faster, N = {n} (seconds)": s[0] / s for n, s in seconds.items()},
    })  # fmt: skip


def speed(profile: Profile) -> list[Shown]:
    """The tables of seconds of every run that was timed."""
    shown = []
    for run, timings in _measured(profile, "bench", bench.read):
        caption = (
            f"Seconds of a vote against the released code's cost ({_where(run)}), on one machine in one process and by turns; medians. "
            "'released' rows follow the authors' code: two more evaluations per vote, batches of 400, and the allocator's usual limits, "
            "with which every large buffer is asked of the system anew; ours keep memory. Its certificates do not hold."
        )
        whole = (
            f"Seconds of a certificate, computed from seconds per vote: n0 = {profile.n0} and N votes, the start and the audit ({_where(run)}). "
            "An audit weighs less in a larger sample."
        )
        digits = {"ms/vote (seconds)": 2, "times faster per vote (seconds)": 1, f"unlike {timings['label'][0]} %": 2,
                  "share of matrix peak % (seconds)": 0, f"certificate at N = {LARGE_N} (seconds)": 1,
                  **{f"times faster, N = {n} (seconds)": 1 for n in SAMPLES}}  # fmt: skip
        shown += [
            show.table(profile, name_of("speed", run), per_vote(timings), caption, digits),
            show.table(profile, name_of("cost_by_n", run), per_certificate(run, timings), whole, digits),
        ]
    return shown


# ------------------------------------------------------------------------------------------------ adaptive


def measure_adaptive(run: Run, method: settings.Method, *, images: int, n: int) -> None:
    """Draw n votes for some images and store the votes for c_A at every look of the adaptive test.

    Args:
        run: a trained run.
        method: how votes are drawn; one that needs no audit.
        images: how many of the profile's images, evenly spread.
        n: the fixed number of votes, and the most of the adaptive test.

    Raises:
        ConfigError: a method whose votes need an audit.
    """
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
    """What deciding "is the radius at least r?" costs adaptively against a fixed N, on the same votes.

    Args:
        stored: votes for c_A at every look, as `measure_adaptive` stores them.
        radii: the radii asked for.
        sigma: noise level.
        alpha: failure probability.
    """
    seen = [dict(zip(some["n"], some["n_a"])).__getitem__ for _, some in stored.groupby("idx")]
    n, rows = int(stored["n"].max()), []
    low = bounds.lower_confidence_bound([count(n) for count in seen], n, alpha)
    for r in radii:
        found = pd.DataFrame([adaptive.decide(count, r, sigma=sigma, alpha=alpha, looks=Looks(n)) for count in seen])
        fixed = (low >= norm.cdf(r / sigma)) & (low > 0.5)
        rows.append({
            "r": f"{r:.2f}", "images": len(seen), "certified, fixed N": int(fixed.sum()), "certified, adaptive": int(found["certified"].sum()),
            "decided otherwise": int((fixed != found["certified"]).sum()), "mean votes": found["n"].mean(),
            "share of N %": 100 * found["n"].mean() / n, "most votes": found["n"].max(),
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
