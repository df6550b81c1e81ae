"""The paper's measures as questions to one long table of counts: certificates, certified accuracy, ACR, RRD, p_m, gap, cost.

The table has a row per image and method of every run. An abstention is never correct and counts radius 0.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from srs.smoothing import adaptive, bounds
from srs.store import in_order, RUN  # noqa: F401  # in_order is also asked for here

METHOD = [*RUN, "method"]
ROW = [*METHOD, "rule"]  # what a line of most tables is about
RULES = [bounds.Rule.COHEN, bounds.Rule.AUDIT, bounds.Rule.THEOREM31, bounds.Rule.RELEASED]  # in the order of the tables
SOUND = [rule for rule in RULES if rule.sound]
CONFIDENCE = 0.95  # of the intervals over images


def certificates(counts: pd.DataFrame, *, alpha: float, rules: Sequence[bounds.Rule] | None = None) -> pd.DataFrame:
    """The certificate of every image: its row once per rule, with `rule`, `p_lower`, `predict`, `radius`, `correct`.

    Without `rules`, each method's votes are shown under those of `bounds.rules_for`.
    """
    parts = []
    for rule in RULES:
        shown = counts["needs_audit"].map(lambda needs: rule in (rules or bounds.rules_for(bool(needs)))).to_numpy(bool)
        own = counts[shown].copy()
        # At sigma = 1 and then scaled: the same product, rounded once.
        share = adaptive.spent(alpha, own["n"], np.nan_to_num(own.get("n_max", 0)))  # an ablation's own counts have fixed n
        own["p_lower"], own["predict"], unit = bounds.certificates(own, rule, 1.0, share)
        own["rule"], own["radius"] = str(rule), own["sigma"].astype(float) * unit
        own["correct"] = (own["predict"] == own["label"]) & (own["predict"] != bounds.ABSTAIN)
        parts.append(own)
    found = pd.concat(parts, ignore_index=True)
    found["rule"] = pd.Categorical(found["rule"], list(map(str, RULES)), ordered=True)
    return found


def under_its_rule(certified: pd.DataFrame) -> pd.DataFrame:
    """The rows under the one rule that holds for their votes, whatever they depend on: cohen or audit."""
    return certified[certified["rule"].isin((bounds.Rule.COHEN, bounds.Rule.AUDIT))]


def holding(counts: pd.DataFrame, *, alpha: float) -> pd.DataFrame:
    """The certificate of every row under the one rule that holds for its votes."""
    return under_its_rule(certificates(counts, alpha=alpha))


def held(certified: pd.DataFrame, radii: Sequence[float], by: Sequence[str] = ROW) -> pd.DataFrame:
    """How many images of each group are classified rightly with a radius of at least r, per r, and their number `images`."""
    radius = certified["radius"].where(certified["correct"], -np.inf)
    return _grouped(pd.DataFrame({r: radius >= r for r in radii}).astype(int).assign(images=1), certified, by).sum()


def certified_accuracy(certified: pd.DataFrame, radii: Sequence[float], by: Sequence[str] = ROW) -> pd.DataFrame:
    """Certified accuracy in percent at each radius (`r=0.25`) and ACR, the mean radius (Zhai et al. 2020), of each group."""
    counts = held(certified, radii, by)
    table = pd.DataFrame({f"r={r:.2f}": 100 * counts[r] / counts["images"] for r in radii})
    return table.join(_grouped(certified["radius"].where(certified["correct"], 0.0).rename("ACR"), certified, by).mean())


def confidence(certified: pd.DataFrame, radii: Sequence[float], by: Sequence[str] = ROW) -> pd.DataFrame:
    """The Clopper-Pearson interval of certified accuracy over images, as shares: columns (r, "low") and (r, "high")."""
    counts, columns = held(certified, radii, by), {}
    for r in radii:
        columns[r, "low"], columns[r, "high"] = bounds.proportion_interval(counts[r], counts["images"], CONFIDENCE)
    return pd.DataFrame(columns, index=counts.index)


def rrd(certified: pd.DataFrame) -> pd.DataFrame:
    """RRD = |r_RS - r_SRS| / r_RS of each image that the reference certifies, rightly or not: `rrd` beside the SRS rows."""
    standard = certified[(certified["method"] == certified["reference"]) & (certified["radius"] > 0)]
    standard = standard[[*RUN, "idx", "predict", "radius"]]
    both = certified[certified["needs_audit"]].merge(standard, on=[*RUN, "idx"], suffixes=("", "_rs"))
    same = both["radius"].where(both["predict"] == both["predict_rs"], 0.0)  # of another class: RRD 1
    return both.assign(rrd=(both["radius_rs"] - same).abs() / both["radius_rs"])


def p_m(counts: pd.DataFrame) -> pd.Series:
    """p_m of each row: share of the votes for c_A that its auditor, on the same noise, does not give; nan if not taken."""
    return (counts["n_wrong"] / counts["n_a"].clip(lower=1)).where((counts["n_wrong"] >= 0) & (counts["n_a"] > 0))


def gap(counts: pd.DataFrame, alpha: float) -> pd.Series:
    """How far Theorem 3.1's p_m_upper = 1 - LowerConfBound(N_1, N_2, 1 - alpha/2) lies above p_m; negative where it failed."""
    n_1, n_2 = (counts[name].clip(lower=0) for name in ("n_1", "n_2"))
    return 1 - bounds.lower_confidence_bound(n_1, n_2, alpha / 2) - p_m(counts)


def cost(counts: pd.DataFrame, by: Sequence[str] = METHOD) -> pd.DataFrame:
    """What each group spends: `disagreement %`, `NFE/vote` (estimation alone), `NFE/image`, `audit NFE`, `seconds/image`.

    NFE are evaluations of f on one noisy copy. Disagreement is the share of votes that differ from the reference's on the same
    noise; nan where it was not measured.
    """
    nfe = counts[["nfe_select", "nfe_estimate", "nfe_audit"]].clip(lower=0)
    differ, compared = counts["n_differ"].clip(lower=0), counts["n"].where(counts["n_differ"] >= 0, 0)
    columns = nfe.assign(n=counts["n"], differ=differ, compared=compared, nfe=nfe.sum(axis=1), seconds=counts["seconds"])
    total, mean = (getattr(_grouped(columns, counts, by), how)() for how in ("sum", "mean"))
    return pd.DataFrame({
        "disagreement %": 100 * total["differ"] / total["compared"].replace(0, np.nan),
        "NFE/vote": total["nfe_estimate"] / total["n"], "NFE/image": mean["nfe"], "audit NFE": mean["nfe_audit"],
        "seconds/image": mean["seconds"],
    })  # fmt: skip


def _grouped(columns, table: pd.DataFrame, by: Sequence[str]):
    return columns.groupby([table[name] for name in by], observed=True)
