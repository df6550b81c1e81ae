"""Notebook 35: what the paper published of ImageNet. Notebook 05 has its settings."""

from srs.analysis import show
from srs.experiments import certified_accuracy
from srs.settings import Profile

SIGMA = 1.0  # of the published table; its source names none
N, K, _ = certified_accuracy.PUBLISHED_SETTINGS.values()


def published_table(profile: Profile, full: Profile) -> show.Shown:
    """The table of what was published, in a profile's folder; it needs no image."""
    known = certified_accuracy.published(full.data.name).xs(SIGMA, level="sigma").droplevel("model")
    methods = [m.name for m in full.methods if m.name in known.index]
    known = known.loc[methods, [*(f"r={r:.2f}" for r in full.radii), "seconds/image"]]
    told = f"The paper's ImageNet table (MDEQ-SMALL, 500 images, N = {N:,}, K = {K}, one A100): certified accuracy in percent "
    told += f"at l2 radius r. Its source does not name sigma; only sigma = {SIGMA:g} reaches r = 3 with that N."
    return show.table(profile, "imagenet_published", known.map("{:g}".format), told)
