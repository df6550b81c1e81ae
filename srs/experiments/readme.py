"""The table on the README's first screen, made from the shipped counts: `make readme`."""

import re
import warnings

import pandas as pd

from srs import profiles, sealed, store
from srs.analysis import measures, show
from srs.experiments.certified_accuracy import best_of_the_paper
from srs.settings import Profile, Run
from srs.smoothing.bounds import Rule

RADII = (0.25, 0.5, 1.0)
BLOCK = re.compile(r"(<!-- rows: (\S+) (\S+) (\S+) (\S+) -->\n).*?(\n<!-- end -->)", re.DOTALL)
CERTIFIED_BY = {
    Rule.COHEN: "Cohen et al. 2019", Rule.RELEASED: "the authors' code", Rule.THEOREM31: "the paper's Theorem 3.1", Rule.AUDIT: "`audit` (ours)",
}  # fmt: skip


def rows(run: Run) -> pd.DataFrame:
    """Five ways to certify: who draws the votes, who certifies, whether that holds, certified accuracy, and how much faster it is.

    The ways are the full solve, the paper's best SRS under three rules, and the cheapest method whose votes need no audit.
    """
    profile = run.profile
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # other runs may not be certified yet
        counted = store.read_run(run)
    srs, cheap = best_of_the_paper(counted), cheapest(counted, profile)
    ways = [(profile.reference, Rule.COHEN), (srs, Rule.RELEASED), (srs, Rule.THEOREM31), (srs, Rule.AUDIT), (cheap, Rule.COHEN)]
    accuracy = measures.certified_accuracy(measures.certificates(counted, alpha=profile.alpha), RADII, ["method", "rule"])
    faster = measures.speed_up(measures.cost(counted), profile.reference)["speed-up (NFE)"].droplevel(measures.RUN)
    return pd.DataFrame([
        {"votes drawn by": method, "certified by": CERTIFIED_BY[rule], "holds": "yes" if rule.sound else "**no**",
         **accuracy.loc[(method, str(rule))].drop("ACR").to_dict(), "times fewer evaluations": faster[method]}
        for method, rule in ways
    ])  # fmt: skip


def cheapest(counted: pd.DataFrame, profile: Profile) -> str:
    """The method without an audit that costs least of those whose votes differ from the reference's in less than one of twenty."""
    cost = measures.cost(counted[~counted["needs_audit"]], ["method"])
    return str(cost.loc[cost["disagreement %"] < 5, "NFE/image"].idxmin())


def filled(text: str) -> str:
    """The text with every block `<!-- rows: PROFILE MODEL SIGMA RECIPE --> ... <!-- end -->` made anew."""

    def fill(found: re.Match) -> str:
        run = profiles.get_run(found[2], found[3], float(found[4]), found[5])
        printed = show.cells(rows(run), {"times fewer evaluations": 1})
        return found[1] + printed.to_markdown(index=False, disable_numparse=True, colalign=["left"] * 3 + ["right"] * 4) + found[6]

    return BLOCK.sub(fill, text)


def refresh() -> None:
    """Fill every block of the README anew."""
    path = sealed.root() / "README.md"
    path.write_text(filled(path.read_text()))
