"""Notebook 31: SRS against standard RS image by image: relative radius difference, p_m, and Theorem 3.1's gap."""

import pandas as pd

from srs.analysis import measures, plots, show
from srs.analysis.measures import METHOD, ROW
from srs.analysis.show import Shown
from srs.experiments.certified_accuracy import family_name
from srs.settings import Profile
from srs.smoothing.bounds import Rule

P_M = "p_m: share of an image's SRS votes for c_A that the standard solve which audits does not give on the same noise."
GAP = "gap: how far Theorem 3.1's bound on p_m, from the audited votes, lies above the p_m of all votes; below 0 it failed."
BINS = {"LARGE": 20, "SMALL": 10}  # of RRD, as in the paper's figures


def mean_rrd(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Mean RRD of every SRS method under every rule, model by model; `images` are those that standard RS certifies."""
    groups = measures.rrd(measures.certificates(counts, alpha=profile.alpha)).groupby(ROW, observed=True)["rrd"]
    images = groups.size().groupby(METHOD, observed=True).max().rename("images")
    table = images.to_frame().join(groups.mean().unstack("rule").rename(columns=show.RULE_LABELS)).reset_index()
    every = counts.loc[counts["needs_audit"], METHOD].drop_duplicates()
    return every.merge(table, on=METHOD, how="left").fillna({"images": 0}).astype({"images": int})


def per_image(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The SRS rows with `p_m` and `gap`, in percent."""
    own = counts[counts["needs_audit"]]
    return own.assign(p_m=100 * measures.p_m(own), gap=100 * measures.gap(own, profile.alpha))


def p_m_and_gap(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Per SRS method: how many votes for c_A the standard DEQ does not give, and Theorem 3.1's bound on that."""
    own = per_image(counts, profile)
    return own.assign(failed=own["gap"] < 0).groupby(METHOD, observed=True).agg(**{
        "images": ("p_m", "count"), "mean p_m %": ("p_m", "mean"), "largest p_m %": ("p_m", "max"),
        "mean gap %": ("gap", "mean"), "images with gap < 0": ("failed", "sum"),
    }).reset_index()  # fmt: skip


def tables(counts: pd.DataFrame, profile: Profile) -> list[Shown]:
    """The tables that compare SRS with standard RS image by image; none for a profile without SRS."""
    if not counts["needs_audit"].any():
        return []
    return [
        show.table(profile, "mean_rrd", mean_rrd(counts, profile), (
            f"Mean relative radius difference |r_RS - r_SRS| / r_RS against {profile.reference} under 'cohen', over the images "
            f"that it certifies. Where SRS abstains or certifies another class the difference is 1. {show.UNSOUND_NOTE}"
        )),
        show.table(profile, "p_m_and_gap", p_m_and_gap(counts, profile), f"{P_M} {GAP}"),
    ]  # fmt: skip


def released_finding(counts: pd.DataFrame, profile: Profile) -> str:
    """In how many rows the released formula comes nearer to standard RS than both sound rules."""
    table = mean_rrd(counts, profile).dropna()
    audit, theorem31, released = (table[show.RULE_LABELS[rule]] for rule in (Rule.AUDIT, Rule.THEOREM31, Rule.RELEASED))
    nearer = int(((released < audit) & (released < theorem31)).sum())
    told = ", ".join(f"{rrd.mean():.2f} under {rrd.name}" for rrd in (audit, theorem31, released))
    return (
        "The released formula, which does not pay for wrong votes, comes nearer to standard RS than both sound rules in "
        f"{nearer} of {len(table)} rows. The mean RRD over all rows is {told}."
    )


def histograms(counts: pd.DataFrame, profile: Profile) -> list[Shown]:
    """Histograms of RRD under each rule, of p_m and of gap, for every model size and recipe."""
    found, shown = measures.rrd(measures.certificates(counts, alpha=profile.alpha)), []
    for (model, recipe), own in per_image(counts, profile).groupby(["model", "recipe"], observed=True):
        family = family_name(model, recipe)
        where = f"A panel per noise level (MDEQ-{family} on {profile.data.name})."
        for rule, rows in found[(found["model"] == model) & (found["recipe"] == recipe)].groupby("rule", observed=True):
            axis = rf"RRD $|r_{{RS}} - r_{{SRS}}| / r_{{RS}}$ under {show.RULE_LABELS[rule]}"
            drawn = plots.histograms(rows, value="rrd", bins=BINS.get(model, 10), high=1.0, label=axis)
            shown.append(show.figure(profile, f"rrd_hist_{family}" + f"_{rule}" * (rule != Rule.AUDIT), drawn, (
                f"Relative radius difference between SRS under '{show.RULE_LABELS[rule]}' and {profile.reference}, over the "
                f"latter's images. At 1 SRS abstains, certifies another class or more than twice the radius. {where}"
            )))  # fmt: skip
        for value, axis, told in (("p_m", "$p_m$", P_M), ("gap", r"gap $\overline{p_m} - p_m$", GAP)):
            for i, methods in enumerate(plots.in_sixes(own["method"].cat.remove_unused_categories().cat.categories)):
                some, name = own[own["method"].isin(methods)], f"{value}_hist_{family}" + f"_{i + 1}" * bool(i)
                drawn = plots.histograms(some, value=value, bins=10, label=f"{axis} (% of the votes for $c_A$)")
                shown.append(show.figure(profile, name, drawn, f"{told} {where}"))
    return shown
