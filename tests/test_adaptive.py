"""Adaptive decisions against fixed N, and against the probability with which they may be wrong."""

import numpy as np
import pytest
from scipy.stats import norm

from srs import settings
from srs.smoothing import adaptive
from srs.smoothing.adaptive import decide, estimate, Looks, stored
from srs.smoothing.bounds import lower_confidence_bound

SIGMA, ALPHA = 0.5, 0.05
LOOKS = Looks(2_000)


def drawn(p: float, seed: int, n: int = 2_000) -> adaptive.Count:
    return stored(np.where(np.random.default_rng(seed).random(n) < p, 3, 1), 3)


def test_looks_grow_and_end_at_n():
    assert Looks(10_000).at[:3] == (50, 75, 112) and Looks(10_000).at[-1] == 10_000
    assert Looks(40).at == (40,)
    assert list(LOOKS.at) == sorted(set(LOOKS.at))


@pytest.mark.parametrize("n, first, growth", [(5, 1, 1.1), (40, 39, 1.016), (9, 2, 1.3)])
def test_looks_that_fall_together_are_one_and_share_no_alpha(n, first, growth):
    looks = Looks(n, first, growth)
    assert list(looks.at) == sorted(set(looks.at)) and looks.at[-1] == looks.n


@pytest.mark.parametrize("r", [0.1, 0.5])
def test_a_wrong_yes_is_rarer_than_alpha(r):
    """p_A just below what r needs: the worst case of the test."""
    p = norm.cdf(r / SIGMA) - 1e-9
    wrong = sum(decide(drawn(p, seed), r, sigma=SIGMA, alpha=ALPHA, looks=LOOKS).certified for seed in range(400))
    assert wrong <= 400 * ALPHA + 3 * (400 * ALPHA * (1 - ALPHA)) ** 0.5


def test_a_test_that_does_not_spend_alpha_would_be_caught(monkeypatch):
    monkeypatch.setattr(adaptive, "len", lambda looks: 1, raising=False)  # the whole alpha at every look
    p = norm.cdf(0.5 / SIGMA) - 1e-9
    wrong = sum(decide(drawn(p, seed), 0.5, sigma=SIGMA, alpha=ALPHA, looks=LOOKS).certified for seed in range(400))
    assert wrong > 400 * ALPHA + 3 * (400 * ALPHA * (1 - ALPHA)) ** 0.5


def test_clear_cases_are_decided_early_and_as_by_fixed_n():
    for p, certified in ((0.999, True), (0.4, False), (0.7, False)):
        for seed in range(20):
            found = decide(drawn(p, seed), 0.5, sigma=SIGMA, alpha=ALPHA, looks=LOOKS)
            assert found.certified == certified and found.n < 400
    # Between the two, the number of votes grows as the case gets harder.
    cases = [[drawn(p, seed) for seed in range(30)] for p in (0.99, 0.93, 0.88)]
    spent = [np.mean([decide(count, 0.5, sigma=SIGMA, alpha=ALPHA, looks=LOOKS).n for count in case]) for case in cases]
    assert spent == sorted(spent) and spent[0] < spent[-1] / 3


def test_half_is_not_certified_at_radius_zero():
    assert not decide(stored(np.tile([3, 1], 1_000), 3), 0.0, sigma=SIGMA, alpha=ALPHA, looks=LOOKS).certified


def test_estimated_radius_holds_with_the_confidence_it_claims():
    for p in (0.6, 0.95):
        true = SIGMA * norm.ppf(p)
        radii = [estimate(drawn(p, seed), sigma=SIGMA, alpha=ALPHA, gain=0.05, looks=LOOKS).radius for seed in range(100)]
        assert np.mean(np.array(radii) > true) <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / 100) ** 0.5


def test_estimate_stops_where_votes_no_longer_pay():
    few, many = (estimate(drawn(0.9, 0), sigma=SIGMA, alpha=ALPHA, gain=gain, looks=LOOKS) for gain in (1.0, 1e-9))
    assert few.n < many.n == 2_000 and 0 < few.radius < many.radius
    assert estimate(drawn(0.1, 0), sigma=SIGMA, alpha=ALPHA, gain=1e-9, looks=LOOKS).n == 50
    fixed = SIGMA * norm.ppf(lower_confidence_bound(drawn(0.9, 0)(2_000), 2_000, ALPHA))
    assert 0.85 * fixed < many.radius < fixed


def test_a_radius_below_zero_is_refused():
    with pytest.raises(settings.ConfigError, match="r = -1"):
        decide(drawn(0.5, 0), -1, sigma=SIGMA, alpha=ALPHA)
