"""Notebook 31: SRS against standard RS image by image: relative radius difference, p_m, and Theorem 3.1's gap."""

import pandas as pd

from srs.analysis import measures, plots, show
from srs.experiments.certified_accuracy import family_name
from srs.settings import Profile

RRD = "Relative radius difference between SRS under 'audit' and {0}, over the images that {0} certifies. "
RRD += "At 1 SRS abstains, certifies another class or more than twice the radius."
P_M = "p_m: share of an image's SRS votes for c_A that the standard solve which audits does not give on the same noise."
GAP = "gap: how far Theorem 3.1's bound on p_m, from the audited votes, lies above the p_m of all votes; below 0 it failed."
BINS = {"LARGE": 20}  # else 10, as in the paper's figures


def tables(counts: pd.DataFrame, profile: Profile) -> list[show.Shown]:
    """The table of mean RRD of every SRS method under every rule, model by model; none for a profile without SRS."""
    if not counts["needs_audit"].any():
        return []
    groups = measures.rrd(measures.certificates(counts, alpha=profile.alpha)).groupby(measures.ROW, observed=True)["rrd"]
    images = groups.size().groupby(measures.METHOD, observed=True).max().rename("images")
    table = images.to_frame().join(groups.mean().unstack("rule").rename(columns=show.RULE_LABELS)).reset_index()
    every = counts.loc[counts["needs_audit"], measures.METHOD].drop_duplicates()
    table = every.merge(table, on=measures.METHOD, how="left").fillna({"images": 0}).astype({"images": int})
    told = f"Mean relative radius difference |r_RS - r_SRS| / r_RS against {profile.reference} under 'cohen', over the images "
    told += f"that it certifies. Where SRS abstains or certifies another class the difference is 1. {show.UNSOUND_NOTE}"
    return [show.table(profile, "mean_rrd", table, told)]


def histograms(counts: pd.DataFrame, profile: Profile) -> list[show.Shown]:
    """Histograms of RRD under the rule `audit`, of p_m and of gap, for every model size and recipe."""
    rrd, srs = measures.rrd(measures.holding(counts, alpha=profile.alpha)), counts[counts["needs_audit"]]
    percent = srs.assign(p_m=100 * measures.p_m(srs), gap=100 * measures.gap(srs, profile.alpha))
    shown = []
    for rows, value, axis, told in (
        (rrd, "rrd", r"RRD $|r_{RS} - r_{SRS}| / r_{RS}$", RRD.format(profile.reference)),
        (percent, "p_m", "$p_m$ (% of the votes for $c_A$)", P_M),
        (percent, "gap", r"gap $\overline{p_m} - p_m$ (% of the votes for $c_A$)", GAP),
    ):
        for (model, recipe), own in rows.dropna(subset=[value]).groupby(["model", "recipe"], observed=True):
            high, family = 1.0 if value == "rrd" else None, family_name(model, recipe)
            drawn = plots.histograms(own, value=value, bins=BINS.get(model, 10), high=high, label=axis)
            caption = f"{told} A panel per noise level (MDEQ-{family} on {profile.data.name})."
            shown.append(show.figure(profile, f"{value}_hist_{family}", drawn, caption))
    return shown
