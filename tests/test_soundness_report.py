"""soundness_report: the tables of notebook 40 come out, and say what the rules say."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srs import exact_report, profiles, published, soundness_figures, soundness_report, tables
from srs.smoothing import audit_size, bounds
from srs.smoothing.bounds import Rule
from srs.store import paths
from tests import synthetic
from tests.synthetic import array, tally

SMOKE = profiles.get_profile("smoke")
RUN = SMOKE.runs[-1]
METHOD = SMOKE.method("SRS-MDEQ-3A")

# The paper's settings, from the README of our notes on it: sigma, Theorem 3.1, released formula, plain RS.
CAPS = [(0.12, 0.238, 0.380, 0.384), (0.25, 0.496, 0.791, 0.800), (0.5, 0.991, 1.583, 1.599), (1.0, 1.982, 3.165, 3.199)]


@pytest.fixture
def tallies(tmp_path, monkeypatch):
    monkeypatch.setenv("SRS_ROOT", str(tmp_path))
    synthetic.write_profile(SMOKE)
    return tables.load(SMOKE)


# ---------------------------------------------------------------------------------------------- caps


def test_cap_table_is_the_known_one_to_three_decimals():
    frame = soundness_report.cap_table().set_index("sigma")
    for sigma, theorem31, released, cohen in CAPS:
        row = frame.loc[f"{sigma:.2f}"]
        assert row["theorem31 (paper)"] == f"{theorem31:.3f}"
        assert row["released (unsound)"] == f"{released:.3f}"
        assert row["cohen"] == f"{cohen:.3f}"
        assert theorem31 < float(row["audit (ours)"]) < cohen


def test_published_entries_beyond_the_cap():
    frame = soundness_report.published_beyond_caps().set_index("r")
    assert list(frame.index) == ["1.00", "1.25", "1.50"]
    assert frame.loc["1.00", "SRS-MDEQ-3A LARGE, as published"] == "23 %"
    assert frame.loc["1.50", "K needed, theorem31 (paper)"] == "out of reach"
    k = int(frame.loc["1.25", "K needed, theorem31 (paper)"])
    assert k <= 2_100  # enough, as our notes say
    for audited, reached in ((k, True), (k - 1, False)):
        assert (bounds.largest_radius(Rule.THEOREM31, published.N, audited, 0.5, 0.001) >= 1.25) == reached


# ---------------------------------------------------------------------------------------------- measured


def test_failure_table_has_a_line_per_setting_and_rule():
    frame = soundness_report.failure_table(soundness_report.measure(200, 50, 60, lambda drawn: None))
    assert len(frame) == 4 * len(Rule)
    cell = frame.loc[frame["rule"] == "released (unsound)", "alpha = 0.1"].iloc[0]
    rate, low, high = map(float, re.fullmatch(r"(\S+) \((\S+)-(\S+)\) refuted", cell).groups())
    assert low < rate <= high
    assert set(frame["true radius"]) == {"0.333", "0.354"}


def test_audit_gain_by_hand(tallies):
    """One image that both rules certify, one that abstains and does not count."""
    votes = array(
        tally(n=1_000, n_a=1_000, k=100, m=0, n_2=100, n_1=100),
        tally(n=1_000, n_a=300, k=100, m=0, n_2=30, n_1=30),
    )
    made = tallies | {(RUN.id, METHOD.name): votes}
    frame = soundness_report.audit_gain(SMOKE, made)
    row = frame[(frame["sigma"] == f"{RUN.sigma:.2f}") & (frame["method"] == METHOD.name)].iloc[0]
    radius = bounds.largest_radius(Rule.THEOREM31, 1_000, 100, RUN.sigma, SMOKE.alpha)
    ours = bounds.largest_radius(Rule.AUDIT, 1_000, 100, RUN.sigma, SMOKE.alpha)
    assert row["images"] == "1" and row["theorem31 (paper)"] == tables.radius(float(radius))
    assert float(row["gain at 0.75 %"]) == pytest.approx(100 * (ours / radius - 1), abs=0.005)
    assert float(row["gain at 0.5 %"]) > 0


def test_audit_gain_without_a_certified_image_is_empty(tallies):
    nothing = {key: array(tally(n_a=0), tally(n_a=0)) for key in tallies}
    frame = soundness_report.audit_gain(SMOKE, nothing)
    assert set(frame["images"]) == {"0"} and set(frame["gain at 0.5 %"]) == {""}


# ---------------------------------------------------------------------------------------------- audit size


MEASURED = tally(n=100, n_a=50, k=20, m=2, nfe_select=200, nfe_estimate=440, nfe_audit=100)  # an auditor that stops early
PLAIN = tally(n=100, n_a=80, nfe_select=600, nfe_estimate=3_000)


def test_nfe_of_every_audit_size_is_what_was_measured():
    """Three steps a vote, a warm-up of ten on chains of 20 and five evaluations an audited vote, of which at most N_A are."""
    made = {(RUN.id, METHOD.name): array(MEASURED, MEASURED), (RUN.id, SMOKE.reference): array(PLAIN, PLAIN)}
    found = audit_size.trade_off(RUN, METHOD, made, 100)
    assert [(p.k, p.nfe) for p in found.points] == [(10, 690), (20, 740), (30, 790), (50, 890), (70, 890), (100, 890)]
    assert found.rs_nfe == 3_600 and audit_size.row(found, 20)["costs RS's NFE at K"] == "none"
    more = audit_size.trade_off(RUN, METHOD, made, 1_000)
    assert more.at(1_000).nfe == 200 + 3 * 1_000 + 20 * 7 + 5 * 500 and more.rs_nfe == 30_600
    dear = {(RUN.id, METHOD.name): array(replace(MEASURED, nfe_audit=2_000)), (RUN.id, SMOKE.reference): array(PLAIN)}
    assert audit_size.trade_off(RUN, METHOD, dear, 100).dearest == (3_600 - 640) // 100


def test_disagreement_that_was_not_measured_is_not_taken_for_none():
    """Beside an auditor whose votes are not stored, the audited votes alone tell; without any, nothing is certified."""
    made = {(RUN.id, SMOKE.reference): array(PLAIN)}
    for own, p_m in ((replace(MEASURED, n_a=100, n_wrong=-1), 0.1), (replace(MEASURED, n_a=100, n_wrong=-1, k=0, m=0), np.nan)):
        found = audit_size.trade_off(RUN, METHOD, made | {(RUN.id, METHOD.name): array(own)}, 100)
        assert found.p_m == pytest.approx(p_m, nan_ok=True)
        assert (found.points[-1].radius > 0) == (p_m == 0.1)


def test_an_audit_of_everything_costs_more_and_gains_radius(tallies):
    found = audit_size.trade_off(RUN, METHOD, tallies, 1_000)
    assert [p.nfe for p in found.points] == sorted(p.nfe for p in found.points)
    assert found.points[-1].k == 1_000 and found.points[-1].radius > found.points[0].radius
    assert found.rs_radius >= found.points[-1].radius
    assert found == audit_size.trade_off(RUN, METHOD, tallies, 1_000)  # nothing is left to chance


def test_serialized_smoothing_without_disagreement_can_pay(tallies):
    """No wrong vote, p_A = 0.8: a small audit is cheap and the many samples count."""
    measured = replace(MEASURED, n_a=80, m=0, n_2=16, n_1=16)
    made = tallies | {(RUN.id, SMOKE.reference): array(PLAIN, PLAIN, PLAIN)}
    votes = array(*[replace(measured, nfe_select=20, nfe_estimate=100) for _ in range(3)])
    cheap = replace(METHOD, steps=1, warmup=0)
    found = audit_size.trade_off(RUN, cheap, made | {(RUN.id, cheap.name): votes}, 10_000)
    assert found.paying and found.best.k in found.paying
    assert audit_size.row(found, 400)["pays for K"] == f"{found.paying[0]} to {found.paying[-1]}"


# ---------------------------------------------------------------------------------------------- exact noise


def test_exact_noise_skips_votes_without_weights(tallies):
    made = exact_report.make_exact_noise(SMOKE)
    assert list(made) == ["exact_noise"]
    assert set(made["exact_noise"]["grid"]) == {"1/16", "1/255"}
    assert (made["exact_noise"]["added to alpha per certificate"].astype(float) < 1e-9).all()


# ---------------------------------------------------------------------------------------------- all


def test_make_all_writes_every_artefact_and_calls_released_unsound(tallies, tmp_path, capsys):
    soundness_report.main(["--profile", "smoke", "--certificates", "20"])
    names = capsys.readouterr().out.split()
    assert {"failure_rates", "failure_rates_small_n", "caps", "caps_figure", "audit_gain", "audit_size"} <= set(names)
    assert {"rules_by_image_SMALL", "exact_noise", "published_beyond_caps", "failure_rates_figure"} <= set(names)
    for name in names:
        stem = paths.shown(SMOKE, name)
        about = Path(f"{stem}.json").read_text()
        assert '"made_by": "40_soundness"' in about
        text = about + (Path(f"{stem}.csv").read_text() if Path(f"{stem}.csv").is_file() else "")
        assert text.count("released") == len(re.findall(r"released\W{0,2} ?\(unsound\)", text)), name
    assert not list((tmp_path / "figures").rglob("*.part"))


def test_main_refuses(tallies, capsys):
    for arguments in (["--profile", "nonsense"], ["--profile", "smoke", "--certificates", "0"]):
        with pytest.raises(SystemExit):
            soundness_report.main(arguments)
    assert "is refused" in capsys.readouterr().err


def test_rules_have_colours_and_markers_of_their_own():
    assert len(set(soundness_figures.COLOURS.values())) == len(set(soundness_figures.MARKERS.values())) == len(Rule)
    assert np.array_equal(list(soundness_figures.COLOURS), list(soundness_figures.RULES))
