"""Notebook 31: SRS against standard RS image by image: relative radius difference, p_m, and Theorem 3.1's gap."""

import pandas as pd

from srs.analysis import measures, plots, show
from srs.analysis.measures import METHOD, ROW
from srs.analysis.show import Shown
from srs.experiments.certified_accuracy import family_name
from srs.settings import Profile
from srs.smoothing.bounds import Rule

P_M_OF = "share of an image's SRS votes for c_A that the standard solve which audits does not give on the same noise"
RRD_BINS = {"LARGE": 20}  # as in the paper's figures; BINS for every other size
BINS = 10


def mean_rrd(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Mean RRD of every SRS method under every rule, model by model; `images` are those that standard RS certifies."""
    groups = measures.rrd(measures.certificates(counts, alpha=profile.alpha)).groupby(ROW, observed=True)["rrd"]
    images = groups.size().groupby(METHOD, observed=True).max().rename("images")
    table = images.to_frame().join(groups.mean().unstack("rule").rename(columns=show.RULE_LABELS)).reset_index()
    every = counts.loc[counts["needs_audit"], METHOD].drop_duplicates()
    return every.merge(table, on=METHOD, how="left").fillna({"images": 0}).astype({"images": int})


def per_image(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The SRS rows with `p_m` and `gap`."""
    own = counts[counts["needs_audit"]]
    return own.assign(p_m=measures.p_m(own), gap=measures.gap(own, profile.alpha))


def p_m_and_gap(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Per SRS method: how many votes for c_A the standard DEQ does not give, and Theorem 3.1's bound on that."""
    own = per_image(counts, profile)
    groups = own.assign(failed=own["gap"] < 0).groupby(METHOD, observed=True)
    return pd.DataFrame({
        "images": groups["p_m"].count(),
        "mean p_m %": 100 * groups["p_m"].mean(), "largest p_m %": 100 * groups["p_m"].max(),
        "mean gap %": 100 * groups["gap"].mean(), "images with gap < 0": groups["failed"].sum(),
    }).reset_index()  # fmt: skip


def tables(counts: pd.DataFrame, profile: Profile) -> list[Shown]:
    """The tables that compare SRS with standard RS image by image; none for a profile without SRS."""
    if not counts["needs_audit"].any():
        return []
    return [
        show.table(profile, "mean_rrd", mean_rrd(counts, profile), (
            f"Mean relative radius difference |r_RS - r_SRS| / r_RS against {profile.reference} under 'cohen', over the images "
            "that it certifies (column 'images'). Where SRS abstains or certifies another class the difference is 1. Radii "
            "under 'released (unsound)' do not hold."
        )),
        show.table(profile, "p_m_and_gap", p_m_and_gap(counts, profile), (
            f"p_m: {P_M_OF}. gap: Theorem 3.1's upper bound on p_m, from the audited votes, minus the p_m of all "
            f"votes. Below 0 the bound failed, which it may with probability alpha/2 = {profile.alpha / 2:g} per image."
        )),
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


def gap_finding(counts: pd.DataFrame, profile: Profile) -> str:
    """How wide the gap is, and on how many images the bound failed."""
    own = per_image(counts, profile).dropna(subset=["p_m"])
    return (
        f"Theorem 3.1's bound lies on average {100 * own['gap'].mean():.1f} points above p_m, whose mean is "
        f"{100 * own['p_m'].mean():.1f} %. It failed on {(own['gap'] < 0).sum()} of {len(own)} rows; a rate of alpha/2 allows "
        f"{profile.alpha / 2 * len(own):.1f}."
    )


def histograms(counts: pd.DataFrame, profile: Profile) -> list[Shown]:
    """Histograms of RRD under each rule, of p_m and of gap, for every model size and recipe."""
    found, shares, shown = measures.rrd(measures.certificates(counts, alpha=profile.alpha)), per_image(counts, profile), []
    reference, votes = profile.reference, "(% of the votes for $c_A$)"
    for (model, recipe), own in shares.groupby(["model", "recipe"], observed=True):
        family = family_name(model, recipe)
        where = f"A panel per noise level (MDEQ-{family} on {profile.data.name})."
        for rule, rows in found[(found["model"] == model) & (found["recipe"] == recipe)].groupby("rule", observed=True):
            label = show.RULE_LABELS[rule]
            axis = rf"RRD $|r_{{RS}} - r_{{SRS}}| / r_{{RS}}$ under {label}"
            name = f"rrd_hist_{family}" + f"_{rule}" * (rule != Rule.AUDIT)
            drawn = plots.histograms(rows, value="rrd", bins=RRD_BINS.get(model, BINS), high=1.0, label=axis)
            shown.append(show.figure(profile, name, drawn, (
                f"Relative radius difference between SRS under '{label}' and {reference}, over the images that {reference} "
                "certifies. At 1 SRS abstains or certifies another class; above 1 its radius is more than twice the standard "
                f"one. {where}"
            )))  # fmt: skip
        percent = own.assign(p_m=100 * own["p_m"], gap=100 * own["gap"])
        for value, axis, caption in (
            ("p_m", f"$p_m$ {votes}", f"p_m: {P_M_OF}."),
            ("gap", rf"gap $\overline{{p_m}} - p_m$ {votes}", "How far Theorem 3.1's bound lies above the p_m of all votes. Left "
             f"of 0 the bound failed, which it may with probability {profile.alpha / 2:g}."),
        ):  # fmt: skip
            for i, methods in enumerate(plots.in_sixes(percent["method"].cat.remove_unused_categories().cat.categories)):
                drawn = plots.histograms(percent[percent["method"].isin(methods)], value=value, bins=BINS, label=axis)
                shown.append(show.figure(profile, f"{value}_hist_{family}" + f"_{i + 1}" * bool(i), drawn, f"{caption} {where}"))
    return shown
