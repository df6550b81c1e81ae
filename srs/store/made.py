"""What executed notebooks left on disk, so that make remakes it when it is gone. Standard library only.

`python -m srs.store.made note PROFILE NAME` is told when a notebook is done; `python -m srs.store.made lost PROFILE` prints the
executed notebooks of which a result is missing or has another size since.
"""

import argparse
import json
import re
from pathlib import Path

from srs import profiles
from srs.settings import Profile
from srs.store import paths


def wanted(profile: Profile, name: str) -> list[Path]:
    """What the executed notebook of that name must have left: a run's weights and card, or its tallies."""
    notebook, _, run_id = name.partition("-")
    run = next((run for run in profile.every_run if run.id == run_id), None)
    if run is None:
        return []
    trained, certified = [paths.weights(run), paths.card(run)], [paths.tallies(run, method) for method in run.profile.methods]
    return {"10_train": trained, "20_certify": certified}.get(notebook, [])


def left(profile: Profile, name: str) -> list[Path]:
    """The files that it left indeed, a model's anchor among them; tables and figures by the captions that it shows."""
    must = wanted(profile, name)
    found = [path for path in must + [path.with_suffix(".anchor.safetensors") for path in must] if path.is_file()]
    folder = paths.shown(profile, "any").parent
    for shown in _captioned(paths.executed(profile, name)):
        found += sorted(path for path in folder.glob(f"{shown}.*") if path.stem == shown)
    return [path for path in found if path.suffix != ".part"]


def _captioned(executed: Path) -> set[str]:
    """The names of the tables and figures under which an executed notebook, or the one being executed, shows a caption."""
    for path in (executed.with_name(executed.name + ".part.ipynb"), executed):
        if path.is_file():
            return set(re.findall(r'"\*([\w.]+)\.\* ', path.read_text()))
    return set()


def note(profile: Profile, name: str) -> None:
    """Write down the size of each."""
    path = _noted(profile, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = {str(file.relative_to(paths.root())): file.stat().st_size for file in left(profile, name)}
    path.write_text(json.dumps(sizes, indent=1) + "\n")


def lost(profile: Profile) -> list[Path]:
    """The executed notebooks of which a result is missing, or has not the size that was written down."""
    found = []
    for executed in sorted(paths.executed(profile, "any").parent.glob("*.ipynb")):
        path = _noted(profile, executed.stem)
        noted = _read(path) if path.is_file() else {}
        files = [] if noted is None else [paths.root() / file for file in noted]
        whole = noted is not None and all(file.is_file() for file in files + wanted(profile, executed.stem))
        if not whole or [file.stat().st_size for file in files] != list(noted.values()):
            found.append(executed)
    return found


def _read(path: Path) -> dict | None:
    try:
        read = json.loads(path.read_text())
    except ValueError:
        return None
    return read if isinstance(read, dict) else None


def _noted(profile: Profile, name: str) -> Path:
    return paths.work(profile) / "settings" / f"{name}.made.json"


def main() -> None:
    """Note what a notebook left, or print which notebooks have lost something."""
    parser = argparse.ArgumentParser(prog="python -m srs.store.made", description=main.__doc__)
    parser.add_argument("what", choices=["note", "lost"])
    parser.add_argument("profile")
    parser.add_argument("name", nargs="?")
    args = parser.parse_args()
    profile = profiles.get_profile(args.profile)
    if args.what == "note":
        note(profile, args.name)
    else:
        print(*(path.relative_to(paths.root()) for path in lost(profile)))


if __name__ == "__main__":
    main()
