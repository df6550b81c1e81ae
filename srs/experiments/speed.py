"""Notebook 41: what a vote and a certificate cost beside the released code, from what `bench` stored."""

from itertools import product

import pandas as pd

from srs import sealed, store
from srs.analysis import measures, show
from srs.experiments import bench
from srs.experiments.certified_accuracy import model_of, name_of
from srs.settings import Profile, Run

LARGE_N = 10_000  # the paper's sample size, at which costs are compared
SAMPLES = (1_000, LARGE_N, 100_000)
DIGITS = {"ms/vote": 3, "NFE/vote": 1, "seconds": 1, "NFE": 0, "votes, adaptive": 0}


def per_vote(timings: pd.DataFrame) -> pd.DataFrame:
    """Cost of a vote of every way, and how many times less it is than the authors' MDEQ-30A's in their two batch sizes."""
    faster = {f"times faster, batch {b}": timings[ratio] for b, ratio in zip(timings["batch"], ("ratio", "ratio_best"))}
    cost = {"method": timings["label"], "NFE/vote": timings["nfe"], "ms/vote": 1000 * timings["seconds"]}
    return pd.DataFrame(cost | faster | {"votes unlike row 1 %": 100 * timings["differing"]})


def per_certificate(run: Run, timings: pd.DataFrame) -> pd.DataFrame:
    """What an image costs with every way at N = 10,000, and, adaptively too, how many times faster than the second that is."""
    cost = {n: bench.certificate_cost(run, timings, n) for n in SAMPLES}
    faster = {f"times faster, N = {n}": c["seconds"][1] / c["seconds"] for n, c in cost.items()}
    rows = cost[LARGE_N].rename(columns={"label": "method", "nfe": "NFE"}).assign(**faster)
    if run.profile.adaptive and (counted := store.read_run(run)) is not None:
        votes, n0 = rows["method"].map(counted.groupby("method", observed=True)["n"].mean()), run.profile.n0
        rows["votes, adaptive"], share = votes, (n0 + votes) / (n0 + LARGE_N)
        rows["times faster, adaptive"] = rows["seconds"][1] / (rows["seconds"] * share)
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
    theirs, ours = costs[costs.index.str.startswith(f"{bench.AUTHORS} SRS-")], costs[costs.index == "SRS-MDEQ-3A"]
    if theirs.empty or ours.empty:
        return ""
    nfe, seconds = (100 * ours / theirs.min()).iloc[0]
    return f"SRS-MDEQ-3A takes {nfe:.0f} % of the evaluations and {seconds:.0f} % of the seconds of the authors' own."


def speed(profile: Profile) -> list[show.Shown]:
    """The tables of cost of every run that was timed, here or as shipped, and what of the authors' cost SRS takes."""
    shown = []
    for run, device in product(profile.runs, ("cpu", "cuda")):
        if (timings := bench.read(run, device)) is None:
            continue
        made_by = sealed.read_json(store.find(run, bench.file_of(device)).with_suffix(".json"), "record of timings", by="bench")
        where, costs = f"({model_of(run)}; {made_by['device']})", per_certificate(run, timings)
        vote = (
            f"What a vote costs {where}, in one process and by turns; medians. Rows \"authors'\" follow the released code, "
            "which stops early. 'times faster': than its MDEQ-30A in batches of that size."
        )
        whole = [
            f"What a certificate costs at N = {LARGE_N}: n0 = {profile.n0} and N votes, start and audit {where}. 'times "
            f"faster': than row 2, the authors' MDEQ-30A in the smaller batch.", srs_finding(costs),
            f"'adaptive': with votes until each radius is decided, against its N = {LARGE_N}." * profile.adaptive,
        ]
        for name, frame, caption in (("speed", per_vote(timings), vote), ("cost_by_n", costs, " ".join(filter(None, whole)))):
            digits = DIGITS | dict.fromkeys((column for column in frame if "times" in column), 1)
            name += "" if device == "cpu" else f"_{device}"
            shown.append(show.table(profile, name_of(name, run), frame, caption, digits))
    return shown
