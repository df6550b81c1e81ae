"""Tables and figures of what a vote costs: agreement against evaluations of f, seconds against the released code.

Made from stored measurements (`agreement`, `bench`) and stored votes only.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import norm

from tqdm import tqdm

from srs import (
    adaptive, agreement, bench, bounds, certify, config, data, figures, models, paths, results, scaling, shipped, shown, store,
    tables, votes,
)  # fmt: skip
from srs.adaptive import Looks
from srs.agreement import Point
from srs.bench import Timing
from srs.config import Profile, Run

NOTEBOOK = "41_speed"
LARGE_N = 10_000  # the paper's sample size, at which costs are compared
RELEASED_AUDIT_STEPS = 12  # the released code audits by a 10-step solve, which costs it 12 evaluations of f


# ------------------------------------------------------------------------------------------------ agreement


def agreement_table(points: Sequence[Point]) -> pd.DataFrame:
    """The ways that no other beats in both cost and disagreement, cheapest first."""
    return pd.DataFrame([_way(p) for p in agreement.front(list(points))])


def starts_table(points: Sequence[Point]) -> pd.DataFrame:
    """Disagreement in percent after a few of Anderson's steps, a line per start."""
    steps = sorted({p.steps for p in points if p.solver == "anderson" and not (p.tol or p.margin)})
    at = {(p.start, p.steps): p for p in points if p.solver == "anderson" and not (p.tol or p.margin)}
    starts = dict.fromkeys(p.start for p in points)
    return pd.DataFrame([
        {"start": start, **{f"{k} NFE": _percent(at[start, k]) if (start, k) in at else "" for k in steps}} for start in starts
    ])  # fmt: skip


def _way(p: Point) -> dict[str, str]:
    rule = f"residual <= {p.tol:g}" if p.tol else f"lead > {p.margin:g}" if p.margin else f"{p.steps} steps"
    return {
        "start": p.start, "solver": p.solver, "stops at": rule, "NFE/vote": tables.number(p.nfe, 2),
        "disagreement %": _percent(p), "votes": str(p.votes),
    }  # fmt: skip


def _percent(p: Point) -> str:
    return tables.number(100 * p.differing / p.votes, 2)


def agreement_figure(points: Sequence[Point]) -> Figure:
    """Disagreement with the reference against evaluations of f per vote, a line per start and way to stop."""
    kinds: dict[tuple[str, str], list[Point]] = {}
    for p in points:
        if p.solver == "anderson" or p.tol or p.margin:
            rule = "residual" if p.tol else "lead" if p.margin else "steps"
            kinds.setdefault((p.start, rule), []).append(p)
    starts = list(dict.fromkeys(start for start, _ in kinds))
    lines = {"steps": "-", "residual": "--", "lead": ":"}
    with figures.style():
        fig = Figure(figsize=(figures.WIDTH, 2.6), layout="constrained")
        ax = fig.subplots()
        colours = figures.colours(starts)
        floor = 50 / max(p.votes for p in points)  # half a vote, in percent: where none differs
        for (start, rule), some in kinds.items():
            some = sorted(some, key=lambda p: p.nfe)
            y = [max(100 * p.differing / p.votes, floor) for p in some]
            marker = {"steps": "o", "residual": "s", "lead": "^"}[rule]
            label = start if rule == "steps" else None
            ax.plot([p.nfe for p in some], y, lines[rule], color=colours[start], marker=marker, markersize=2.5, label=label)
        for rule, marker in (("steps", "o"), ("residual", "s"), ("lead", "^")):
            text = {"steps": "fixed steps", "residual": "stops at residual", "lead": "stops at lead"}[rule]
            ax.plot([], [], lines[rule], color="0.3", marker=marker, markersize=2.5, label=text)
        ax.set(xscale="log", yscale="log", xlabel="evaluations of f per vote", ylabel="votes unlike the full solve's (%)")
        ax.set_xticks([1, 2, 4, 8, 16, 30], ["1", "2", "4", "8", "16", "30"])
        ax.minorticks_off()
        figures.legend_below(fig, 3)
    return fig


# ------------------------------------------------------------------------------------------------ seconds


def speed_table(run: Run, timings: Sequence[Timing]) -> pd.DataFrame:
    """Cost per vote of every way, and what a certificate at N = 10,000 costs with it, audit and selection included."""
    by_label = {t.label: t for t in timings}
    first = timings[0]
    whole = {t.label: certificate_seconds(run, t, by_label) for t in timings}
    rows = []
    for t in timings:
        rows.append({
            "method": t.label,
            "NFE/vote": tables.number(t.nfe, 2),
            "ms/vote (seconds)": tables.number(1000 * t.seconds, 2),
            "times faster per vote (seconds)": tables.number(t.ratio, 1),
            "unlike " + first.label + " %": tables.number(100 * t.differing, 2),
            "share of matrix peak % (seconds)": tables.number(100 * t.peak_share, 0),
            f"certificate at N = {LARGE_N} (seconds)": tables.number(whole[t.label], 1),
            "times faster (seconds)": tables.number(whole[first.label] / whole[t.label], 1),
        })  # fmt: skip
    return pd.DataFrame(rows)


def cost_by_n(run: Run, timings: Sequence[Timing], samples: Sequence[int] = (1_000, LARGE_N, 100_000)) -> pd.DataFrame:
    """How many times faster than the released MDEQ-30A a certificate is at other N: an audit weighs less in a larger sample."""
    by_label, first = {t.label: t for t in timings}, timings[0]
    rows = []
    for t in timings:
        faster = {n: certificate_seconds(run, first, by_label, n) / certificate_seconds(run, t, by_label, n) for n in samples}
        rows.append({"method": t.label, **{f"N = {n} (seconds)": tables.number(faster[n], 1) for n in samples}})
    return pd.DataFrame(rows)


def scaling_table(stored: pd.DataFrame) -> pd.DataFrame:
    """Cost of an evaluation of f per image against image size and workers, beside what would be in proportion."""
    rows = []
    for what, some in stored.groupby("what", sort=False):
        value, cost = some["value"].to_numpy(), some["milliseconds"].to_numpy()
        expected = (value / value[0]) ** 2 if what == "image side" else value[0] / value
        for v, c, e in zip(value, cost, expected):
            rows.append({
                "against": what, "value": str(v), "ms per evaluation and image (seconds)": tables.number(c, 3),
                "times the first (seconds)": tables.number(c / cost[0], 2), "in proportion": tables.number(e, 2),
            })  # fmt: skip
    return pd.DataFrame(rows)


def certificate_seconds(run: Run, timing: Timing, by_label: dict[str, Timing], n: int = LARGE_N) -> float:
    """Seconds of one certificate at N = n, from measured seconds per vote: selection, estimation, start and audit."""
    profile, n0 = run.profile, run.profile.n0
    named = {m.name: m for m in profile.methods}
    method = named.get(timing.label.removesuffix(bench.COMPILED))
    compiled = bench.COMPILED if timing.label.endswith(bench.COMPILED) else ""
    votes_cost = (n0 + n) * timing.seconds
    if method is None:  # the released code; its SRS audits too
        k = min(m.audit for m in profile.methods if m.audit) if "SRS" in timing.label else 0
        full = by_label["released MDEQ-30A" + (bench.KEPT if timing.label.endswith(bench.KEPT) else "")]
        per_step = full.seconds / full.nfe
        return votes_cost + k * RELEASED_AUDIT_STEPS * per_step
    start = method.pilot_nfe
    if method.start == "clean":
        start = profile.sampling.reference.steps
    if method.start == "previous":
        start = 2 * method.batch * max(method.warmup - method.steps, 0)
    if not (method.audit or start):
        return votes_cost
    audited = config.pick((method.auditor or profile.sampling.reference).name + compiled, by_label, "timed method").seconds
    per_step = config.pick(profile.reference + compiled, by_label, "timed method").seconds / profile.sampling.reference.steps
    return votes_cost + method.audit * audited + start * per_step


# ------------------------------------------------------------------------------------------------ adaptive


def measure_adaptive(run: Run, method: config.Method, *, images: int, n: int) -> None:
    """Draw n votes for some images and store the votes for c_A at every look of the adaptive test.

    Args:
        run: a trained run.
        method: how votes are drawn; one that needs no audit.
        images: how many of the profile's images, evenly spread.
        n: the fixed number of votes, and the most of the adaptive test.
    """
    profile, model = run.profile, certify.load_model(run)
    test, sampling = data.load(profile.data, "test"), config.replace(profile.sampling, n=n)
    rows = []
    some = np.linspace(0, profile.images - 1, min(images, profile.images)).astype(int)
    for idx in tqdm([profile.evaluated[i] for i in some], desc=f"adaptive {run.id}", unit="image"):
        key = config.fingerprint(certify.vote_key(run), method, n)
        path = paths.votes(run, method, f"adaptive-{key}") / f"{idx:05d}.npz"
        if not store.present(path):
            drawn = votes.draw_votes(model, test.x(idx), method, sampling, run.sigma, idx=idx, label=int(test.labels[idx]))
            votes.write(path, drawn)
        drawn = votes.read(path)
        c_a = bounds.top_class(drawn.select, sampling.classes)
        count = adaptive.stored(drawn.estimate, c_a)
        rows += [{"method": method.name, "idx": idx, "n": k, "n_a": count(k)} for k in Looks(n).at]
    path = paths.measured(run, "adaptive")
    store.save(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode())
    results.write_json(paths.provenance(path), results.provenance(
        run=run.id, weights=models.digest(paths.weights(run)), device=models.device_name("cpu"), images=test.source,
    ))  # fmt: skip


def stored_adaptive(run: Run) -> pd.DataFrame | None:
    """The votes for c_A at every look, as measured here or as shipped; None if there are neither."""
    path = shipped.measured(run, "adaptive")
    return None if path is None else tables.read_csv(path)


def adaptive_table(stored: pd.DataFrame, radii: Sequence[float], *, sigma: float, alpha: float) -> pd.DataFrame:
    """What deciding "is the radius at least r?" costs adaptively against a fixed N, on the same votes.

    Args:
        stored: what `measure_adaptive` stored.
        radii: the radii asked for.
        sigma: noise level.
        alpha: failure probability.
    """
    counts = [dict(zip(some["n"], some["n_a"])).__getitem__ for _, some in stored.groupby("idx")]
    n, rows = int(stored["n"].max()), []
    for r in radii:
        found = [adaptive.decide(count, r, sigma=sigma, alpha=alpha, looks=Looks(n)) for count in counts]
        low = bounds.lower_confidence_bound([count(n) for count in counts], n, alpha)
        fixed = (low >= norm.cdf(r / sigma)) & (low > 0.5)
        yes = np.array([f.certified for f in found])
        rows.append({
            "r": f"{r:.2f}", "images": str(len(counts)), "certified, fixed N": str(int(fixed.sum())),
            "certified, adaptive": str(int(yes.sum())), "decided otherwise": str(int((fixed != yes).sum())),
            "mean votes": tables.number(np.mean([f.n for f in found]), 0),
            "share of N %": tables.number(100 * np.mean([f.n for f in found]) / n, 1),
            "most votes": str(max(f.n for f in found)),
        })  # fmt: skip
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ a profile's


def make_agreement(profile: Profile) -> dict[str, pd.DataFrame]:
    """Make and save the tables and figures of agreement of every run that was measured, here or in what is shipped."""
    made = {}
    for run in profile.runs:
        points = agreement.stored(run, "test")
        if points is None:
            continue
        where = (
            f"MDEQ-{run.model.name}, recipe '{run.train.recipe}', {profile.data.name}{tables.source_note(run)}, sigma = "
            f"{run.sigma:.2f}, noisy test images; disagreement is with {profile.reference} on the same copies"
        )
        name = tables.name_of("agreement", run)
        figures.save(
            agreement_figure(points), paths.shown(profile, name), made_by=NOTEBOOK,
            caption=f"How far a vote may be cut short ({where}). The lowest marks stand for no differing vote at all.",
        )
        made[tables.name_of("starts", run)] = (
            starts_table(points), f"Percent of votes that differ after k of Anderson's steps from each start ({where})."
        )
        made[tables.name_of("cheapest_votes", run)] = (
            agreement_table(points),
            f"The ways to vote that none beats in both cost and disagreement, of all starts, solvers and rules ({where}). "
            "NFE of the start itself (pilot, clean image) are not in it.",
        )
    return _save(profile, made)


def make_speed(profile: Profile) -> dict[str, pd.DataFrame]:
    """Make and save the tables of seconds of every run that was timed; empty where none was."""
    made = {}
    for run in profile.runs:
        timings = bench.stored(run)
        if timings:
            caption = (
                f"Seconds against the released code's cost (MDEQ-{run.model.name}, recipe '{run.train.recipe}', "
                f"{profile.data.name}, sigma = {run.sigma:.2f}), on one machine in one process and by turns; medians. The "
                f"last two columns are computed from seconds per vote: n0 = {profile.n0} and N = {LARGE_N} votes, the start "
                "and the audit. 'released' rows follow the authors' code: two more evaluations per vote, batches of 400, and "
                "the allocator's usual limits, with which every large buffer is asked of the system anew; ours keep memory. "
                "Its certificates do not hold."
            )
            made[tables.name_of("speed", run)] = (speed_table(run, timings), caption)
            made[tables.name_of("cost_by_n", run)] = (
                cost_by_n(run, timings),
                f"Times faster than the released MDEQ-30A at the same N (MDEQ-{run.model.name}, recipe '{run.train.recipe}', "
                f"{profile.data.name}, sigma = {run.sigma:.2f}), computed from the seconds per vote of the table before.",
            )
        stored = scaling.stored(run)
        if stored is not None:
            made[tables.name_of("scaling", run)] = (
                scaling_table(stored),
                f"What one evaluation of f costs per image, {scaling.BATCH} images at a time on one thread per worker "
                f"(MDEQ-{run.model.name}, recipe '{run.train.recipe}'): images of other sides with the same weights, and "
                "processes that run side by side. 'In proportion' is to the number of pixels, and to 1/workers.",
            )
    return _save(profile, made)


def adaptive_method(profile: Profile) -> config.Method:
    """The shortest method of a profile that needs no audit and is more than a step: what adaptive votes are shown with."""
    return min((m for m in profile.methods if not m.serialized and m.steps > 1), key=lambda m: m.steps)


def make_adaptive(profile: Profile) -> dict[str, pd.DataFrame]:
    """Make and save the table of adaptive decisions of every run that was measured, here or in what is shipped."""
    made = {}
    for run in profile.runs:
        stored = stored_adaptive(run)
        if stored is None:
            continue
        caption = (
            f"Deciding whether the radius is at least r, adaptively and with fixed N = {stored['n'].max()}, on the same votes "
            f"of {stored['method'][0]} (MDEQ-{run.model.name}, recipe '{run.train.recipe}', {profile.data.name}"
            f"{tables.source_note(run)}, sigma = {run.sigma:.2f}, alpha = {profile.alpha:g}). The adaptive test looks after 50, "
            "75, 112, ... votes and spends an equal part of alpha at each look."
        )
        frame = adaptive_table(stored, profile.radii, sigma=run.sigma, alpha=profile.alpha)
        made[tables.name_of("adaptive", run)] = (frame, caption)
    return _save(profile, made)


def _save(profile: Profile, made: dict[str, tuple[pd.DataFrame, str]]) -> dict[str, pd.DataFrame]:
    for name, (frame, caption) in made.items():
        tables.save(frame, paths.shown(profile, name), caption=caption, made_by=NOTEBOOK)
    return {name: frame for name, (frame, _) in made.items()}


if __name__ == "__main__":
    which = shown.profile_argument("python -m srs.speed_report", "Make the tables of agreement and speed of a profile.")
    for name in make_agreement(which) | make_speed(which) | make_adaptive(which):
        print(name)
