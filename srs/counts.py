"""The long table of counts: a row per image and method of every certified run, from what was computed here, else shipped."""

import warnings

import pandas as pd

from srs import config, paths, results
from srs.analysis import measures
from srs.config import Profile, Run


def read_counts(profile: Profile) -> pd.DataFrame:
    """Every stored count of a profile's runs, in the profile's order.

    A run whose methods are all there is taken from what was computed here, else from what is shipped. Columns: model, recipe,
    sigma, method (ordered categories), reference, needs_audit, and those of `results.Tally`.

    Raises:
        config.ConfigError: no run is complete in either place.
        ValueError: the methods of a run were not evaluated on the same images.
    """
    found = {run: rows for run in profile.runs if (rows := read_run(run)) is not None}
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


def read_run(run: Run) -> pd.DataFrame | None:
    """The counts of one run, from what was computed here, else from what is shipped; None where not all its methods are there."""
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
