"""Everything that needs no network: tables and figures of a profile from what is stored.

As programs of their own these steps would spend more time on starting than on what they make.
"""

from collections.abc import Callable, Iterator

from srs import profiles, store
from srs.experiments import ablations, certified_accuracy, consistency, coverage, imagenet, method, simulation, soundness, speed
from srs.settings import Profile
from srs.smoothing import engine

Step = Callable[[Profile], object]


def histograms(profile: Profile) -> object:
    """Histograms of RRD, p_m and gap."""
    return consistency.histograms(store.read_counts(profile), profile)


def curves(profile: Profile) -> object:
    """Curves of certified accuracy."""
    return certified_accuracy.curves(store.read_counts(profile), profile)


def tables(profile: Profile) -> object:
    """The main tables, those of consistency and of the models."""
    counted = store.read_counts(profile)
    return certified_accuracy.quality(profile), certified_accuracy.tables(counted, profile), consistency.tables(counted, profile)


def imagenet_tables(profile: Profile) -> object:
    """ImageNet's settings and what was published of it."""
    return imagenet.tables(profile, *profiles.OF_IMAGENET)


def ablation_tables(profile: Profile) -> object:
    """Tables and figures of the ablations, from what is stored of them."""
    found = ablations.sweeps(ablations.read(profile), profile)
    return ablations.tables(found, profile), ablations.figures(found, profile)


def soundness_tables(profile: Profile) -> object:
    """What follows from formulas and from stored counts: caps, rules by image, audit sizes, exact noise."""
    counted = store.read_counts(profile)
    sizes = simulation.audit_sizes(counted, profile)
    return soundness.caps(profile), soundness.rules_by_image(counted, profile), soundness.size_tables(sizes, profile), soundness.exact_noise(profile)


MAIN: tuple[Step, ...] = (histograms, curves, tables)  # the longest first
MORE: tuple[Step, ...] = (
    soundness_tables, ablation_tables, method.diagrams, method.settings_tables, speed.agreement, speed.speed, speed.adaptive_votes,
    coverage.comparison, imagenet_tables,
)  # fmt: skip
LAST: tuple[Step, ...] = (coverage.coverage,)  # it looks at what the others made


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
    steps = MAIN if brief else MAIN + MORE
    for i, _ in engine.compute(lambda: _make, [(step, profile) for step in steps], workers=workers):
        yield steps[i].__name__
    for step in () if brief else LAST:
        step(profile)
        yield step.__name__


def _make(step: Step, profile: Profile) -> None:
    step(profile)  # what it gives stays where it was made: figures are large
