"""Everything that needs no network: tables and figures of a profile from what is stored, by two processes.

As programs of their own these steps would spend more time on starting than on what they make.
"""

import argparse
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from tqdm import tqdm

from srs import ablation_report, config, counts
from srs.config import Profile
from srs.experiments import certified_accuracy, consistency, coverage, imagenet, method, speed

Step = Callable[[Profile], object]


def histograms(profile: Profile) -> object:
    """Histograms of RRD, p_m and gap."""
    return consistency.histograms(counts.read_counts(profile), profile)


def curves(profile: Profile) -> object:
    """Curves of certified accuracy."""
    return certified_accuracy.curves(counts.read_counts(profile), profile)


def tables(profile: Profile) -> object:
    """The main tables, those of consistency and of the models."""
    counted = counts.read_counts(profile)
    return certified_accuracy.quality(profile), certified_accuracy.tables(counted, profile), consistency.tables(counted, profile)


def imagenet_tables(profile: Profile) -> object:
    """ImageNet's settings and what was published of it."""
    return imagenet.tables(profile, config.get_profile("imagenet"), config.get_profile("imagenet_sample"))


MAIN: tuple[Step, ...] = (histograms, curves, tables)  # the longest first
MORE: tuple[Step, ...] = (
    ablation_report.make, method.diagrams, method.settings, speed.agreement, speed.speed, speed.adaptive_votes, coverage.comparison,
    imagenet_tables,
)  # fmt: skip
LAST: tuple[Step, ...] = (coverage.coverage,)  # it looks at what the others made


def remake(profile: Profile, *, brief: bool = False, processes: int = 2) -> Iterator[str]:
    """Make what stored results allow, coverage last; yields the name of every step once it is done.

    Args:
        profile: whose results.
        brief: only the main tables and figures.
        processes: that share the steps.

    Raises:
        config.ConfigError: no run of the profile is stored, or less than one process.
    """
    config.check(processes >= 1, "processes", processes, "at least 1")
    counts.read_counts(profile)  # first: if nothing is stored, say so at once
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        begun = {pool.submit(step, profile): step for step in (MAIN if brief else MAIN + MORE)}
        for done in as_completed(begun):
            done.result()
            yield begun[done].__name__
    for step in () if brief else LAST:
        step(profile)
        yield step.__name__


def main(argv: list[str] | None = None) -> None:
    """Make every table and figure of a profile from stored results."""
    parser = argparse.ArgumentParser(prog="python -m srs.remake", description=main.__doc__)
    parser.add_argument("--profile", default="digits", help=config.one_of(config.PROFILES))
    parser.add_argument("--brief", action="store_true", help="only the main tables and figures")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args(argv)
    try:
        profile = config.get_profile(args.profile)
        steps = remake(profile, brief=args.brief, processes=args.processes)
        for name in tqdm(steps, total=len(MAIN if args.brief else MAIN + MORE + LAST), desc=f"tables {profile.name}", unit="step"):
            tqdm.write(name)
    except config.ConfigError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
