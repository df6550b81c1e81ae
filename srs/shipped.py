"""What the repository brings along: trained weights in data/zoo, tallies of our own certified runs in data/results.

What was computed here comes first; what is shipped stands in for it. `python -m srs.shipped --profile cifar10` puts
the finished runs of a profile there.
"""

import warnings
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np

from srs import config, metrics, paths, results, shown, store
from srs.config import Profile, Run

Tallies = dict[tuple[str, str], np.ndarray]  # keyed (run.id, method.name)


def recipe_key(run: Run) -> str:
    """What a shipped model must have been made with to stand in for training the run."""
    return config.fingerprint(_told(run.profile.data), _told(run.model), _told(run.train), run.sigma, run.profile.seed)


def _told(record: object) -> dict:
    """The fields that differ from their default: a setting that is added later leaves the key of older models alone."""
    values = {f.name: (getattr(record, f.name), f.default) for f in fields(record)}
    return {k: _told(v) if is_dataclass(v) else v for k, (v, default) in values.items() if v != default}


def card(run: Run) -> dict:
    """The model card of a run: its own, or the shipped one; empty if there is neither."""
    for path in (paths.card(run), paths.zoo(paths.card(run), run)):
        if store.present(path):
            return store.read_json(path, "model card", by="srs.train")
    return {}


def take_from_zoo(run: Run) -> bool:
    """Copy a run's shipped weights, anchor and card to where training puts them; False if none of its recipe is there.

    Raises:
        paths.DamagedFile: what is shipped is damaged, or a pointer of Git LFS; nothing was copied.
    """
    from srs import models  # torch, which tables do without

    shelf = paths.zoo(paths.card(run), run)
    told = store.read_json(shelf, "model card", by="srs.train") if store.present(shelf) else {}
    if told.get("recipe_key") != recipe_key(run):
        return False
    files = {"weights": paths.weights(run), "anchor": paths.anchor(run)}
    taken = {}
    for name, path in files.items():
        if name == "weights" or store.present(paths.zoo(path, run)):
            taken[path] = models.read_tensors(paths.zoo(path, run), name)
            if models.digest_of(taken[path]) != told.get(name, models.digest_of(taken[path])):
                raise store.damaged(paths.zoo(path, run), name, "srs.train")
    for path, tensors in taken.items():
        models.save_tensors(tensors, path)
    store.write_json(paths.card(run), told | {"shipped": True})
    return True


def load(profile: Profile) -> Tallies:
    """The stored tallies of every run of a profile that is certified, here or in what is shipped.

    A run whose methods are all there is taken from what was computed here, else from what is shipped.

    Raises:
        config.ConfigError: no run is complete in either place, or tallies are of other images or settings than the run's.
        paths.DamagedFile: a tally is damaged.
        ValueError: the methods of a run were not evaluated on the same images.
    """
    tallies = {}
    for run in profile.runs:
        for place in (paths.tallies, paths.shipped_tallies):
            files = {(run.id, method.name): place(run, method) for method in run.profile.methods}
            if all([_there(path) for path in files.values()]):
                tallies |= {key: _read_tallies(path, run) for key, path in files.items()}
                break
    first = paths.tallies(profile.runs[0], profile.methods[0])
    config.check(tallies != {}, "result file", str(first), "an existing file; `make` or `python -m srs.certify` makes one")
    left_out = [run.id for run in profile.runs if (run.id, profile.reference) not in tallies]
    if left_out:
        warnings.warn(f"not certified, so left out of what is shown: {', '.join(left_out)}", stacklevel=2)
    for (run_id, _), one in tallies.items():
        metrics.require_same_images(tallies[run_id, profile.reference], one)
    return tallies


def _there(path: Path) -> bool:
    aside = store.was_set_aside(path)
    config.check(not aside, "result file", str(path), "it made again by `python -m srs.certify`: a damaged one was set aside")
    return store.present(path)


def _read_tallies(path: Path, run: Run) -> np.ndarray:
    tallies, p = results.read_tallies(path), run.profile
    right = np.array_equal(tallies["idx"], p.evaluated) and set(tallies["n"]) == {p.n} and tallies["c_a"].max() < p.data.classes
    want = f"{p.images} images, every {p.stride}., with {p.n} votes for {p.data.classes} classes, as {p.name} has"
    config.check(right, "result file", str(path), f"{want}: `python -m srs.certify` counts anew")
    return tallies


def measured(run: Run, name: str) -> Path | None:
    """The table of what was measured of a run, here or by us and shipped; None if there is neither."""
    return next((path for path in (paths.measured(run, name), paths.shipped_measured(run, name)) if store.present(path)), None)


def certified(profile: Profile, tallies: Tallies) -> tuple[Run, ...]:
    """The runs that tables and figures can show."""
    return tuple(run for run in profile.runs if (run.id, profile.reference) in tallies)


def ship(profile: Profile) -> list[Path]:
    """Put weights, cards, tallies and provenance of the profile's finished runs where they are tracked; what was put."""
    put = []
    first = [run.first for run in profile.every_run if run.first]
    for run in dict.fromkeys((*profile.every_run, *first)):
        own = card(run) if store.present(paths.card(run)) else {"shipped": True}
        if not own.get("shipped"):
            for path in (paths.weights(run), paths.anchor(run), paths.card(run)):
                put += [_copy(path, paths.zoo(path, run))] if path.is_file() else []
        for path in sorted(p for p in paths.measured(run, "any").parent.glob("*") if p.suffix in (".csv", ".json")):
            put.append(_copy(path, paths.shipped_measured(run, "any").with_name(path.name)))
        tallies = [paths.tallies(run, method) for method in run.profile.methods]
        if all(path.is_file() for path in tallies):
            for path, method in zip(tallies, run.profile.methods):
                put.append(_copy(path, paths.shipped_tallies(run, method)))
                put.append(_copy(paths.provenance(path), paths.provenance(put[-1])))
    return put


def _copy(source: Path, target: Path) -> Path:
    store.write_changed(target, source.read_bytes())
    return target


if __name__ == "__main__":
    for path in ship(shown.profile_argument("python -m srs.shipped", "Track the finished runs of a profile.")):
        print(path)
