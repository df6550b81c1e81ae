"""Notebook 31: SRS against standard RS image by image: relative radius difference, p_m, and Theorem 3.1's gap."""

import pandas as pd

from srs.analysis import measures, plots, show
from srs.analysis.measures import METHOD, ROW
from srs.analysis.show import Shown
from srs.experiments.certified_accuracy import family_name
from srs.settings import Profile
from srs.smoothing.bounds import Rule

RRD_BINS = {"LARGE": 20}  # as in the paper's figures; 10 for every other size
BINS = 10


def mean_rrd(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Mean RRD of every SRS method under every rule, model by model; `images` are those that standard RS certifies."""
    found = measures.rrd(measures.certificates(counts, alpha=profile.alpha))
    groups = found.groupby(ROW, observed=True)["rrd"]
    wide = groups.mean().unstack("rule").rename(columns=show.RULE_LABELS)
    images = groups.size().groupby(METHOD, observed=True).max()
    every = counts.loc[counts["needs_audit"], METHOD].drop_duplicates()
    table = every.merge(images.rename("images").reset_index(), on=METHOD, how="left").fillna({"images": 0}).astype({"images": int})
    return table.merge(wide.reset_index(), on=METHOD, how="left")


def p_m_and_gap(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Per SRS method: how many votes for c_A the standard DEQ does not give, and Theorem 3.1's bound on that."""
    own = per_image(counts, profile)
    groups = own.groupby(METHOD, observed=True)
    return pd.DataFrame({
        "images": groups["p_m"].count(),
        "mean p_m %": 100 * groups["p_m"].mean(), "largest p_m %": 100 * groups["p_m"].max(),
        "mean gap %": 100 * groups["gap"].mean(),
        "images with gap < 0": groups["gap"].agg(lambda gap: int((gap < 0).sum())),
    }).reset_index()  # fmt: skip


def per_image(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The SRS rows with `p_m` and `gap`."""
    own = counts[counts["needs_audit"]]
    return own.assign(p_m=measures.p_m(own), gap=measures.gap(own, profile.alpha))


def tables(counts: pd.DataFrame, profile: Profile) -> list[Shown]:
    """The tables that compare SRS with standard RS image by image; none for a profile without SRS."""
    if not counts["needs_audit"].any():
        return []
    rrd_caption = (
        f"Mean relative radius difference |r_RS - r_SRS| / r_RS against {profile.reference} under 'cohen', over the "
        "images that it certifies (their number in the column 'images'); where SRS abstains or certifies another class "
        "the difference is 1. All methods saw the same noise. Radii under 'released (unsound)' do not hold: a small "
        "difference there is no merit."
    )
    p_m_caption = (
        f"p_m: share of an image's SRS votes for c_A that {profile.reference}, or the method's own auditor, does not give on the same "
        "noise. gap: "
        "Theorem 3.1's upper bound on p_m, from the audited votes, minus the p_m measured on all votes; below 0 the "
        f"bound failed, which it may with probability alpha/2 = {profile.alpha / 2:g} per image."
    )
    digits = {label: 3 for label in show.RULE_LABELS.values()}
    return [
        show.table(profile, "mean_rrd", mean_rrd(counts, profile), rrd_caption, digits),
        show.table(profile, "p_m_and_gap", p_m_and_gap(counts, profile), p_m_caption),
    ]


def released_finding(counts: pd.DataFrame, profile: Profile) -> str:
    """In how many rows the released formula comes nearer to standard RS than both sound rules."""
    table = mean_rrd(counts, profile).dropna()
    sound = table[[show.RULE_LABELS[rule] for rule in (Rule.AUDIT, Rule.THEOREM31)]].min(axis=1)
    nearer = int((table[show.RULE_LABELS[Rule.RELEASED]] < sound).sum())
    return (
        f"The released formula, which does not pay for wrong votes, comes nearer to standard RS than both sound rules in {nearer} of "
        f"{len(table)} rows; the mean RRD over all rows is "
        + ", ".join(f"{table[label].mean():.2f} under {label}" for label in show.RULE_LABELS.values() if label in table) + "."
    )


def gap_finding(counts: pd.DataFrame, profile: Profile) -> str:
    """How wide the gap is, and on how many images the bound failed."""
    own = per_image(counts, profile).dropna(subset=["p_m"])
    failed = int((own["gap"] < 0).sum())
    return (
        f"Theorem 3.1's bound lies on average {100 * own['gap'].mean():.1f} points above p_m, whose mean is {100 * own['p_m'].mean():.1f} %. "
        f"It failed on {failed} of {len(own)} rows; a rate of alpha/2 allows {profile.alpha / 2 * len(own):.1f}."
    )


def histograms(counts: pd.DataFrame, profile: Profile) -> list[Shown]:
    """Histograms of RRD under each rule, of p_m and of gap, for every model size and recipe."""
    found = measures.rrd(measures.certificates(counts, alpha=profile.alpha))
    shares, shown = per_image(counts, profile), []
    for (model, recipe), own in shares.groupby(["model", "recipe"], observed=True):
        family = family_name(model, recipe)
        where = f"MDEQ-{family} on {profile.data.name}, a panel per noise level"
        of_family = found[(found["model"] == model) & (found["recipe"] == recipe)]
        for rule, rows in of_family.groupby("rule", observed=True):
            shown.append(_rrd_histogram(profile, family, RRD_BINS.get(model, BINS), Rule(rule), rows, where))
        p_m_caption = (
            f"Share of each image's SRS votes for c_A that {profile.reference}, or the method's own auditor, does not give on the same "
            f"noise ({where}; {BINS} bins)."
        )
        gap_caption = (
            f"How far Theorem 3.1's bound on p_m lies above the p_m measured on all votes, per image ({where}; {BINS} "
            f"bins). Left of 0 the bound failed, which it may with probability {profile.alpha / 2:g}."
        )
        for name, label, caption in (
            ("p_m", r"$p_m$ (% of the votes for $c_A$)", p_m_caption),
            ("gap", r"gap $\overline{p_m} - p_m$ (% of the votes for $c_A$)", gap_caption),
        ):
            percent = own.assign(**{name: 100 * own[name]})
            shown += [
                show.figure(profile, f"{name}_hist_{family}" + part, plots.histograms(some, value=name, bins=BINS, label=label), caption)
                for part, some in in_parts(percent)
            ]
    return shown


def in_parts(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows in parts of as many methods as a panel can show, each with the ending of its name."""
    methods = plots.in_sixes(dict.fromkeys(rows.sort_values("method")["method"]))
    return [(f"_{i + 1}" * bool(i), rows[rows["method"].isin(names)]) for i, names in enumerate(methods)]


def _rrd_histogram(profile: Profile, family: str, bins: int, rule: Rule, rows: pd.DataFrame, where: str) -> Shown:
    reference = profile.reference
    caption = (
        f"Relative radius difference between SRS under '{show.RULE_LABELS[rule]}' and {reference}, over the images that "
        f"{reference} certifies ({where}; {bins} bins). At 1 SRS abstains or certifies another class; "
        "above 1, where images are only counted, its radius is more than twice the standard one."
    )
    label = rf"RRD $|r_{{RS}} - r_{{SRS}}| / r_{{RS}}$ under {show.RULE_LABELS[rule]}"
    suffix = "" if rule is Rule.AUDIT else f"_{rule}"
    drawn = plots.histograms(rows, value="rrd", bins=bins, low=0.0, high=1.0, label=label)
    return show.figure(profile, f"rrd_hist_{family}{suffix}", drawn, caption)
