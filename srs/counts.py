"""The long tables of what is stored, computed here or else shipped: counts, a row per image and method, and attacked images."""

import warnings

import pandas as pd

from srs import config, paths, results, shipped
from srs.analysis import measures
from srs.bounds import ABSTAIN
from srs.config import Profile, Run


def read_counts(profile: Profile) -> pd.DataFrame:
    """Every stored count of a profile's runs, in the profile's order.

    A run whose methods are all there is taken from what was computed here, else from what is shipped. Columns: model, recipe,
    sigma, method (ordered categories), reference, needs_audit, and those of `results.Tally`.

    Raises:
        config.ConfigError: no run is complete in either place.
        ValueError: the methods of a run were not evaluated on the same images.
    """
    found = {run: rows for run in profile.runs if (rows := _run_counts(run)) is not None}
    first = paths.tallies(profile.runs[0], profile.methods[0])
    config.check(found != {}, "result file", str(first), "an existing file; `make` or `python -m srs.certify` makes one")
    left_out = [run.id for run in profile.runs if run not in found]
    if left_out:
        warnings.warn(f"not certified, so left out of what is shown: {', '.join(left_out)}", stacklevel=2)
    counts = pd.concat(found.values(), ignore_index=True)
    for name in ("model", "recipe"):
        counts[name] = measures.in_order(counts[name])
    counts["sigma"] = pd.Categorical(counts["sigma"], sorted(set(counts["sigma"])), ordered=True)
    counts["method"] = pd.Categorical(counts["method"], [m.name for m in profile.methods], ordered=True)
    measures.require_same_images(counts)
    return counts


def _run_counts(run: Run) -> pd.DataFrame | None:
    for place in (paths.tallies, paths.shipped_tallies):
        files = {method: place(run, method) for method in run.profile.methods}
        if all(path.is_file() for path in files.values()):
            return pd.concat(map(lambda method: label(run, method, results.read_tallies(files[method])), files))
    return None


def label(run: Run, method: config.Method, tallies) -> pd.DataFrame:
    """The counts of one method as rows of the long table."""
    rows = pd.DataFrame(tallies)
    named = {"model": run.model.name, "recipe": run.train.recipe, "sigma": run.sigma, "method": method.name,
             "reference": run.profile.reference, "needs_audit": method.serialized}  # fmt: skip
    for i, (name, value) in enumerate(named.items()):
        rows.insert(i, name, value)
    return rows


NOT_DRAWN = ABSTAIN - 1
ATTACKED = {  # the columns of attacked images, a row per image, radius and method; classes are NOT_DRAWN where nobody was asked
    "idx": int, "label": int, "attack": str, "steps": int,
    "nfe": int,  # evaluations of f and vector-Jacobian products of this attack on the image, taken alone
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
        config.ConfigError: there is no such table.
        paths.DamagedFile: it does not parse; it has been set aside.
    """
    path = shipped.measured(run, name) or paths.measured(run, name)
    config.check(path.is_file(), "attack results", str(path), "an existing file; `make` makes one")
    try:
        return pd.read_csv(path, dtype=ATTACKED, keep_default_na=False)[list(ATTACKED)]
    except (ValueError, KeyError):
        raise paths.set_aside(path, "an attacked image per line") from None
