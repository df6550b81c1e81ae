"""metrics: hand-worked examples, and Cohen et al.'s published log as an outside oracle."""


import numpy as np
import pytest
from scipy.stats import beta, norm
from tests.synthetic import array, tally

from srs import metrics
from srs.metrics import Certificates
from srs.smoothing import bounds



def certificates(*pairs):
    predict, radius = zip(*pairs)
    return Certificates(np.array(predict), np.array(radius, float))


def test_golden_log(shared):
    log = np.genfromtxt(shared("golden", "cohen_resnet110_cifar10_sigma0.50.tsv"), names=True, usecols=("label", "predict", "radius", "correct"))
    held = metrics.certified_counts(log["correct"], log["radius"], np.arange(7) / 4)
    assert [round(1000 * count / len(log)) for count in held] == [652, 546, 414, 320, 234, 152, 94]
    assert metrics.average_certified_radius(log["correct"], log["radius"]) == pytest.approx(0.538, abs=5e-4)
    right = metrics.correct(Certificates(log["predict"].astype(int), log["radius"]), log["label"])
    assert np.array_equal(right, log["correct"] == 1)


def test_certificates_under_cohen_are_closed_form():
    votes = array(tally(n=100, n_a=100), tally(n=100, n_a=90), tally(n=100, n_a=50), tally(n=100, n_a=0, c_a=-1))
    predict, radius = metrics.certificates(votes, rule="cohen", sigma=0.5, alpha=0.001)
    assert predict.tolist() == [3, 3, bounds.ABSTAIN, bounds.ABSTAIN]
    expected = [0.5 * norm.ppf(0.001**0.01), 0.5 * norm.ppf(beta.ppf(0.001, 90, 11)), 0, 0]
    np.testing.assert_allclose(radius, expected, rtol=1e-12)


def test_no_class_abstains_even_with_votes():
    predict, radius = metrics.certificates(array(tally(c_a=-1)), rule="cohen", sigma=1.0, alpha=0.1)
    assert (predict[0], radius[0]) == (bounds.ABSTAIN, 0)


@pytest.mark.parametrize("rule", ["audit", "theorem31"])
def test_without_audit_srs_certifies_nothing(rule):
    predict, radius = metrics.certificates(array(tally(n=1000, n_a=1000)), rule=rule, sigma=0.5, alpha=0.001)
    assert (predict[0], radius[0]) == (bounds.ABSTAIN, 0)


def test_released_warns():
    audited = array(tally(n=1000, n_a=1000, k=100, m=0, n_2=100, n_1=100))
    with pytest.warns(bounds.UnsoundRuleWarning):
        metrics.certificates(audited, rule="released", sigma=0.5, alpha=0.001)


def test_certified_accuracy_counts_all_images():
    correct, radius = [1, 1, 0, 1], [0.5, 0.25, 9.0, 0.0]
    assert metrics.certified_counts(correct, radius, [0, 0.25, 0.3, 0.5, 0.51]).tolist() == [3, 2, 1, 1, 0]
    assert metrics.certified_accuracy(correct, radius, [0, 0.25]).tolist() == [0.75, 0.5]
    assert metrics.average_certified_radius(correct, radius) == 0.75 / 4


def test_abstention_is_never_correct():
    assert metrics.correct(certificates((-1, 0), (2, 0.1), (1, 0.1)), [-1, 2, 2]).tolist() == [False, True, False]


def test_no_images_is_nan():
    assert np.isnan(metrics.certified_accuracy([], [], [0.0])).all()
    assert np.isnan(metrics.average_certified_radius([], []))


def test_rrd_by_hand():
    rs = certificates((1, 0.4), (1, 0.4), (1, 0.4), (-1, 0.0), (2, 0.2))
    srs = certificates((1, 0.3), (2, 0.4), (-1, 0.0), (1, 0.9), (2, 0.5))
    # smaller, another class, abstains, (not certified by RS: left out), larger
    np.testing.assert_allclose(metrics.relative_radius_difference(rs, srs), [0.25, 1, 1, 1.5])


def test_p_m_and_gap_by_hand():
    votes = array(
        tally(n=100, n_a=80, n_wrong=20, n_2=40, n_1=40),
        tally(n=100, n_a=0, n_wrong=0),  # no vote for c_A
        tally(n=100, n_a=80, n_wrong=-1, n_2=4, n_1=4),  # not measured
        tally(n=100, n_a=100, n_wrong=100, n_2=40, n_1=40),  # the audit missed what is there
    )
    np.testing.assert_array_equal(metrics.p_m(votes), [0.25, np.nan, np.nan, 1.0])
    upper = 1 - 0.0005 ** (1 / 40)
    np.testing.assert_allclose(metrics.gap(votes, 0.001), [upper - 0.25, np.nan, np.nan, upper - 1], rtol=1e-12)


def test_p_m_upper_of_the_paper():
    """K = 400 without a disagreement gives 1.88 %."""
    votes = array(tally(n=10_000, n_a=10_000, n_2=400, n_1=400))
    assert metrics.p_m_upper(votes, 0.001)[0] == pytest.approx(0.0188, abs=5e-5)


def test_disagreement_pools_votes_and_skips_what_was_not_measured():
    votes = array(tally(n=10, n_differ=1), tally(n=30, n_differ=1), tally(n=1000, n_differ=-1))
    assert metrics.disagreement(votes) == 2 / 40
    assert np.isnan(metrics.disagreement(votes[2:]))


def test_cost_and_speed_up():
    slow = metrics.cost(array(tally(n=10, nfe_select=30, nfe_estimate=300, nfe_audit=-1, seconds=2.0)))
    fast = metrics.cost(array(
        tally(n=10, nfe_select=1, nfe_estimate=20, nfe_audit=12, seconds=0.5),
        tally(n=10, nfe_select=1, nfe_estimate=20, nfe_audit=12, seconds=1.5),
    ))  # fmt: skip
    assert (slow.nfe, slow.nfe_per_vote, slow.nfe_audit) == (330, 30, 0)
    assert (fast.nfe, fast.nfe_per_vote, fast.seconds) == (33, 2, 1)
    assert metrics.speed_up(slow, fast) == (10, 2)


def test_pairwise_measures_need_the_same_images():
    one = array(tally(idx=0), tally(idx=1))
    metrics.require_same_images(one, one)
    with pytest.raises(ValueError, match="different images"):
        metrics.require_same_images(one, one[:1])
