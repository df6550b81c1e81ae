"""What the reader sees on disk: files that appear whole or not at all, each with a sidecar that says what it shows.

The sidecar `<name>.json` (kind, caption, what made it) is written last, so the report, which lists sidecars, never
shows half an artefact. Nothing written here holds a date: the same votes give the same bytes.
"""

import argparse
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from srs import profiles, settings
from srs.settings import Profile
from srs.store.sealed import paths, sealed, write as write_whole


@dataclass(frozen=True)
class About:
    """What a table or figure is: its kind, its caption in plain text, the notebook that makes it."""

    kind: str  # "table" or "figure"
    caption: str
    made_by: str


def beside(stem: Path, ending: str) -> Path:
    """The file `stem` + ending; with_suffix would cut the sigma off `..._s0.50`."""
    return stem.with_name(stem.name + ending)


def marked(stem: Path, caption: str) -> str:
    """The caption, opened by the note of the profile in whose folder the artefact lies, where it has one."""
    profile = profiles.PROFILES.get(stem.parent.name)
    return f"{profile.note} {caption}" if profile and not caption.startswith(profile.note) else caption


def describe(stem: Path, about: About) -> None:
    """Write the sidecar: the artefact is complete."""
    sealed.write_json(beside(stem, ".json"), asdict(about))


def listed(folder: Path) -> dict[str, About]:
    """Every described artefact of a folder by name, in the order of the notebooks, tables before figures.

    Raises:
        paths.DamagedFile: a sidecar that cannot be read.
    """
    found = {path.name.removesuffix(".json"): _about(path) for path in folder.glob("*.json")}
    order = {"table": 0, "figure": 1}
    return dict(sorted(found.items(), key=lambda item: (item[1].made_by, order[item[1].kind], item[0])))


def _about(path: Path) -> About:
    told = sealed.read_json(path, "sidecar", by="srs.remake")
    if set(told) != {f.name for f in fields(About)}:
        raise sealed.damaged(path, "sidecar", "srs.remake")
    return About(**told)


def _say(kind: type[BaseException], error: BaseException, trace) -> None:
    """End a program on a refusal in one sentence; other errors with their traceback."""
    refused = issubclass(kind, (settings.ConfigError, paths.DamagedFile))
    print(error, file=sys.stderr) if refused else sys.__excepthook__(kind, error, trace)


def profile_argument(prog: str, what: str) -> Profile:
    """The profile that a command line names with --profile; an unknown one ends the program in one sentence."""
    parser = argparse.ArgumentParser(prog=prog, description=what)
    parser.add_argument("--profile", default="digits", help="name of the profile (default: %(default)s)")
    sys.excepthook = _say
    try:
        return profiles.get_profile(parser.parse_args().profile)
    except settings.ConfigError as error:
        parser.error(str(error))
