"""Everything that needs no network: tables, figures and the report of a profile from what is stored, in one process.

One after another, these programs would spend more time on starting than on what they make.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator

from tqdm import tqdm

from srs import (
    ablation_report, comparison, config, contraction, coverage, diagrams, figures, imagenet_report, report,
    settings_report, speed_report, tables,
)
from srs.config import Profile

MAIN: tuple[Callable[[Profile], object], ...] = (tables.make_tables, figures.make_figures)
MORE: tuple[Callable[[Profile], object], ...] = (
    ablation_report.make, contraction.make, speed_report.make_agreement, speed_report.make_speed,
    speed_report.make_adaptive, diagrams.make_diagrams, settings_report.make_settings, comparison.make_comparison,
    imagenet_report.make, coverage.make_coverage, report.build,
)  # fmt: skip


def remake(profile: Profile, *, brief: bool = False) -> Iterator[str]:
    """Make what stored results allow, the report last; yields the name of every step once it is done.

    Args:
        profile: whose results.
        brief: only the main tables and figures.

    Raises:
        config.ConfigError: no run of the profile is stored.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("once")  # each step looks for the same runs
        for make in MAIN if brief else MAIN + MORE:
            make(profile)
            yield f"{make.__module__.removeprefix('srs.')}.{make.__name__}"


def main(argv: list[str] | None = None) -> None:
    """Make every table and figure of a profile from stored results."""
    parser = argparse.ArgumentParser(prog="python -m srs.remake", description=main.__doc__)
    parser.add_argument("--profile", default="digits", help=config.one_of(config.PROFILES))
    parser.add_argument("--brief", action="store_true", help="only the main tables and figures")
    args = parser.parse_args(argv)
    try:
        profile = config.get_profile(args.profile)
        total = len(MAIN) if args.brief else len(MAIN + MORE)
        for name in tqdm(remake(profile, brief=args.brief), total=total, desc=f"tables {profile.name}", unit="step"):
            tqdm.write(name)
    except config.ConfigError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
