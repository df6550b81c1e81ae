"""Where each artefact lies; one function per kind. Nothing here opens a file."""

import os
from pathlib import Path

from srs.profiles import environment
from srs.settings import Method, Profile, Run


class DamagedFile(RuntimeError):
    """The content of a file is wrong; a file of the work folder was renamed, so that nothing overwrites it."""


def root() -> Path:
    """The folder that holds data/ and figures/: SRS_ROOT, or the checkout this package lies in."""
    return Path(environment("SRS_ROOT") or Path(__file__).resolve().parents[2])


def work(profile: Profile) -> Path:
    """What a profile computes, none of it tracked."""
    return root() / "data" / profile.name


def weights(run: Run) -> Path:
    """Trained weights."""
    return work(run.profile) / "models" / f"{run.id}.safetensors"


def card(run: Run) -> Path:
    """The model card beside the weights: recipe, time, quality."""
    return weights(run).with_suffix(".json")


def anchor(run: Run) -> Path:
    """The model's mean solution over noisy training images: what the start `anchor` begins with."""
    return weights(run).with_suffix(".anchor.safetensors")


def zoo(path: Path, run: Run) -> Path:
    """Where the shipped copy of a run's weights, anchor or card lies."""
    return root() / "data" / "zoo" / run.profile.data.name / path.name


def checkpoint(run: Run) -> Path:
    """Where an unfinished training goes on."""
    return work(run.profile) / "models" / f"{run.id}.checkpoint"


def votes(run: Run, method: Method, key: str) -> Path:
    """The folder of one method's votes, a file per image; `key` changes with anything they depend on."""
    return work(run.profile) / "votes" / run.id / f"{method.name}-{key}"


def seen(run: Run, key: str) -> Path:
    """The digests of a run's evaluated images, as they were when they were last certified."""
    return work(run.profile) / "votes" / run.id / f"images-{key}.json"


def tallies(run: Run, method: Method) -> Path:
    """The integer counts of every certified image: what all tables and figures are made from."""
    return work(run.profile) / "tallies" / run.id / f"{method.name}.tsv"


def shipped_tallies(run: Run, method: Method) -> Path:
    """The tallies of our own certified run, tracked."""
    return root() / "data" / "results" / run.profile.name / run.id / f"{method.name}.tsv"


def shipped_measured(run: Run, name: str) -> Path:
    """The same of our own run, tracked."""
    return root() / "data" / "results" / run.profile.name / run.id / f"{name}.csv"


def timings(run: Run) -> Path:
    """Seconds per vote of ours and of the released code's ways, tracked."""
    return shipped_measured(run, "bench")


def provenance(path: Path) -> Path:
    """What made a tally file, beside it."""
    return path.with_suffix(".json")


def measured(run: Run, name: str) -> Path:
    """A table of what was measured of a trained run besides its certificates."""
    return work(run.profile) / _scratch("measured") / run.id / f"{name}.csv"


def rows(run: Run, method: Method, rule: str) -> Path:
    """Certificates under one rule, in the columns of Cohen et al.'s logs."""
    return work(run.profile) / "rows" / run.id / f"{method.name}.{rule}.tsv"


def shown(profile: Profile, name: str) -> Path:
    """A table or figure that the reader sees, without its ending."""
    return root() / _scratch("figures") / profile.name / name


def _scratch(folder: str) -> Path:
    """Apart from the results for a notebook that was given other parameters by hand, as `read_parameters` found."""
    return Path(folder, "scratch") if os.environ.get("SRS_SCRATCH") else Path(folder)


def published(name: str) -> Path:
    """Numbers that others published, tracked."""
    return Path(__file__).resolve().parents[2] / "data" / "published" / f"{name}.csv"


def executed(profile: Profile, name: str) -> Path:
    """An executed notebook."""
    return work(profile) / "notebooks" / f"{name}.ipynb"


def images(name: str, split: str) -> Path:
    """An image folder that the user brought: SRS_DATA/<data set>/<split>/<class>/*."""
    return _brought() / name / split


def golden(name: str) -> Path:
    """A result of others that the user brought: SRS_DATA/golden/<file>."""
    return _brought() / "golden" / name


def _brought() -> Path:
    return Path(environment("SRS_DATA") or root() / "data" / "raw")


def packed(name: str, part: str, key: str) -> Path:
    """Decoded images of a folder that the user brought."""
    return root() / "data" / "packed" / f"{name}-{part}-{key}.npz"

