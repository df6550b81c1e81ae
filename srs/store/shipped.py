"""What the repository brings along: trained weights in data/zoo, tallies of our own certified runs in data/results.

What was computed here comes first; what is shipped stands in for it. `srs ship --profile cifar10` puts the finished runs of a
profile there.
"""

from dataclasses import fields, is_dataclass
from pathlib import Path

from srs import settings
from srs.settings import Profile, Run
from srs.store import paths, sealed


def recipe_key(run: Run) -> str:
    """What a shipped model must have been made with to stand in for training the run."""
    return settings.fingerprint(_told(run.profile.data), _told(run.model), _told(run.train), run.sigma, run.profile.seed)


def _told(record: object) -> dict:
    """The fields that differ from their default: a setting that is added later leaves the key of older models alone."""
    values = {f.name: (getattr(record, f.name), f.default) for f in fields(record)}
    return {k: _told(v) if is_dataclass(v) else v for k, (v, default) in values.items() if v != default}


def card(run: Run) -> dict:
    """The model card of a run: its own, or the shipped one; empty if there is neither."""
    for path in (paths.card(run), paths.zoo(paths.card(run), run)):
        if sealed.present(path):
            return sealed.read_json(path, "model card", by="train")
    return {}


def measured(run: Run, name: str) -> Path | None:
    """The table of what was measured of a run, here or by us and shipped; None if there is neither."""
    return next((path for path in (paths.measured(run, name), paths.shipped_measured(run, name)) if sealed.present(path)), None)


def ship(profile: Profile) -> list[Path]:
    """Put weights, cards, tallies and provenance of the profile's finished runs where they are tracked; what was put."""
    put = []
    first = [run.first for run in profile.every_run if run.first]
    for run in dict.fromkeys((*profile.every_run, *first)):
        own = card(run) if sealed.present(paths.card(run)) else {"shipped": True}
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
    sealed.write_changed(target, source.read_bytes())
    return target
