"""Notebook 35: what the paper published of ImageNet. Notebook 05 has its settings."""

import pandas as pd

from srs.analysis import show
from srs.analysis.show import Shown
from srs.experiments import certified_accuracy
from srs.experiments.certified_accuracy import PUBLISHED_SETTINGS
from srs.settings import Profile
from srs.smoothing import bounds
from srs.smoothing.bounds import Rule

SIGMA = 1.0  # of the published table; its source names none
N, K, ALPHA = PUBLISHED_SETTINGS.values()


def published(full: Profile) -> pd.DataFrame:
    """The paper's ImageNet table, and the largest radius that each rule can give at the settings of the profile `full`."""
    known = certified_accuracy.published(full.data.name).xs(SIGMA, level="sigma").droplevel("model")
    known = known.loc[[m.name for m in full.methods if m.name in known.index]]
    rules = [Rule.THEOREM31 if full.method(name).needs_audit else Rule.COHEN for name in known.index]
    caps = [float(bounds.largest_radius(rule, N, K, SIGMA, ALPHA)) for rule in rules]
    radii, seconds = {f"r={r:.2f}": r for r in full.radii}, known["seconds/image"]
    rows = [row for _, row in known.iterrows()]
    beyond = [", ".join(name for name, r in radii.items() if r > cap and row[name]) for cap, row in zip(caps, rows)]
    return known[list(radii)].map("{:g}".format).assign(**{
        "seconds/image": seconds.map("{:.2f}".format), "speed-up (seconds)": seconds[full.reference] / seconds,
        "rule": list(map(str, rules)), "largest radius of the rule": list(map(show.round_down, caps)),
        "entries beyond it": beyond,
    }).reset_index()  # fmt: skip


def published_table(profile: Profile, full: Profile) -> Shown:
    """The table of what was published, in a profile's folder; it needs no image."""
    return show.table(profile, "imagenet_published", published(full), (
        f"The paper's ImageNet table (MDEQ-SMALL, 500 images, N = {N:,}, K = {K}, one A100): certified accuracy in percent at "
        f"l2 radius r. Its source does not name sigma; only {SIGMA:g} reaches r = 3 with so many samples. The last columns are "
        "ours: how far a rule reaches if all votes are for one class, and the SRS entries that Theorem 3.1 cannot have given."
    ))  # fmt: skip


def published_finding(table: pd.DataFrame) -> str:
    """How many of the published SRS entries lie beyond the theorem's reach."""
    srs = table[table["rule"] == Rule.THEOREM31]
    positive = (srs.filter(like="r=").astype(float) > 0).to_numpy().sum()
    return (
        f"With K = {K} audited votes Theorem 3.1 certifies no radius above {srs['largest radius of the rule'].iloc[0]} at "
        f"sigma {SIGMA:g}, so {srs['entries beyond it'].str.count('r=').sum()} of the {positive} published SRS entries above 0 "
        "cannot come from it; notebook 40 says where they come from."
    )
