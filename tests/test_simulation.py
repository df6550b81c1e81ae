"""The simulation against closed forms, then the rules and other audits by it; the tables and findings of notebook 40."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from tests import synthetic

from srs import profiles, settings, store
from srs.experiments import simulation, soundness
from srs.experiments.simulation import audit_sizes, DEAREST, failure_rates, OWN_RS, RIVAL, RS, simulate, Surrogate, TOP
from srs.smoothing import bounds
from srs.smoothing.bounds import DEFAULT_SPLIT, lower_confidence_bound, Rule

P_A = 0.747
SMALL = {"n": 1_000, "audit_k": 100, "certificates": 4_000}
SMOKE = profiles.get_profile("smoke")
SRS = SMOKE.method("SRS-MDEQ-3A")
# Of 100 votes 50 are for c_A; an auditor that stops early solved 20 of them by five evaluations each.
MEASURED = synthetic.image_counts(n=100, n_a=50, k=20, m=2, nfe_select=200, nfe_estimate=440, nfe_audit=100)
PLAIN = synthetic.image_counts(n=100, n_a=80, nfe_select=600, nfe_estimate=3_000)


def rates_of(surrogate, alpha=0.001, **sizes):
    """The failure rates at one alpha, by rule."""
    return failure_rates(simulate(surrogate, **SMALL | sizes), alphas=(alpha,)).set_index("rule")


def test_votes_have_the_stated_p_a_and_its_radius():
    votes = simulation.half_space(np.random.default_rng(7), (500, 1_000))
    assert np.mean(votes == TOP) == pytest.approx(P_A, abs=5 * 0.5 / np.sqrt(votes.size))
    assert set(np.unique(votes)) == {TOP, RIVAL} and simulation.TRUE_RADIUS == pytest.approx(0.3325, abs=1e-4)


@pytest.mark.parametrize("persistence", [0.0, 0.9])
def test_surrogate_errors_have_their_share_and_serial_correlation(persistence):
    surrogate = Surrogate(over=0.2, under=0.1, persistence=persistence)
    for source, target, share in ((RIVAL, TOP, 0.2), (TOP, RIVAL, 0.1)):
        turned = surrogate.votes(np.random.default_rng(7), np.full((200, 2_000), source, np.int8)) == target
        correlation = np.corrcoef(turned[:, :-1].ravel(), turned[:, 1:].ravel())[0, 1]
        assert turned.mean() == pytest.approx(share, abs=0.01) and correlation == pytest.approx(persistence, abs=0.02)


def test_audits_are_drawn_from_their_populations():
    n_a, agreeing = np.full(20_000, 600), np.full(20_000, 450)
    some = simulation.audited_counts(np.random.default_rng(7), 1_000, n_a, agreeing, 100)
    assert [np.mean(value) for value in (some.n_2, some.n_1, some.k, some.m)] == pytest.approx([60, 45, 100, 25], abs=0.2)
    every = simulation.audited_counts(np.random.default_rng(7), 1_000, n_a, agreeing, 1_000)  # nothing is left to chance
    assert (set(every.k), set(every.m), set(every.n_2), set(every.n_1)) == ({600}, {150}, {600}, {450})


def test_sound_rules_hold_and_the_released_rule_is_refuted():
    rates = failure_rates(simulate(Surrogate(over=0.4), **SMALL))
    assert len(rates) == len(Rule) * 3
    sound, refuted = rates[rates["rule"] != Rule.RELEASED], rates[rates["rule"] == Rule.RELEASED]
    assert (sound["verdict"] != "refuted").all()
    assert (sound["rate"] <= sound["alpha"] + 3 * np.sqrt(sound["alpha"] / sound["certificates"])).all()
    assert (refuted["verdict"] == "refuted").all() and (refuted["rate"] > 0.9).all()
    assert "released (unsound) refuted in 3 of 3 settings" in soundness.rates_finding(rates)


def test_cohen_fails_exactly_as_often_as_the_binomial_says():
    """The failure rate is P[LowerConfBound > p_A]: the simulation has the power to see it."""
    row = rates_of(Surrogate(), alpha=0.1).loc[Rule.COHEN]
    votes = np.arange(1_001)
    exact = binom.pmf(votes, 1_000, P_A)[lower_confidence_bound(votes, 1_000, 0.1) > P_A].sum()
    assert 0.05 < exact <= 0.1 and row["rate"] == pytest.approx(exact, abs=4 * np.sqrt(exact / row["certificates"]))


def test_audit_of_every_vote_fails_as_often_as_its_share_of_alpha():
    """With K = N the disagreements are known, and what is left is Clopper-Pearson at (1 - split) alpha = 0.05."""
    assert 0.03 < rates_of(Surrogate(over=0.4), alpha=0.2, audit_k=1_000)["rate"][Rule.AUDIT] < 0.06


def test_a_wrong_class_with_a_positive_radius_is_a_failure():
    rate = rates_of(Surrogate(under=0.8, persistence=0.0), certificates=500)["rate"]
    assert rate[Rule.RELEASED] == 1  # certifies RIVAL, which g does not return
    assert rate[Rule.THEOREM31] == rate[Rule.AUDIT] == 0


@pytest.mark.parametrize("n, audit_k", [(10_000, 400), (1_000, 100)])
def test_default_split_is_the_best_of_a_coarse_grid_and_beats_theorem31_on_average(n, audit_k):
    """On images with p_A from 1/2 to 1, half of them near 1 as a trained model's are; 0 to 30 % of the other votes turned."""
    rng, images = np.random.default_rng(0), 1_000
    even, crowded = rng.uniform(0.5, 1, images), 1 - 0.5 * rng.beta(0.3, 1, images)
    agreeing = rng.binomial(n, np.where(np.arange(images) % 2, even, crowded))
    turned = rng.binomial(n - agreeing, rng.choice([0.0, 0.02, 0.1, 0.3], images))
    some = simulation.audited_counts(rng, n, agreeing + turned, agreeing, audit_k)
    paper = bounds.certify(Rule.THEOREM31, some, 0.5, 0.001)[1]
    radii = {split: bounds.radius(bounds.audit(some, 0.001, split), 0.5) for split in (0.25, 0.5, DEFAULT_SPLIT, 0.95)}
    with pytest.raises(settings.ConfigError, match="split = 1.0"):
        bounds.audit(some, 0.001, 1.0)
    best = max(radii, key=lambda split: radii[split].mean())
    assert best == DEFAULT_SPLIT and radii[best].mean() > paper.mean() > 0
    assert 0.7 < np.mean(radii[best] >= paper) < 1


def sizes_of(own, method=replace(SRS, auditor=None), *others, n=100):
    """`audit_sizes` at N = n of an SRS method beside the reference, from the counts of each: rows of the method by K."""
    named = [(SMOKE.method(SMOKE.reference), PLAIN), (method, own), *others]
    profile = replace(SMOKE, methods=tuple(m for m, _ in named))
    rows = pd.concat(store.label(profile.runs[0], m, [vars(own)]) for m, own in named)
    return audit_sizes(rows, profile, ns=(n,)).query("method == @method.name").set_index("K")


def test_nfe_of_every_audit_size_is_what_was_measured():
    """Three steps a vote, a warm-up of ten on chains of 20 and five evaluations an audited vote, of which at most N_A are."""
    own = sizes_of(MEASURED)
    assert own["NFE"].to_dict() == {10: 690, 20: 740, 30: 790, 50: 890, 70: 890, 100: 890}
    assert set(own[DEAREST]) == {100}  # even all of them cost less than RS
    far = sizes_of(MEASURED, n=1_000).loc[1_000]
    assert far["NFE"] == 200 + 3 * 1_000 + 20 * 7 + 5 * 500
    assert set(sizes_of(replace(MEASURED, nfe_audit=2_000))[DEAREST]) == {(3_600 - 640) // 100}


@pytest.mark.parametrize("audited, certifies", [({}, True), ({"k": 0, "m": 0}, False)])
def test_disagreement_that_was_not_measured_is_not_taken_for_none(audited, certifies):
    """Beside an auditor whose votes are not stored, the audited votes alone tell; without any, nothing is certified."""
    last = sizes_of(replace(MEASURED, n_a=100, n_wrong=-1, **audited)).loc[100]
    assert (last["radius"] > 0) == certifies


def test_a_method_with_an_auditor_of_its_own_is_beside_plain_rs_by_that_auditor_too():
    """The auditor spends a tenth of the reference, so plain RS by it draws ten times the votes for the same NFE."""
    stop = settings.Method("RS-tol", "safe_anderson", 30, batch=100, tol=0.003)
    cheap = replace(PLAIN, nfe_select=60, nfe_estimate=300)
    measured = replace(MEASURED, n_a=80)
    own, alone = sizes_of(measured, replace(SRS, auditor=stop), (stop, cheap)), sizes_of(measured)
    assert (own[OWN_RS] > own[RS]).all() and (alone[OWN_RS] == alone[RS]).all()


@pytest.fixture
def counted(srs_root):
    """The long table of made-up counts of the profile `smoke`."""
    synthetic.write_profile(SMOKE)
    return store.read_counts(SMOKE)


def test_published_entries_beyond_the_cap():
    frame = soundness.published_beyond()
    assert list(frame.index) == ["1.00", "1.25", "1.50"] and frame.loc["1.00", "SRS-MDEQ-3A LARGE, as published"] == "23 %"
    theirs = frame["K needed, theorem31 (paper)"]
    assert theirs["1.50"] == "out of reach" and int(theirs["1.25"]) <= 2_100  # enough, as our notes say
    for audited, reached in ((int(theirs["1.25"]), True), (int(theirs["1.25"]) - 1, False)):
        assert (bounds.largest_radius(Rule.THEOREM31, soundness.N, audited, 0.5, 0.001) >= 1.25) == reached
    usual, more = soundness.caps_finding(), soundness.caps_finding(k=2_100)
    assert "no radius above 0.991" in usual and "12 published SRS entries, at r = 1.00, 1.25, 1.50, lie" in usual
    assert "no radius above 1.255" in more and "4 published SRS entries, at r = 1.50, lie" in more


def test_gain_by_hand(counted):
    """One image that both rules certify, one that neither does."""
    some = counted[counted["method"] == SRS.name].iloc[:2].assign(n=1_000, k=100, m=0, c_a=3)
    some = some.assign(n_a=[1_000, 300], n_2=[100, 30], n_1=[100, 30])
    paper, ours = (bounds.largest_radius(rule, 1_000, 100, 0.5, SMOKE.alpha) for rule in (Rule.THEOREM31, Rule.AUDIT))
    said = soundness.gain_finding(some, SMOKE)
    assert f"in 1 of 1 rows; over all of them {ours / 2:.3f} against {paper / 2:.3f}" in said and ours > paper
    assert "Neither" in soundness.gain_finding(some.assign(n_a=0, k=0, n_2=0, n_1=0), SMOKE)


def test_size_table_and_pays_finding_by_hand():
    """One SRS method at two N: at the last K alone it leads plain RS, and never plain RS by its auditor."""
    own = {"model": "X", "recipe": "X", "sigma": 0.5, "method": SRS.name, "radius": 0.3, OWN_RS: 0.4}
    sizes = pd.DataFrame([
        own | {"N": n, "K": k, "NFE": 10 * k, RS: 0.3 - lead, DEAREST: most}
        for n, most in ((100, -1), (10_000, 10_000)) for k, lead in ((10, -0.2), (20, -0.05), (50, 0.1))
    ])  # fmt: skip
    row = soundness.size_table(sizes.query("N == 100")).iloc[0]
    assert (row["best K"], row["its NFE"], row["pays for K"], row[DEAREST]) == (50, 500, "50", "any")
    never = soundness.size_table(sizes.query("N == 10_000").assign(**{RS: 0.4})).iloc[0]
    assert (never["pays for K"], never[DEAREST]) == ("none", "none")
    said = soundness.pays_finding(sizes)
    assert said.count("in 1 of 1 rows; its largest lead is +0.100 (SRS-MDEQ-3A, sigma 0.5, K = 50)") == 2
    assert said.count("it pays in 0 of 1") == 2
    assert soundness.pays_finding(sizes.assign(**{RS: 0.4})).count("in 0 of 1 rows;") == 2


def test_a_profile_without_srs_shows_nothing_and_says_so(counted):
    plain = counted[~counted["needs_audit"]]
    found = simulation.audit_sizes(plain, SMOKE)
    assert soundness.size_tables(found, SMOKE) == [] and "no SRS rows" in soundness.pays_finding(found)
    assert "Neither" in soundness.gain_finding(plain, SMOKE)
