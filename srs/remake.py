"""Everything that needs no network: tables, figures and the report of a profile from what is stored, by two processes.

As programs of their own these steps would spend more time on starting than on what they make.
"""

import argparse
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from tqdm import tqdm

from srs import comparison, config, coverage, diagrams, figures, imagenet_report, report, settings_report, speed_report, tables
from srs.config import Profile
from srs.experiments import ablations

Step = Callable[[Profile], object]


def curves(profile: Profile) -> object:
    """Draw and save the curves of certified accuracy."""
    return figures.make_curves(profile, tables.load(profile))


def histograms(profile: Profile) -> object:
    """Draw and save the histograms of RRD, p_m and gap."""
    return figures.make_histograms(profile, tables.load(profile))


def ablate(profile: Profile) -> object:
    """Show what the ablations have counts of."""
    found = ablations.sweeps(ablations.read(profile), profile)
    return ablations.tables(found, profile), ablations.figures(found, profile)


MAIN: tuple[Step, ...] = (histograms, curves, tables.make_tables)  # the longest first
MORE: tuple[Step, ...] = (
    ablate, diagrams.make_diagrams, settings_report.make_settings, speed_report.make_agreement,
    speed_report.make_speed, speed_report.make_adaptive, comparison.make_comparison, imagenet_report.make,
)  # fmt: skip
LAST: tuple[Step, ...] = (coverage.make_coverage, report.build)  # they look at what the others made


def remake(profile: Profile, *, brief: bool = False, processes: int = 2) -> Iterator[str]:
    """Make what stored results allow, coverage and the report last; yields the name of every step once it is done.

    Args:
        profile: whose results.
        brief: only the main tables and figures.
        processes: that share the steps.

    Raises:
        config.ConfigError: no run of the profile is stored, or less than one process.
    """
    config.check(processes >= 1, "processes", processes, "at least 1")
    tables.load(profile)  # first: if nothing is stored, say so at once
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        begun = {pool.submit(step, profile): step for step in (MAIN if brief else MAIN + MORE)}
        for done in as_completed(begun):
            done.result()
            yield _name(begun[done])
    for step in () if brief else LAST:
        step(profile)
        yield _name(step)


def _name(step: Step) -> str:
    return f"{step.__module__.removeprefix('srs.')}.{step.__name__}"


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
