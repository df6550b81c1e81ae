"""Adaptive decisions against fixed N, and against the probability with which they may be wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from srs import settings, store
from srs.analysis import measures
from srs.experiments import certified_accuracy
from srs.profiles import PROFILES
from srs.smoothing import adaptive, votes
from srs.smoothing.adaptive import decide, estimate, Looks, stored
from srs.smoothing.bounds import lower_confidence_bound
from srs.smoothing.certify import certify, certify_image
from tests.helpers import save_untrained, smoke_run, three_classes

SIGMA, ALPHA = 0.5, 0.05
LOOKS = Looks(2_000)


def drawn(p: float, seed: int, n: int = 2_000) -> adaptive.Count:
    return stored(np.where(np.random.default_rng(seed).random(n) < p, 3, 1), 3)


def test_looks_grow_end_at_n_and_spend_all_of_alpha():
    assert Looks(10_000).at[:3] == (100, 125, 156) and Looks(10_000).at[-1] == 10_000
    assert Looks(40).at == (40,) and Looks(40).share(40) == 1
    assert list(LOOKS.at) == sorted(set(LOOKS.at))
    assert LOOKS.share(LOOKS.at).sum() == pytest.approx(1) and LOOKS.share(2_000) == 0.5
    with pytest.raises(settings.ConfigError, match="n = 101"):
        LOOKS.share(101)


@pytest.mark.parametrize("n, first, growth", [(5, 1, 1.1), (40, 39, 1.016), (9, 2, 1.3)])
def test_looks_that_fall_together_are_one_and_share_no_alpha(n, first, growth):
    looks = Looks(n, first, growth)
    assert list(looks.at) == sorted(set(looks.at)) and looks.at[-1] == looks.n
    assert looks.share(looks.at).sum() == pytest.approx(1)


@pytest.mark.parametrize("r", [0.1, 0.5])
def test_a_wrong_yes_is_rarer_than_alpha(r):
    """p_A just below what r needs: the worst case of the test."""
    p = norm.cdf(r / SIGMA) - 1e-9
    wrong = sum(decide(drawn(p, seed), r, sigma=SIGMA, alpha=ALPHA, looks=LOOKS).certified for seed in range(400))
    assert wrong <= 400 * ALPHA + 3 * (400 * ALPHA * (1 - ALPHA)) ** 0.5


def test_a_test_that_does_not_spend_alpha_would_be_caught(monkeypatch):
    monkeypatch.setattr(Looks, "share", lambda looks, n: np.ones_like(n, float))  # the whole alpha at every look
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
    assert estimate(drawn(0.1, 0), sigma=SIGMA, alpha=ALPHA, gain=1e-9, looks=LOOKS).n == 100
    fixed = SIGMA * norm.ppf(lower_confidence_bound(drawn(0.9, 0)(2_000), 2_000, ALPHA))
    assert 0.85 * fixed < many.radius < fixed


def test_a_radius_below_zero_is_refused():
    with pytest.raises(settings.ConfigError, match="radii"):
        decide(drawn(0.5, 0), -1, sigma=SIGMA, alpha=ALPHA)


STOP = settings.Stop((0.0, 0.25, 0.5, 0.75), ALPHA)


def stopped(p: float, seed: int) -> tuple[int, int]:
    """Votes and votes for c_A at which an image of that p_A has enough for the table."""
    count = drawn(p, seed)
    n = next(n for n in LOOKS.at if adaptive.enough(count(n), n, sigma=SIGMA, stop=STOP, looks=LOOKS))
    return n, count(n)



def test_no_radius_of_a_table_is_certified_wrongly_more_often_than_alpha():
    """p_A just below what each radius needs: one alpha serves all of them."""
    for r in STOP.radii[1::2]:
        p = norm.cdf(r / SIGMA) - 1e-9
        n, n_a = np.transpose([stopped(p, seed) for seed in range(200)])
        wrong = (lower_confidence_bound(n_a, n, adaptive.spent(ALPHA, n, LOOKS.n)) > p).sum()
        assert wrong <= 200 * ALPHA + 3 * (200 * ALPHA * (1 - ALPHA)) ** 0.5


def test_a_table_takes_fewer_votes_and_says_what_fixed_n_says():
    """What it gives up it could not have had, but for a chance of `missed` at each radius and the looks' share of alpha."""
    spent, lost, gained = [], 0, 0
    for seed, p in enumerate(np.random.default_rng(0).beta(4, 1.5, 300)):
        n, n_a = stopped(p, seed)
        need = norm.cdf(np.array(STOP.radii) / SIGMA)
        yes = lower_confidence_bound(n_a, n, adaptive.spent(ALPHA, n, LOOKS.n)) >= need
        fixed = lower_confidence_bound(drawn(p, seed)(LOOKS.n), LOOKS.n, ALPHA) >= need
        spent, lost, gained = [*spent, n], lost + (fixed & ~yes).sum(), gained + (yes & ~fixed).sum()
    assert np.mean(spent) < LOOKS.n / 2 and lost <= 12 and gained <= 12  # of 1,200 decisions


def test_what_is_spent_is_all_of_alpha_where_n_was_fixed():
    assert adaptive.spent(ALPHA, [100, 2_000], [0, 2_000]) == pytest.approx([ALPHA, ALPHA / 2])
    with pytest.raises(settings.ConfigError, match="radii"):
        settings.Stop((-0.5,))


def test_votes_stop_at_a_look_and_are_the_first_of_all_n():
    model, x = three_classes(), torch.tensor([[[0.8, 0.3], [0.4, 0.5]]])
    method, auditing = settings.Method("M", "anderson", 3, batch=50), settings.Method("P", "anderson", 1, start="previous", batch=50, audit=5)
    fixed = settings.Sampling(3, n0=20, n=400, reference=method)
    adapted = replace(fixed, stop=settings.Stop((0.0, 0.1), 0.001))
    whole, some = (votes.draw_votes(model, x, method, s, 0.25) for s in (fixed, adapted))
    n = len(some.estimate)
    assert n in Looks(400).at and n < 400 and np.array_equal(some.estimate, whole.estimate[:n])
    assert some.nfe[1] * 400 == whole.nfe[1] * n
    assert votes.fits(some, 0, method, adapted) and not votes.fits(some, 0, method, fixed)
    assert len(votes.draw_votes(model, x, auditing, adapted, 0.25).estimate) == 400  # an audit needs all n
    c_a = np.bincount(some.select[some.select >= 0]).argmax()
    assert len(votes.draw_votes(model, x, method, replace(adapted, stop=settings.Stop((0.3,), 0.001)), 0.25, label=(c_a + 1) % 3).estimate) == 100


def test_an_adaptive_certificate_spends_what_its_look_may():
    method = settings.Method("M", "anderson", 3, batch=50)
    sampling = settings.Sampling(3, n0=20, n=400, reference=method, stop=settings.Stop((0.0, 0.1), 0.001))
    found = certify_image(three_classes(), torch.tensor([[[0.8, 0.3], [0.4, 0.5]]]), method, sampling, sigma=0.25)
    n_a, n = (found.votes.estimate == found.predict).sum(), len(found.votes.estimate)
    assert found.predict >= 0 and found.p_lower == lower_confidence_bound(n_a, n, 0.001 * Looks(400).share(n))


def test_a_profile_that_stops_is_certified_and_shown(srs_root):
    """From votes to the main table: each row at its look's share of alpha, as many images, and no vote too many."""
    methods = tuple(m for m in PROFILES["smoke"].methods if m.name in ("MDEQ-30A", "SRS-MDEQ-3A", "MDEQ-STOP"))
    run = smoke_run(adaptive=True, methods=methods, n=300, images=6)
    save_untrained(run)
    certify(run, progress=False)
    found = store.read_run(run)
    plain = found[found["method"] == "MDEQ-30A"]
    assert set(plain["n_max"]) == {300} and plain["n"].isin(Looks(300).at).all() and plain["n"].min() < 300
    assert (found.loc[found["method"] == "SRS-MDEQ-3A", ["n", "n_max"]] == [300, 0]).all(axis=None)
    rows = measures.certificates(found, alpha=run.profile.alpha)
    rows = rows[rows["rule"] == "cohen"]
    share = run.profile.alpha * Looks(300).share(rows["n"])
    np.testing.assert_array_equal(rows["p_lower"], lower_confidence_bound(rows["n_a"], rows["n"], share))
    shown = certified_accuracy.cost(store.read_counts(run.profile), run.profile).set_index("method")
    assert shown.loc["MDEQ-30A", "votes/image"] == plain["n"].mean()
