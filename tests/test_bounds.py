"""The rules against outside implementations, brute force, and the properties that a certificate needs."""

import warnings
from fractions import Fraction
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, hypergeom, norm

from srs.settings import Method, Sampling
from srs.smoothing import bounds, certify
from srs.smoothing.bounds import ABSTAIN, Counts, Rule, RULES, UnsoundRuleWarning
from tests.helpers import LinearDEQ

ALPHA = 0.001
ROUNDING = 1e-12  # of the beta quantile, which for tiny counts underflows to 0 or to 2e-308
expects_unsound = pytest.mark.filterwarnings("ignore::srs.smoothing.bounds.UnsoundRuleWarning")


@st.composite
def fair_counts(draw, n_max=300):
    """Counts for which theorem31 and audit have audited the same votes with the same outcome."""
    n = draw(st.integers(1, n_max))
    n_a = draw(st.integers(0, n))
    k = draw(st.integers(0, n_a))
    m = draw(st.integers(0, k))
    return Counts(n=n, n_a=n_a, k=k, m=m, n_2=k, n_1=k - m)


@pytest.mark.parametrize("trials", [1, 100, 10_000])
def test_limits_are_clopper_pearson(trials):
    successes = np.unique(np.linspace(0, trials, 6).astype(int))
    one = [binomtest(int(s), trials, alternative="greater").proportion_ci(0.999, method="exact").low for s in successes]
    np.testing.assert_allclose(bounds.lower_confidence_bound(successes, trials, ALPHA), one, rtol=1e-9)
    two = [binomtest(int(s), trials).proportion_ci(0.95, method="exact") for s in successes]
    np.testing.assert_allclose(bounds.proportion_interval(successes, trials, 0.95), np.transpose(two), rtol=1e-9)
    assert np.transpose(bounds.proportion_interval(0, 0, 0.95)).tolist() == [0, 1]


def exact_bound(n_a, k, m, alpha):
    """Largest M with P[Hypergeom(n_a, M, k) <= m] >= alpha in rational arithmetic."""
    ways = [sum(comb(M, i) * comb(n_a - M, k - i) for i in range(m + 1)) for M in range(n_a + 1)]
    return max(M for M in range(n_a + 1) if ways[M] >= alpha * comb(n_a, k))


@pytest.mark.parametrize("alpha", ["0.5", "0.1", "0.0005"])
def test_largest_disagreement_by_brute_force_in_all_small_populations(alpha):
    cases = [(n_a, k, m) for n_a in range(20) for k in range(n_a + 1) for m in range(k + 1)]
    expected = [exact_bound(*case, Fraction(alpha)) for case in cases]
    np.testing.assert_array_equal(bounds.largest_disagreement(*np.array(cases).T, float(alpha)), expected)


def test_rounding_never_makes_the_largest_disagreement_too_small():
    """Against exact integers: one more disagreement has a probability below alpha."""
    n_a, k, rng, most = 10**6, 300, np.random.default_rng(1), 0
    for m, alpha in zip(rng.integers(0, 9, 12).tolist(), 10 ** rng.uniform(-5, -1, 12)):
        found = int(bounds.largest_disagreement(n_a, k, m, alpha))
        ways = sum(comb(found + 1, i) * comb(n_a - found - 1, k - i) for i in range(m + 1))
        most = max(most, Fraction(ways, comb(n_a, k)) / Fraction(alpha))
    assert 0.9 < most < 1


@expects_unsound
@pytest.mark.parametrize("rule", Rule)
@given(counts=fair_counts(), split=st.floats(0.01, 0.99))
@settings(max_examples=60, deadline=None)
def test_rules_are_monotone_and_sound_ones_below_cohen(rule, counts, split):
    if counts.n_a < counts.n:
        more = Counts(counts.n, counts.n_a + 1, counts.k, counts.m, counts.n_2, counts.n_1)
        assert RULES[rule](more, ALPHA) >= RULES[rule](counts, ALPHA) - ROUNDING
    if counts.m < counts.k and rule in (Rule.THEOREM31, Rule.AUDIT):
        worse = Counts(counts.n, counts.n_a, counts.k, counts.m + 1, counts.n_2, counts.n_1 - 1)
        assert RULES[rule](worse, ALPHA) <= RULES[rule](counts, ALPHA) + ROUNDING
    if rule.sound:
        p_lower = bounds.audit(counts, ALPHA, split) if rule == Rule.AUDIT else RULES[rule](counts, ALPHA)
        p_cohen, radius_cohen = bounds.certify(Rule.COHEN, counts, 0.5, ALPHA)
        assert 0 <= p_lower <= p_cohen + ROUNDING <= 1 + ROUNDING
        assert bounds.radius(p_lower, 0.5) <= radius_cohen + ROUNDING


@expects_unsound
@pytest.mark.parametrize("rule", Rule)
def test_no_votes_certify_nothing_and_arrays_give_what_scalars_give(rule):
    assert bounds.certify(rule, Counts(n=1_000, n_a=0), 0.5, ALPHA) == (0, 0)
    if rule in (Rule.THEOREM31, Rule.AUDIT):  # nor do votes of which none was audited
        assert bounds.certify(rule, Counts(n=1_000, n_a=1_000), 0.5, ALPHA) == (0, 0)
    table = np.array([[100, 90, 40, 3, 38, 35], [100, 0, 0, 0, 0, 0], [50, 50, 50, 0, 50, 50], [10, 9, 2, 1, 2, 1]])
    alone = [RULES[rule](Counts(*map(int, row)), ALPHA) for row in table]
    np.testing.assert_array_equal(RULES[rule](Counts(*table.T), ALPHA), alone)
    assert np.ndim(alone[0]) == 0


def test_the_papers_formula_by_hand_and_the_warning_of_the_released_one():
    """N_2 = 380 of K = 400, 6 disagree; computed with binomtest instead of bounds."""

    def low(successes, trials):
        test = binomtest(successes, trials, alternative="greater")
        return test.proportion_ci(1 - ALPHA / 2, method="exact").low

    share = low(374, 380)
    counts = Counts(n=10_000, n_a=9_500, k=380, m=6, n_2=380, n_1=374)
    assert low(int(share * 9_500), 10_000) <= bounds.theorem31(counts, ALPHA) <= low(int(share * 9_500) + 1, 10_000)
    for _ in range(2):  # at every use
        with pytest.warns(UnsoundRuleWarning, match="unsound"):
            released = bounds.certify("released", counts, 0.5, ALPHA)[0]
    assert released == pytest.approx(low(round(share * 9_500), round(share * 10_000)), abs=1e-3)
    assert released > bounds.theorem31(counts, ALPHA) + 0.02
    for rule in (rule for rule in Rule if rule.sound):
        bounds.certify(rule, counts, 0.5, ALPHA)  # warnings are errors here
    assert [rule.value for rule in Rule if not rule.sound] == ["released"]


def test_radius_abstains_at_one_half_and_below():
    radii = bounds.radius([0.0, 0.5, np.nextafter(0.5, 1), 0.9], 0.25)
    assert radii[:2].tolist() == [0, 0] and radii[2] > 0 and radii[3] == pytest.approx(0.25 * norm.ppf(0.9))


def test_the_theorem_s_agreement_step_fails_too_often_only_where_nothing_is_certified():
    """Its limit on A of N_A votes that agree, n of them audited: exact failure rates in all small cases."""
    for level in (1e-3, 0.02, 0.15, 0.3):
        for n_a, n in ((n_a, n) for n_a in range(2, 26) for n in range(1, n_a + 1)):
            limits, agree = bounds.lower_confidence_bound(np.arange(n + 1), n, level), np.arange(1, n_a + 1)
            fails = np.array([hypergeom.pmf(np.arange(n + 1), n_a, a, n)[limits > a / n_a].sum() for a in agree])
            assert (fails[agree > n_a / 2] <= level + 1e-12).all()
            if (level, n_a, n) == (0.15, 19, 3):
                assert fails[0] == pytest.approx(3 / 19)


def test_top_class_breaks_ties_low_and_ignores_abstentions():
    assert bounds.top_class([2, 1, 1, 2, ABSTAIN, ABSTAIN, ABSTAIN], 3) == 1
    assert bounds.top_class([ABSTAIN, ABSTAIN], 3) == bounds.top_class([], 3) == ABSTAIN


REFUSED = {
    "n = 0": {"n": 0, "n_a": 0}, "n_a = 11 is refused: want between 0 and n": {"n": 10, "n_a": 11},
    "m = 5": {"n": 10, "n_a": 5, "k": 4, "m": 5}, "n_a = array": {"n": 10, "n_a": np.array([5, 11])},
    "n_a = 5.5 is refused: want whole numbers": {"n": 10, "n_a": 5.5}, "'theorem32' is not a valid Rule": {"rule": "theorem32"},
    "sigma = nan": {"sigma": np.nan}, "alpha = 1.0": {"alpha": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("message, change", REFUSED.items(), ids=REFUSED)
def test_impossible_counts_and_settings_are_refused(message, change):
    counts = {name: value for name, value in change.items() if name in Counts.__dataclass_fields__}
    asked = {"rule": "audit", "sigma": 0.5, "alpha": ALPHA} | {name: change[name] for name in change.keys() - counts}
    with pytest.raises(ValueError, match=message):
        bounds.certify(counts=Counts(**counts or {"n": 10, "n_a": 9}), **asked)


SIGMA, N = 0.4, 4_000
STANDARD = Method("RS", "naive", 1, batch=N)
# Two pixels and three classes, the sectors around the image's centre; on a third of the images noise confuses two.
WEIGHT = torch.tensor([[4.0, 0.0], [-2.0, 3.4], [-2.0, -3.4]])
BIAS = -WEIGHT.sum(1) / 2


def test_bounds_radii_and_certificates_are_those_of_the_adversarial_robustness_toolbox(monkeypatch):
    """Both draw noise of their own: certificates may differ by sampling only, here by five standard errors of a difference."""
    with warnings.catch_warnings():  # it imports much that is not ours, and some of it warns
        warnings.simplefilter("ignore")
        from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 3))
        network[1].weight.data, network[1].bias.data = WEIGHT.clone(), BIAS.clone()
        theirs = PyTorchRandomizedSmoothing(
            model=network, loss=torch.nn.CrossEntropyLoss(), input_shape=(1, 1, 2), nb_classes=3, sample_size=100,
            scale=SIGMA, alpha=ALPHA, device_type="cpu",
        )  # fmt: skip
    x = np.random.default_rng(0).random((12, 1, 1, 2), np.float32)
    np.random.seed(0)  # their noise comes from numpy's global stream
    predicted, radius = theirs.certify(x, n=N, batch_size=N)
    model, sampling, certified = LinearDEQ(WEIGHT, BIAS), Sampling(3, n0=100, n=N, reference=STANDARD), 0
    for i, image in enumerate(torch.from_numpy(x)):
        ours = certify.certify_image(model, image, STANDARD, sampling, sigma=SIGMA, alpha=ALPHA, idx=i)
        slack = 5 * (2 * ours.p_lower * (1 - ours.p_lower) / N) ** 0.5
        low, high = (bounds.radius(min(p, 1 - 1e-9), SIGMA) for p in (ours.p_lower - slack, ours.p_lower + slack))
        assert low <= radius[i] <= high
        assert ours.predict == predicted[i] or low == 0 < high
        certified += low > 0
    assert certified >= 4
    for n, n_a in [(n, int(n_a)) for n in (1, 10, 100, 4_000) for n_a in np.unique(np.linspace(0, n, 15).astype(int))]:
        bound, reach = bounds.certify("cohen", Counts(n=n, n_a=n_a), SIGMA, ALPHA)
        assert float(bound) == pytest.approx(theirs._lower_confidence_bound(n_a, n), abs=1e-12)
        monkeypatch.setattr(theirs, "_prediction_counts", lambda *_, n_a=n_a, **__: np.array([0.0, n_a, 0.0]))
        answer, wanted = theirs.certify(np.zeros((1, 1, 1, 2), np.float32), n=n)
        assert not n_a or answer[0] == (1 if bound > 0.5 else ABSTAIN)
        assert float(reach) == pytest.approx(float(wanted[0]), abs=1e-12)
