"""Everything that needs no network: tables and figures of a profile from what is stored.

As programs of their own these steps would spend more time on starting than on what they make.
"""

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd

from srs import profiles, store
from srs.experiments import ablations, certified_accuracy, consistency, coverage, imagenet, method, simulation, soundness, speed
from srs.experiments import summary
from srs.settings import Profile
from srs.smoothing import engine

Step = Callable[[Profile], object]


def from_counts(make: Callable[[pd.DataFrame, Profile], object], profile: Profile) -> object:
    """What a function makes of a profile's long table of counts."""
    return make(store.read_counts(profile), profile)


def audit_sizes(counted: pd.DataFrame, profile: Profile) -> object:
    """Tables and figures of audits of another size."""
    return soundness.size_tables(simulation.audit_sizes(counted, profile), profile)


def ablation_tables(profile: Profile) -> object:
    """Tables and figures of the ablations, from what is stored of them."""
    found = ablations.sweeps(ablations.read(profile), profile)
    return ablations.tables(found, profile), ablations.figures(found, profile)


def imagenet_table(profile: Profile) -> object:
    """What was published of ImageNet."""
    return imagenet.published_table(profile, profiles.OF_IMAGENET[0])


MAIN: dict[str, Step] = {  # the longest first
    "histograms": partial(from_counts, consistency.histograms),
    "curves": partial(from_counts, certified_accuracy.curves),
    "certified accuracy": partial(from_counts, certified_accuracy.tables),
    "consistency": partial(from_counts, consistency.tables),
    "distance to the paper": partial(from_counts, summary.paper_distance),
    "kept against speed": partial(from_counts, summary.kept_against_speed),
    "models": certified_accuracy.quality,
}
MORE: dict[str, Step] = {
    "audit sizes": partial(from_counts, audit_sizes), "rules by image": partial(from_counts, soundness.rules_by_image),
    "caps": soundness.caps, "exact noise": soundness.exact_noise, "ablations": ablation_tables, "diagrams": method.diagrams,
    "settings": method.settings_tables, "agreement": speed.agreement, "speed": speed.speed,
    "adaptive votes": speed.adaptive_votes, "comparison": coverage.comparison, "ImageNet": imagenet_table,
}  # fmt: skip
LAST: dict[str, Step] = {"coverage": coverage.coverage}  # it looks at what the others made


def remake(profile: Profile, *, brief: bool = False, workers: int = 1) -> Iterator[str]:
    """Make what stored results allow, coverage last; yields the name of every step once it is done.

    Args:
        profile: whose results.
        brief: only the main tables and figures.
        workers: processes that share the steps.

    Raises:
        ConfigError: no run of the profile is stored, or less than one process.
    """
    engine.check(workers, "")
    store.read_counts(profile)  # first: if nothing is stored, say so at once
    steps = MAIN if brief else MORE | MAIN
    names = list(steps)
    for i, _ in engine.compute(lambda: _make, [(steps[name], profile) for name in names], workers=workers):
        yield names[i]
    for name, step in ({} if brief else LAST).items():
        step(profile)
        yield name


def _make(step: Step, profile: Profile) -> None:
    step(profile)  # what it gives stays where it was made: figures are large
