"""The tables that the README shows, put there from the shipped results: `python -m srs.readme`."""

import re
import warnings

import pandas as pd

from srs import bench, profiles, speed_report, tables
from srs.settings import Run
from srs.smoothing.bounds import Rule
from srs.store.sealed import paths, sealed, shipped

COLUMNS = ("method", "rule", "ACR", "disagreement %", "NFE/vote", "speed-up (NFE)")
SPEED = ("method", "NFE/vote", "times faster per vote (seconds)", "times faster (seconds)")
STEPS = (1, 2, 4, 8)  # after which the README says how far a model is from its solution
BLOCK = re.compile(r"(<!-- (table|speed|cards|levels): (\S+) (\S+) (\S+) (\S+) -->\n).*?(\n<!-- end -->)", re.DOTALL)


def main_table(run: Run) -> pd.DataFrame:
    """Certified accuracy of a shipped run, the paper's rows beside it, without what only the long table has room for.

    That is the rule of Theorem 3.1, which `audit` is never below, and rows of which the paper's values are not known.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # other runs may not be certified yet
        whole = tables.certified_accuracy(run, shipped.load(run.profile))
    whole = whole[(whole["r=0.00"] != "") & (whole["rule"] != tables.RULE_LABELS[Rule.THEOREM31])]
    return whole[[c for c in whole if c in COLUMNS or c.startswith("r=")]]


def speed_table(run: Run) -> pd.DataFrame:
    """What ways to certify cost against the released code on one machine, without the rows that only explain it."""
    whole = speed_report.speed_table(run, bench.read(paths.timings(run)))
    whole = whole[~whole["method"].str.endswith(bench.KEPT)]
    whole = whole[[c for c in whole if c in SPEED or c.startswith("unlike")]]
    return whole.rename(columns={SPEED[-1]: f"times faster, certificate at N = {speed_report.LARGE_N} (seconds)"})


def levels_table(run: Run) -> pd.DataFrame:
    """Certified accuracy at every noise level of the run's recipe: RS and the paper's best SRS method, ours and published."""
    profile, rows = profiles.get_profile(run.profile.name), []
    tallies = shipped.load(profile)
    for other in shipped.certified(profile, tallies):
        if (other.model, other.train.recipe) == (run.model, run.train.recipe):
            whole = tables.certified_accuracy(other, tallies)
            methods = other.profile.reference, tables.best_of_the_paper(other.profile).name
            left_out = tables.RULE_LABELS[Rule.THEOREM31], tables.RULE_LABELS[Rule.RELEASED]
            some = whole[whole["method"].isin(methods) & ~whole["rule"].isin(left_out)]
            rows.append(some[[c for c in some if c in COLUMNS[:3] or c.startswith("r=")]].assign(sigma=f"{other.sigma:.2f}"))
    table = pd.concat(rows)
    return table[["sigma", *(c for c in table if c != "sigma")]]


def cards_table(run: Run) -> pd.DataFrame:
    """What the shipped models of the run's profile reached, from their cards: a line each."""
    rows = []
    for other in run.profile.runs:
        if card := shipped.card(other):
            shares = card["noisy_accuracy"], card["validation"]["noisy_accuracy"]
            rows.append({
                "sigma": f"{other.sigma:.2f}", "recipe": other.train.recipe,
                f"noisy accuracy % on {card['quality_images']} test / validation images": " / ".join(f"{100 * s:.1f}" for s in shares),
                **{f"unlike its solution after {k} %": f"{100 * (1 - card['agreement'][str(k)]):.1f}" for k in STEPS},
                "training, hours of a core": f"{(card['seconds'] + card['seconds_before']) / 3600:.1f}",
            })  # fmt: skip
    return pd.DataFrame(rows)


def filled(text: str) -> str:
    """The text with every block `<!-- table: PROFILE MODEL SIGMA RECIPE --> ... <!-- end -->` (or `speed:`, `cards:`, `levels:`) made anew."""

    def fill(found: re.Match) -> str:
        kind, profile, model, sigma, recipe = found.groups()[1:6]
        run = profiles.get_run(profile, model, float(sigma), recipe)
        table = {"table": main_table, "speed": speed_table, "cards": cards_table, "levels": levels_table}[kind](run)
        return found[1] + table.to_markdown(index=False, disable_numparse=True) + found[7]

    return BLOCK.sub(fill, text)


if __name__ == "__main__":
    path = paths.root() / "README.md"
    sealed.write(path, filled(path.read_text()).encode())
