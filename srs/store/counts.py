"""The long table of counts: a row per image and method of every certified run, from what was computed here, else shipped."""

import io
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from srs import settings
from srs.settings import ABSTAIN, Profile, Run
from srs.store import paths, results, sealed, shipped


RUN = ["model", "recipe", "sigma"]  # what names a run


def read_counts(profile: Profile) -> pd.DataFrame:
    """Every stored count of a profile's runs, in the profile's order.

    A run whose methods are all there is taken from what was computed here, else from what is shipped. Columns: model, recipe,
    sigma, method (ordered categories), reference, needs_audit, n_max (0: n was fixed), and those of `results.Tally`.

    Raises:
        ConfigError: no run is complete in either place, or counts are of other images or settings than the run's.
        paths.DamagedFile: counts are damaged.
        ValueError: the methods of a run were not evaluated on the same images.
    """
    found = {run: rows for run in profile.runs if (rows := read_run(run)) is not None}
    first = paths.tallies(profile.runs[0], profile.methods[0])
    settings.check(found != {}, "result file", str(first), "an existing file; `make` or `srs certify` makes one")
    left_out = [run.id for run in profile.runs if run not in found]
    if left_out:
        warnings.warn(f"not certified, so left out of what is shown: {', '.join(left_out)}", stacklevel=2)
    counts = pd.concat(found.values(), ignore_index=True)
    for name in ("model", "recipe"):
        counts[name] = in_order(counts[name])
    counts["sigma"] = pd.Categorical(counts["sigma"], sorted(set(counts["sigma"])), ordered=True)
    counts["method"] = pd.Categorical(counts["method"], [m.name for m in profile.methods], ordered=True)
    require_same_images(counts)
    return counts


def read_run(run: Run) -> pd.DataFrame | None:
    """The counts of one run, from what was computed here, else from what is shipped; None where not all its methods are there."""
    for place in (paths.tallies, paths.shipped_tallies):
        files = {method: place(run, method) for method in run.profile.methods}
        if all([_there(path) for path in files.values()]):
            return pd.concat([label(run, method, _read_tallies(path, run, method)) for method, path in files.items()])
    return None


def _there(path: Path) -> bool:
    aside = sealed.was_set_aside(path)
    settings.check(not aside, "result file", str(path), "it made again by `srs certify`: a damaged one was set aside")
    return sealed.present(path)


def _read_tallies(path: Path, run: Run, method: settings.Method) -> np.ndarray:
    tallies, p = results.read_tallies(path), run.profile
    enough = tallies["n"] <= p.n if p.sampling.n_max(method) else tallies["n"] == p.n
    right = np.array_equal(tallies["idx"], p.evaluated) and enough.all() and tallies["c_a"].max() < p.data.classes
    want = f"{p.images} images, every {p.stride}., with {p.n} votes for {p.data.classes} classes, as {p.name} has"
    settings.check(right, "result file", str(path), f"{want}: `srs certify` counts anew")
    return tallies


def label(run: Run, method: settings.Method, tallies) -> pd.DataFrame:
    """The counts of one method as rows of the long table."""
    rows = pd.DataFrame(tallies)
    named = {"model": run.model.name, "recipe": run.train.recipe, "sigma": run.sigma, "method": method.name,
             "reference": run.profile.reference, "needs_audit": method.serialized, "n_max": run.profile.sampling.n_max(method)}  # fmt: skip
    for i, (name, value) in enumerate(named.items()):
        rows.insert(i, name, value)
    return rows


NOT_DRAWN = ABSTAIN - 1
ATTACKED = {  # the columns of attacked images, a row per image, radius and method; classes are NOT_DRAWN where nobody was asked
    "idx": int, "label": int, "attack": str, "steps": int,
    "nfe": int,  # evaluations of f and vector-Jacobian products that the attack spent on the image
    "radius": float,  # allowed
    "distance": float,  # taken
    "base": int,  # the base classifier's answer, without noise
    "method": str,
    "n": int,  # votes by the method's own sampling; 0: only the base classifier was attacked
    "own": int,  # the most frequent class among them
    "c_a": int,  # the class that the method's stored votes select for the image before the attack
    "n_confirm": int,  # further votes of the reference method, where its first ones contradicted a certificate
    "n_c_a": int,  # of them, for c_a
    "rival": int,  # the most frequent other class among them
    "n_rival": int,  # of them, for it
}  # fmt: skip


def read_attacks(run: Run, name: str = "attacks") -> pd.DataFrame:
    """The attacked images of a run, from what was computed here, else from what is shipped; columns as in ATTACKED.

    Raises:
        ConfigError: there is no such table.
        paths.DamagedFile: it does not parse; it has been set aside.
    """
    path = shipped.measured(run, name) or paths.measured(run, name)
    settings.check(path.is_file(), "attack results", str(path), "an existing file; `make` makes one")
    return read_frame(path, ATTACKED, "table of attacked images", by="")


def save_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a table of measurements with its seal, whole or not at all."""
    sealed.save(path, frame.to_csv(index=False, lineterminator="\n").encode())


def read_frame(path: Path, columns: Mapping[str, type], what: str, *, by: str) -> pd.DataFrame:
    """A stored table of measurements; raises what `store.read` raises.

    Args:
        path: the file.
        columns: names and types of those that it must have.
        what: it is, in words.
        by: the module that makes it.
    """

    def parse(body: bytes) -> pd.DataFrame:
        unknown = {name: ["", "nan"] for name, kind in columns.items() if kind is float}  # text may be "NA"
        return pd.read_csv(io.BytesIO(body), dtype=dict(columns), na_values=unknown, keep_default_na=False)[list(columns)]

    return sealed.read(path, what, parse, by=by)


def in_order(values: Iterable) -> pd.Categorical:
    """The values as categories in the order of their first appearance: groups come out in the profile's order, not the alphabet's."""
    values = list(values)
    return pd.Categorical(values, list(dict.fromkeys(values)), ordered=True)


def require_same_images(counts: pd.DataFrame) -> None:
    """Pairwise measures compare image by image.

    Raises:
        ValueError: the methods of a run were evaluated on different images.
    """
    for run, own in counts.groupby(RUN, observed=True):
        images = {method: tuple(rows["idx"]) for method, rows in own.groupby("method", observed=True)}
        if len(set(images.values())) > 1:
            raise ValueError(f"the counts of {run} are of different images per method: certify its methods again")
