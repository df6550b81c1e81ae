"""What make needs to know: the profiles, the ids of their runs, and settings as files. Standard library only.

`python -m srs.targets runs digits` prints the ids that make uses as targets.
"""

import argparse
import dataclasses
import json

from srs import config, paths


def write_stamps(profile: config.Profile) -> None:
    """Write what a run is trained and certified with to files for make, touching only those whose content changed."""
    folder = paths.work(profile) / "settings"
    folder.mkdir(parents=True, exist_ok=True)
    for run in profile.every_run:
        settings = dataclasses.asdict(run)
        certify = settings.pop("profile")
        training = settings | {"data": certify["data"], "seed": certify["seed"]}
        sampling = {k: v for k, v in certify.items() if k not in ("models", "baselines", "sigmas", "radii", "note")}
        for kind, content in (("train", training), ("certify", sampling)):
            path, text = folder / f"{run.id}.{kind}.json", json.dumps(content, indent=1) + "\n"
            if not path.is_file() or path.read_text() != text:
                path.write_text(text)


def main() -> None:
    """Print what make needs to know of a profile."""
    parser = argparse.ArgumentParser(prog="python -m srs.targets", description=main.__doc__)
    parser.add_argument("what", choices=["profiles", "runs", "baselines", "stamps"])
    parser.add_argument("profile", nargs="?", default="digits")
    args = parser.parse_args()
    try:
        profile = config.get_profile(args.profile)
    except config.ConfigError as error:
        parser.error(str(error))
    if args.what == "profiles":
        print(*config.PROFILES)
    elif args.what == "runs":
        print(*(run.id for run in profile.every_run))
    elif args.what == "baselines":
        print(*(run.id for run in profile.explicit.runs))
    else:
        write_stamps(profile)


if __name__ == "__main__":
    main()
