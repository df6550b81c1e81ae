"""The tables that the README shows, put there from the shipped results: `make readme`."""

import re
import warnings

import pandas as pd

from srs import profiles
from srs.analysis import show
from srs.experiments import bench, certified_accuracy, speed
from srs.settings import Run
from srs.smoothing.bounds import Rule
from srs.store import counts, paths, shipped

COSTS = ("method", "disagreement %", "NFE/vote", "speed-up (NFE)")
SPEED = ("method", "NFE/vote", "times faster per vote (seconds)")
STEPS = (1, 2, 4, 8)  # after which the README says how far a model is from its solution
BLOCK = re.compile(r"(<!-- (table|speed|cards|levels): (\S+) (\S+) (\S+) (\S+) -->\n).*?(\n<!-- end -->)", re.DOTALL)
SPEED_DIGITS = {"times faster per vote (seconds)": 1, f"times faster, certificate at N = {speed.LARGE_N} (seconds)": 1}


def main_table(run: Run) -> pd.DataFrame:
    """Certified accuracy and cost of a shipped run, the paper's rows beside it, without what only the long tables have room for.

    That is the rule of Theorem 3.1, which `audit` is never below, and rows of which the paper's values are not known.
    """
    counted = _counts(run)
    whole = certified_accuracy.of_run(certified_accuracy.accuracy(counted, run.profile), run)
    whole = whole[(whole["r=0.00"] != "") & (whole["rule"] != Rule.THEOREM31)]
    costs = certified_accuracy.of_run(certified_accuracy.cost(counted, run.profile), run)[list(COSTS)].astype({"method": str})
    table = whole.drop(columns=["model", "recipe", "sigma"]).merge(costs, on="method", how="left")
    table.loc[table["rule"] == certified_accuracy.PUBLISHED, list(COSTS[1:])] = None
    return table[[c for c in table if c in ("rule", "ACR", *COSTS) or c.startswith("r=")]]


def speed_table(run: Run) -> pd.DataFrame:
    """What ways to certify cost against the released code on one machine, without the rows that only explain it."""
    timings = bench.read(paths.timings(run))
    whole = speed.per_vote(timings).merge(speed.per_certificate(run, timings), on="method")
    whole = whole[~whole["method"].str.endswith(bench.KEPT)]
    at_n = f"times faster, N = {speed.LARGE_N} (seconds)"
    whole = whole[[c for c in whole if c in (*SPEED, at_n) or c.startswith("unlike")]]
    return whole.rename(columns={at_n: list(SPEED_DIGITS)[1]})


def levels_table(run: Run) -> pd.DataFrame:
    """Certified accuracy at every noise level of the run's recipe: RS and the paper's best SRS method, ours and published."""
    profile = profiles.get_profile(run.profile.name)
    counted = _counts(run)
    table = certified_accuracy.accuracy(counted, profile)
    methods = (profile.reference, certified_accuracy.best_of_the_paper(counted))
    own = (table["model"] == run.model.name) & (table["recipe"] == run.train.recipe) & (table["r=0.00"] != "")
    table = table[own & table["method"].isin(methods) & ~table["rule"].isin((Rule.THEOREM31, Rule.RELEASED))]
    return table[["sigma", "method", "rule", *(c for c in table if c.startswith("r=")), "ACR"]]


def cards_table(run: Run) -> pd.DataFrame:
    """What the shipped models of the run's profile reached, from their cards: a line each."""
    rows = []
    for other in run.profile.runs:
        if card := shipped.card(other):
            shares = card["noisy_accuracy"], card["validation"]["noisy_accuracy"]
            rows.append({
                "sigma": f"{other.sigma:.2f}", "recipe": other.train.recipe,
                f"noisy accuracy % on {card['quality_images']} test / validation images": " / ".join(f"{100 * s:.1f}" for s in shares),
                **{f"unlike its solution after {k} %": 100 * (1 - card["agreement"][str(k)]) for k in STEPS},
                "training, hours of a core": f"{(card['seconds'] + card['seconds_before']) / 3600:.1f}",
            })  # fmt: skip
    return pd.DataFrame(rows)


def _counts(run: Run) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # other runs may not be certified yet
        return counts.read_counts(profiles.get_profile(run.profile.name))


def filled(text: str) -> str:
    """The text with every block `<!-- table: PROFILE MODEL SIGMA RECIPE --> ... <!-- end -->` (or `speed:`, `cards:`, `levels:`) made anew."""

    def fill(found: re.Match) -> str:
        kind, profile, model, sigma, recipe = found.groups()[1:6]
        run = profiles.get_run(profile, model, float(sigma), recipe)
        table = {"table": main_table, "speed": speed_table, "cards": cards_table, "levels": levels_table}[kind](run)
        digits = {c: 2 for c in table if kind == "speed" and c.startswith("unlike")}
        return found[1] + show.cells(table, SPEED_DIGITS | digits).to_markdown(index=False, disable_numparse=True) + found[7]

    return BLOCK.sub(fill, text)


def refresh() -> None:
    """Fill every block of the README anew."""
    path = paths.root() / "README.md"
    path.write_text(filled(path.read_text()))
