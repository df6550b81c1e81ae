"""Every table that follows from stored counts is what it was: of `cifar10` from the tracked ones, of `smoke` from made-up ones.

`python -m tests.test_golden` writes tests/golden/ anew, for a change that is meant to change tables; read its diff.
"""

import functools
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from tests import synthetic
from tests.helpers import at_sigmas

from srs import profiles, sealed, store
from srs.analysis import measures, plots, show
from srs.experiments import explicit, remake, simulation, soundness, white_box
from srs.settings import Profile

GOLDEN = Path(__file__).resolve().parent / "golden"
SMOKE = replace(  # large enough to tell mistakes apart; sixteenths show how percentages are rounded
    at_sigmas(profiles.PROFILES["smoke"], 0.25, 0.5), images=16, n=400,
    methods=profiles.paper_methods(batch=100, chains=20, warmup=10, audit=100),
    attacks=replace(profiles.PROFILES["smoke"].attacks, runs=(("SMALL", 0.5),)),
)  # fmt: skip
PROFILES = {"cifar10": profiles.PROFILES["cifar10"], "smoke": SMOKE}


def certificates(profile: Profile) -> pd.DataFrame:
    """A line per run, method, rule and image: what curves are drawn from, and RRD, p_m and gap of the histograms."""
    made, keys = measures.certificates(store.read_counts(profile), alpha=profile.alpha), [*measures.ROW, "idx"]
    made = made.merge(measures.rrd(made)[[*keys, "rrd"]].rename(columns={"rrd": "RRD"}), on=keys, how="left")
    made = made.assign(p_m=measures.p_m(made), gap=measures.gap(made, profile.alpha))
    made = made.sort_values(keys, kind="stable", ignore_index=True)
    made.loc[~made["needs_audit"], ["p_m", "gap"]] = np.nan
    text = {name: made[name].map(lambda value: show.round_half_up(value, 5)) for name in ("radius", "RRD", "p_m", "gap")}
    made = made.assign(**text, sigma=made["sigma"].map("{:.2f}".format), correct=made["correct"].astype(int)).astype(str)
    return made[[*keys, "predict", "radius", "correct", "RRD", "p_m", "gap"]]


@contextmanager
def root_of(profile: Profile) -> Iterator[None]:
    """A new SRS_ROOT that holds a profile's counts; figures are not drawn."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "not certified|nothing is stored")
        patch.setenv("SRS_ROOT", folder)
        patch.delenv("SRS_DATA", raising=False)
        patch.setattr(store, "read_run", functools.cache(store.read_run))  # every table asks for the same counts
        patch.setattr(show, "figure", lambda profile, name, *_: sealed.write(store.shown(profile, f"{name}.pdf"), b""))
        undrawn = Figure()
        undrawn.subplots()
        for draw in ("grid", "accuracy_curves", "histograms"):
            patch.setattr(plots, draw, lambda *_, **__: undrawn)
        if profile.name == "smoke":
            synthetic.write_everything(profile)
        else:
            (Path(folder) / "data").mkdir()
            for tracked in ("results", "zoo"):
                (Path(folder) / "data" / tracked).symlink_to(GOLDEN.parents[1] / "data" / tracked)
        yield


@functools.cache
def made(name: str) -> dict[str, pd.DataFrame]:
    """Every table of a profile by name, made now, as text."""
    profile = PROFILES[name]
    with root_of(profile):
        for step in (*remake.FROM_COUNTS, *remake.STEPS):
            remake.make(step, profile)
        if name == "smoke":  # of these nothing is stored of cifar10, or they take long
            explicit.shown(explicit.read(profile), profile)
            soundness.rates(simulation.measure(certificates=100), profile)
            white_box.shown(white_box.read(profile.runs[0]), profile.runs[0])
        return read(store.shown(profile, "x").parent) | {"certificates": certificates(profile)}


def read(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables in a folder by name, their cells as text."""
    return {path.stem: pd.read_csv(path, dtype=str, keep_default_na=False) for path in folder.glob("*.csv")}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_table_is_what_it_was(profile):
    golden = read(GOLDEN / profile)
    assert set(made(profile)) == set(golden), "a table is new, or no longer made"
    for name, want in golden.items():
        got = made(profile)[name]
        assert (list(want), len(want)) == (list(got), len(got)), f"{name} has other columns or rows"
        differ = want.compare(got.reset_index(drop=True), result_names=("want", "got"))
        assert differ.empty, f"{name}:\n{differ.to_string()}"


if __name__ == "__main__":
    for profile in PROFILES:
        for name, frame in made(profile).items():
            sealed.write(GOLDEN / profile / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n").encode())
