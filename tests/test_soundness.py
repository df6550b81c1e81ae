"""The simulation is checked against closed forms first; then it is used to measure the rules."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from srs import soundness
from srs.smoothing.bounds import DEFAULT_SPLIT, lower_confidence_bound, Rule, UnsoundRuleWarning
from srs.soundness import failure_rates, HalfSpace, Linear, RIVAL, Surrogate, TOP

pytestmark = pytest.mark.filterwarnings("ignore::srs.bounds.UnsoundRuleWarning")

PROBLEMS = [HalfSpace(), Linear()]
SOUND = [rule for rule in Rule if rule.sound]
SMALL = {"n": 1_000, "audit_k": 100, "certificates": 4_000}


def generator():
    return np.random.default_rng(7)


# ---------------------------------------------------------------------------------------------- the simulation


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_votes_have_the_stated_p_a(problem):
    votes = problem.votes(generator(), (500, 1_000))
    assert np.mean(votes == TOP) == pytest.approx(problem.p_a, abs=5 * 0.5 / np.sqrt(votes.size))
    assert set(np.unique(votes)) == set(range(problem.classes))


def test_half_space_radius_is_the_certificate_of_its_own_p_a():
    assert HalfSpace(p_a=0.975, sigma=0.5).radius == pytest.approx(0.98, abs=1e-4)


def test_linear_radius_is_where_the_smoothed_classifier_changes():
    """Noise in 12 dimensions: g is TOP just inside the radius and RIVAL just outside, on the way to RIVAL."""
    problem, rng = Linear(), generator()
    rows = np.linalg.qr(rng.standard_normal((12, problem.classes)))[0].T
    x = rows.T @ np.array(problem.scores)
    towards = (rows[RIVAL] - rows[TOP]) / np.sqrt(2)
    noise = problem.sigma * rng.standard_normal((400_000, 12))

    def majority(distance):
        votes = np.argmax((x + distance * towards + noise) @ rows.T, axis=1)
        return np.bincount(votes).argmax()

    assert majority(0.97 * problem.radius) == TOP
    assert majority(1.03 * problem.radius) == RIVAL


def test_linear_refuses_a_point_where_top_is_not_on_top():
    with pytest.raises(ValueError, match="the largest"):
        Linear(scores=(0.0, 0.1))


@pytest.mark.parametrize("persistence", [0.0, 0.9])
def test_surrogate_errors_have_their_share_and_serial_correlation(persistence):
    surrogate = Surrogate(over=0.2, under=0.1, persistence=persistence)
    for source, target, share in ((RIVAL, TOP, 0.2), (TOP, RIVAL, 0.1)):
        turned = surrogate.votes(generator(), np.full((400, 2_000), source, np.int8)) == target
        correlation = np.corrcoef(turned[:, :-1].ravel(), turned[:, 1:].ravel())[0, 1]
        assert turned.mean() == pytest.approx(share, abs=0.01)
        assert correlation == pytest.approx(persistence, abs=0.02)


def test_audits_are_drawn_from_their_populations():
    n_a, agreeing = np.full(20_000, 600), np.full(20_000, 450)
    counts = soundness.audited_counts(generator(), 1_000, n_a, agreeing, 100)
    assert np.mean(counts.n_2) == pytest.approx(60, abs=0.2)
    assert np.mean(counts.n_1) == pytest.approx(45, abs=0.2)
    assert set(counts.k) == {100}
    assert np.mean(counts.m) == pytest.approx(25, abs=0.2)
    # everything audited: nothing is left to chance
    counts = soundness.audited_counts(generator(), 1_000, n_a, agreeing, 1_000)
    assert (set(counts.k), set(counts.m), set(counts.n_2), set(counts.n_1)) == ({600}, {150}, {600}, {450})


# ---------------------------------------------------------------------------------------------- failure rates


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_sound_rules_hold_and_the_released_rule_is_refuted(problem):
    rows = failure_rates(problem, Surrogate(over=0.4), **SMALL)
    assert len(rows) == len(Rule) * 3
    for row in rows:
        if row.sound:
            assert row.verdict != "refuted", row
            assert row.rate <= row.alpha + 3 * np.sqrt(row.alpha / row.certificates), row
        else:
            assert row.verdict == "refuted" and row.rate > 0.9, row


def test_cohen_fails_exactly_as_often_as_the_binomial_says():
    """On a half-space the failure rate is P[LowerConfBound > p_A]: the simulation has the power to see it."""
    problem = HalfSpace()
    (row,) = failure_rates(problem, Surrogate(), rules=["cohen"], alphas=[0.1], **SMALL)
    votes = np.arange(1_001)
    exact = binom.pmf(votes, 1_000, problem.p_a)[lower_confidence_bound(votes, 1_000, 0.1) > problem.p_a].sum()
    assert 0.05 < exact <= 0.1
    assert row.rate == pytest.approx(exact, abs=4 * np.sqrt(exact / row.certificates))


def test_audit_of_every_vote_fails_as_often_as_its_share_of_alpha():
    """With K = N the disagreements are known, and what is left is Clopper-Pearson at (1 - split) alpha."""
    everything = SMALL | {"audit_k": SMALL["n"]}
    (row,) = failure_rates(HalfSpace(), Surrogate(over=0.4), rules=["audit"], alphas=[0.1], split=0.5, **everything)
    assert 0.03 < row.rate < 0.06


def test_released_against_the_papers_formula_in_400_trials():
    setting = {"n": 10_000, "audit_k": 400, "alphas": [0.001], "certificates": 400}
    rows = failure_rates(HalfSpace(p_a=0.75), Surrogate(over=0.2), **setting)
    assert {row.rule: row.failures for row in rows} == {"cohen": 0, "theorem31": 0, "released": 400, "audit": 0}


def test_a_wrong_class_with_a_positive_radius_is_a_failure():
    rows = failure_rates(HalfSpace(), Surrogate(under=0.8, persistence=0.0), alphas=[0.001], **SMALL)
    rates = {row.rule: row.rate for row in rows}
    assert rates["released"] == 1  # certifies RIVAL, which g does not return
    assert rates["theorem31"] == rates["audit"] == 0


def test_no_sound_rule_certifies_more_than_plain_smoothing_on_average():
    rows = failure_rates(HalfSpace(p_a=0.9), Surrogate(over=0.1, under=0.02), rules=SOUND, alphas=[0.001], **SMALL)
    means = {row.rule: row.mean_radius for row in rows}
    assert 0 < means["theorem31"] < means["cohen"]
    assert 0 < means["audit"] < means["cohen"]


def test_results_depend_on_the_seed_alone():
    few = {"n": 300, "audit_k": 50, "certificates": 100}
    rows = failure_rates(HalfSpace(), Surrogate(over=0.2), seed=3, **few)
    assert failure_rates(HalfSpace(), Surrogate(over=0.2), seed=3, **few) == rows
    assert failure_rates(HalfSpace(), Surrogate(over=0.2), seed=4, **few) != rows
    only_audit = failure_rates(HalfSpace(), Surrogate(over=0.2), seed=3, rules=["audit"], **few)
    assert only_audit == [row for row in rows if row.rule == "audit"]


def test_progress_counts_every_certificate(monkeypatch):
    monkeypatch.setattr(soundness, "VOTES_AT_ONCE", 1_000)
    drawn = []
    failure_rates(HalfSpace(), Surrogate(), n=300, audit_k=10, certificates=8, progress=drawn.append)
    assert drawn == [3, 3, 2]


def test_verdicts():
    (row,) = failure_rates(HalfSpace(), Surrogate(), rules=["cohen"], alphas=[0.1], n=50, certificates=100)
    assert replace(row, lower=0.05, upper=0.1).verdict == "holds"
    assert replace(row, lower=0.05, upper=0.3).verdict == "undecided"  # 0.1 + 3 * 0.03 = 0.19
    assert replace(row, lower=0.11, upper=0.12).verdict == "refuted"


# ---------------------------------------------------------------------------------------------- caps and splits


def test_caps_grow_with_the_audit_and_stay_below_plain_smoothing():
    caps = soundness.measured_caps(
        rules=list(Rule), ns=[1_000, 10_000], audit_ks=[100, 400, 2_100, 10_000], sigma=0.5, alpha=0.001
    )
    radii = {(cap.rule, cap.n, cap.audit_k): cap.radius for cap in caps}
    assert len(radii) == 4 * (2 + 4)  # K <= N only
    assert radii["theorem31", 10_000, 400] == pytest.approx(0.991, abs=5e-4)
    for rule in ("theorem31", "audit"):
        by_k = [radii[rule, 10_000, k] for k in (100, 400, 2_100, 10_000)]
        assert by_k == sorted(set(by_k)) and by_k[-1] < radii["cohen", 10_000, 10_000]
    assert radii["audit", 10_000, 400] > radii["theorem31", 10_000, 400]


@pytest.mark.parametrize("n, audit_k", [(10, 5), (100, 1), (100, 100), (1_000, 100), (10_000, 400), (10_000, 10_000)])
def test_audit_at_an_equal_split_is_never_below_theorem31_in_any_cell(n, audit_k):
    gain = soundness.audit_gain(n=n, audit_k=audit_k, alpha=0.001)
    assert gain.shape == (40, 20)
    assert gain.min() >= 0
    assert gain.max() > 0


def test_an_unequal_split_gives_something_up_at_few_votes():
    """So the test above can fail: 9 : 1 loses a little p_lower where N_A is small, as the design says."""
    gain = soundness.audit_gain(n=10_000, audit_k=400, alpha=0.001, split=0.9)
    assert -0.002 < gain.min() < 0 < gain.max()


@pytest.mark.parametrize("n, audit_k", [(10_000, 400), (1_000, 100)])
def test_default_split_is_the_best_of_a_coarse_grid_and_beats_theorem31_on_average(n, audit_k):
    rows = soundness.compare_splits([0.25, 0.5, DEFAULT_SPLIT, 0.95], n=n, audit_k=audit_k, images=1_000)
    best = max(rows, key=lambda row: row.audit_radius)
    assert best.split == DEFAULT_SPLIT
    assert best.audit_radius > best.theorem31_radius > 0
    assert 0.7 < best.share_at_least < 1


def test_command_line_writes_one_row_per_setting_rule_and_alpha(tmp_path, capsys):
    path = tmp_path / "rates.csv"
    with pytest.warns(UnsoundRuleWarning):
        soundness.main(["--certificates", "20", "--n", "500", "--audit-k", "50", "--out", str(path)])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(soundness.SETTINGS) * len(Rule) * len(soundness.ALPHAS)
    assert {row["sound"] for row in rows if row["rule"] == "released"} == {"False"}
    assert all(int(row["certificates"]) == 20 for row in rows)
    assert "released  (unsound)" in capsys.readouterr().out
