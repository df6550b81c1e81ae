"""`srs show`: all that notebooks show of a profile's stored results, without a network, in one process or a few."""

from collections.abc import Callable, Iterator

from srs import profiles, settings, store
from srs.experiments import ablations, attacks, certified_accuracy, consistency, coverage, imagenet, method, simulation
from srs.experiments import quickstart, soundness, speed, summary
from srs.smoothing import engine

FROM_COUNTS = {  # of the long table; the longest first
    "histograms": consistency.histograms, "curves": certified_accuracy.curves, "certified accuracy": certified_accuracy.tables,
    "consistency": consistency.tables, "distance to the paper": summary.paper_distance,
    "audit sizes": lambda counted, p: soundness.size_tables(simulation.audit_sizes(counted, p), p),
}  # fmt: skip
STEPS: dict[str, Callable[[settings.Profile], object]] = {
    "models": certified_accuracy.quality, "caps": soundness.caps, "attacks": attacks.shown, "diagrams": method.diagrams,
    "ablations": lambda p: ablations.shown(ablations.sweeps(ablations.read(p), p), p), "settings": method.settings_tables,
    "convergence": quickstart.stored, "speed": speed.speed, "comparison": coverage.comparison,
    "ImageNet": lambda p: imagenet.published_table(p, profiles.OF_IMAGENET), "coverage": coverage.coverage,
}  # fmt: skip
BRIEF = (*FROM_COUNTS,)[:5] + ("models", "speed")  # the main tables and figures


def remake(profile: settings.Profile, *, brief: bool = False, workers: int = 1) -> Iterator[str]:
    """Make what stored results allow, coverage last, which looks at the others' files; yields each step's name once it is done.

    Args:
        brief: only the main tables and figures.
    """
    engine.check(workers, "")
    store.read_counts(profile)  # first: if nothing is stored, say so at once
    names = BRIEF if brief else (*FROM_COUNTS, *STEPS)[:-1]
    for i, _ in engine.compute(lambda worker: make, [(name, profile) for name in names], workers=workers):
        yield names[i]
    if not brief:
        make("coverage", profile)
        yield "coverage"


def make(name: str, profile: settings.Profile) -> None:
    """Make the tables and figures of a step."""
    if name in FROM_COUNTS:
        FROM_COUNTS[name](store.read_counts(profile), profile)
    else:
        STEPS[name](profile)
