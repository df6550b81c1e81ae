"""Every table that follows from stored counts is what it was: of `cifar10` from the tracked ones, of `smoke` from made-up ones.

`python -m tests.test_golden` writes tests/golden/ anew, for a change that is meant to change tables; read its diff.
"""

from dataclasses import replace
import functools
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests import synthetic

from srs import (
    ablation_report, attack_report, comparison, contraction, coverage, diagrams, exact_report, explicit_report, figures,
    imagenet_report, metrics, profiles, remake, settings_report, shown, soundness_report, speed_report, tables,
    white_box_report,
)  # fmt: skip
from srs.settings import Profile
from srs.smoothing import bounds
from srs.store import paths

HOME = Path(__file__).resolve().parent
GOLDEN = HOME / "golden"
SMOKE = replace(  # large enough to tell mistakes apart; sixteenths show how percentages are rounded
    profiles.PROFILES["smoke"], images=16, n=400, sigmas=(0.25, 0.5),
    methods=profiles.paper_methods(batch=100, chains=20, warmup=10, audit=100),
)  # fmt: skip
PROFILES = {"cifar10": profiles.PROFILES["cifar10"], "smoke": SMOKE}
ANEW = ("exact_noise",)  # its seconds are measured whenever it is made

MAKERS: tuple[Callable[[Profile], object], ...] = (
    tables.make_tables, remake.curves, remake.histograms, ablation_report.make, contraction.make, diagrams.make_diagrams,
    settings_report.make_settings, speed_report.make_agreement, speed_report.make_speed, speed_report.make_adaptive,
    imagenet_report.make, explicit_report.make, soundness_report.make_caps, exact_report.make_exact_noise,
    lambda p: soundness_report.make_rules_by_image(p, tables.load(p)),
    lambda p: soundness_report.make_audit_size(p, tables.load(p)),
    comparison.make_comparison,
)  # fmt: skip
SMOKE_ONLY = (  # of cifar10 nothing of the kind is stored, or it takes long
    attack_report.make_attacks, lambda p: white_box_report.make_white_box(p.runs[0]),
    lambda p: soundness_report.make_failure_rates(p, 100),
)  # fmt: skip


def certificates(profile: Profile) -> pd.DataFrame:
    """A line per run, method, rule and image: what curves are drawn from, and RRD, p_m and gap of the histograms."""
    known, frames = tables.load(profile), []
    for run in tables.certified(profile, known):
        standard = tables.certify(run, run.profile.method(profile.reference), known, bounds.Rule.COHEN)
        for method in run.profile.methods:
            own = known[run.id, method.name]
            for rule in bounds.rules_for(method.serialized):
                made = tables.certify(run, method, known, rule)
                srs = dict.fromkeys(("RRD", "p_m", "gap"), np.full(len(own), np.nan))
                if method.serialized:
                    srs = {"RRD": srs["RRD"].copy(), "p_m": metrics.p_m(own), "gap": metrics.gap(own, profile.alpha)}
                    srs["RRD"][standard.radius > 0] = metrics.relative_radius_difference(standard, made)
                named = tables.identity(run) | {"method": method.name, "rule": rule.value, "idx": own["idx"]}
                right = {"correct": metrics.correct(made, own["label"]).astype(int)}
                frames.append(pd.DataFrame(named | made._asdict() | right | srs))
    return pd.concat(frames, ignore_index=True)


@contextmanager
def root_of(profile: Profile) -> Iterator[None]:
    """A new SRS_ROOT that holds a profile's counts and nothing else; figures are listed there, not drawn."""

    def list_only(fig, stem, *, caption, made_by):
        shown.describe(stem, shown.About("figure", caption, made_by))

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "not certified|no counts are stored|not measured")
        patch.setenv("SRS_ROOT", folder)
        patch.delenv("SRS_DATA", raising=False)
        patch.setattr(figures, "save", list_only)
        if profile.name == "smoke":
            synthetic.write_everything(profile)
        else:
            (Path(folder) / "data").mkdir()
            for tracked in ("results", "zoo"):
                (Path(folder) / "data" / tracked).symlink_to(HOME.parent / "data" / tracked)
        yield


@functools.cache
def made(name: str) -> dict[str, pd.DataFrame]:
    """Every table of a profile by name, made now, as text."""
    profile = PROFILES[name]
    with root_of(profile):
        for make in (*MAKERS, *(SMOKE_ONLY if name == "smoke" else ()), coverage.make_coverage):
            make(profile)
        found = {path.name.removesuffix(".csv"): path for path in paths.shown(profile, "x").parent.glob("*.csv")}
        frames = {stem: read(path) for stem, path in found.items()}
        frames["certificates"] = certificates(profile).map(_text)
    return {stem: f[[c for c in f if stem not in ANEW or "seconds" not in c]] for stem, f in frames.items()}


def _text(value: object) -> str:
    return tables.number(value, 5) if isinstance(value, float) else str(value)


def read(path: Path) -> pd.DataFrame:
    """A table's cells as text."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]\d+)?")


def same(want: str, got: str) -> bool:
    """Whether a cell has the same text and its numbers are equal, or round to the wanted ones where more digits are given."""
    if NUMBER.split(want) != NUMBER.split(got):
        return False
    return all(w == g or abs(float(w) - float(g)) < _slack(w, g) for w, g in zip(NUMBER.findall(want), NUMBER.findall(got)))


def _slack(want: str, got: str) -> float:
    """A unit of the last printed digit if the other number has more of them (rounded down or half up), else nothing."""
    digits = [len(number.partition("e")[0].partition(".")[2]) for number in (want, got)]
    exponent = int(want.partition("e")[2] or 0)
    return 10.0 ** (exponent - digits[0]) if digits[1] > digits[0] else 1e-12


def differences(want: pd.DataFrame, got: pd.DataFrame) -> list[str]:
    """A sentence per cell that differs; of the shape first, since without it cells cannot be compared."""
    if list(want) != list(got) or len(want) != len(got):
        lost, new = [c for c in want if c not in got], [c for c in got if c not in want]
        return [f"{len(want)} rows wanted, {len(got)} got; columns lost: {lost}, new: {new}, order {list(got)}"]
    return [
        f"row {i} ({' | '.join(row.iloc[:4])}), {column}: want {row[column]!r}, got {cell!r}"
        for i, row in want.iterrows() for column, cell in got.loc[i].items() if not same(row[column], cell)
    ]  # fmt: skip


@pytest.mark.parametrize("table", sorted("/".join(path.with_suffix("").parts[-2:]) for path in GOLDEN.glob("*/*.csv")))
def test_table_is_what_it_was(table):
    profile, name = table.split("/")
    assert name in made(profile), f"{table} is no longer made"
    found = differences(read(GOLDEN / f"{table}.csv"), made(profile)[name])
    assert not found, "\n".join([f"{table} has {len(found)} differences", *found[:20]])


@pytest.mark.parametrize("profile", PROFILES)
def test_no_table_is_without_its_golden_one(profile):
    assert set(made(profile)) == {path.name.removesuffix(".csv") for path in (GOLDEN / profile).glob("*.csv")}


@pytest.mark.parametrize(("want", "got", "equal"), [
    ("12.3", "12.3", True), ("12.3", "12.4", False), ("12.3", "12.39", True), ("12.3", "12.41", False), ("20", "21", False),
    ("5", "5.0", True), ("12.3-45.6", "12.3-45.7", False), (">= 1.2", ">= 1.2", True), (">= 1.2", "1.2", False), ("", "0", False),
    ("-0.50", "0.50", False), ("1.2e-03", "1.24e-03", True), ("1.2e-03", "1.2e-04", False), ("cohen", "audit", False),
])  # fmt: skip
def test_cells_are_compared_within_printed_rounding(want, got, equal):
    assert same(want, got) is equal


if __name__ == "__main__":
    for profile in PROFILES:
        for name, frame in made(profile).items():
            shown.write_whole(GOLDEN / profile / f"{name}.csv", frame.to_csv(index=False, lineterminator="\n").encode())
