"""Adaptive decisions against fixed N, and against the probability with which they may be wrong."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from srs import store
from srs.analysis import measures
from srs.experiments import certified_accuracy
from srs.profiles import PROFILES
from srs.settings import ConfigError, Method, Sampling, Stop
from srs.smoothing import adaptive, votes
from srs.smoothing.adaptive import Looks
from srs.smoothing.bounds import lower_confidence_bound
from srs.smoothing.certify import certify, certify_image
from srs.smoothing.smooth import Smooth
from tests.helpers import save_untrained, smoke_run, three_classes
from tests.synthetic import counts

SIGMA, ALPHA = 0.5, 0.05
MOST = 200 * ALPHA + 3 * (200 * ALPHA * (1 - ALPHA)) ** 0.5  # wrong ones of 200: alpha and three standard errors
LOOKS = Looks(1_500)
STOP = Stop((0.0, 0.25, 0.5, 0.75), ALPHA)
X = torch.tensor([[[0.8, 0.3], [0.4, 0.5]]])
METHOD = Method("M", "anderson", 3, batch=50)
FIXED = Sampling(3, n0=20, n=400, reference=METHOD)
ADAPTED = replace(FIXED, stop=Stop((0.0, 0.1), 0.001))


def stopped(p: float, seed: int, radii=STOP.radii) -> tuple[int, int, int]:
    """Votes, and votes for c_A, at which an image of that p_A has enough for a table; and those for c_A of all N votes."""
    running = np.concatenate([[0], np.cumsum(np.random.default_rng(seed).random(LOOKS.n) < p)]).tolist()
    n = next(n for n in LOOKS.at if enough(running[n], n, radii))
    return n, running[n], running[-1]


@functools.cache
def enough(n_a: int, n: int, radii: tuple[float, ...]) -> bool:
    return adaptive.enough(n_a, n, sigma=SIGMA, stop=replace(STOP, radii=radii), looks=LOOKS)


def limits(n, n_a):
    return lower_confidence_bound(n_a, n, adaptive.spent(ALPHA, n, LOOKS.n))


def test_looks_grow_end_at_n_and_spend_all_of_alpha():
    assert Looks(10_000).at[:3] == (100, 125, 156) and Looks(10_000).at[-1] == 10_000
    assert Looks(40).at == (40,) and Looks(40).share(40) == 1
    assert list(LOOKS.at) == sorted(set(LOOKS.at))
    assert LOOKS.share(LOOKS.at).sum() == pytest.approx(1) and LOOKS.share(1_500) == 0.5
    assert adaptive.spent(ALPHA, [100, 1_500], [0, 1_500]) == pytest.approx([ALPHA, ALPHA / 2])  # 0: n was fixed


def wrong(radii) -> int:
    """How many of 200 images are certified at the largest of the radii, p_A just below what it needs: the worst case."""
    p = norm.cdf(max(radii) / SIGMA) - 1e-9
    n, n_a, _ = np.transpose([stopped(p, seed, radii) for seed in range(200)])
    return (limits(n, n_a) > p).sum()


def test_a_wrong_yes_is_rarer_than_alpha_and_a_test_that_does_not_spend_it_would_be_caught(monkeypatch):
    assert wrong((0.5,)) <= MOST and wrong(STOP.radii) <= MOST
    monkeypatch.setattr(Looks, "share", lambda looks, n: np.ones_like(n, float))  # the whole alpha at every look
    enough.cache_clear()
    assert wrong((0.5,)) > MOST
    enough.cache_clear()


def test_a_table_takes_fewer_votes_and_says_what_fixed_n_says():
    """What it gives up it could not have had, but for a chance of `missed` at each radius and the looks' share of alpha."""
    spent, lost, gained = [], 0, 0
    for seed, p in enumerate(np.random.default_rng(0).beta(4, 1.5, 200)):
        n, n_a, of_all = stopped(p, seed)
        need = norm.cdf(np.array(STOP.radii) / SIGMA)
        yes, fixed = limits(n, n_a) >= need, lower_confidence_bound(of_all, LOOKS.n, ALPHA) >= need
        spent, lost, gained = [*spent, n], lost + (fixed & ~yes).sum(), gained + (yes & ~fixed).sum()
    assert np.mean(spent) < LOOKS.n / 2 and lost <= 8 and gained <= 8  # of 800 decisions


def test_votes_stop_at_a_look_are_the_first_of_all_n_and_spend_what_the_look_may():
    model = three_classes()
    whole, some = (votes.draw_votes(model, X, METHOD, s, 0.25) for s in (FIXED, ADAPTED))
    n = len(some.estimate)
    assert n in Looks(400).at and n < 400 and np.array_equal(some.estimate, whole.estimate[:n])
    assert some.nfe[1] * 400 == whole.nfe[1] * n
    found = certify_image(model, X, METHOD, ADAPTED, sigma=0.25)
    assert found.p_lower == lower_confidence_bound((some.estimate == found.predict).sum(), n, 0.001 * Looks(400).share(n))
    auditing = Method("P", "anderson", 1, start="previous", batch=50, audit=5)
    assert len(votes.draw_votes(model, X, auditing, ADAPTED, 0.25).estimate) == 400  # an audit needs all n
    other = (np.bincount(some.select[some.select >= 0]).argmax() + 1) % 3
    hard = replace(FIXED, stop=Stop((0.3,), 0.001))
    assert len(votes.draw_votes(model, X, METHOD, hard, 0.25, label=other).estimate) == 100


def test_a_radius_to_five_percent_takes_a_part_of_the_votes():
    smooths = [Smooth(three_classes(), 3, 0.25, method=METHOD, keep=keep) for keep in (0.0, 0.95)]
    fixed, kept = ([smooth.certificate(X, n=4_000, idx=i) for i in range(10)] for smooth in smooths)
    assert {len(c.votes.estimate) for c in fixed} == {4_000} and np.mean([len(c.votes.estimate) for c in kept]) < 2_500
    assert 0.93 < np.mean([c.radius for c in kept]) / np.mean([c.radius for c in fixed]) < 1
    with pytest.raises(ConfigError, match="keep = 1.0 is refused"):
        Smooth(three_classes(), 3, keep=1.0)


def test_a_profile_that_stops_is_certified_and_shown(srs_root, monkeypatch):
    """From votes to the main table: each row at its look's share of alpha, as many images, and no vote too many."""
    methods = tuple(m for m in PROFILES["smoke"].methods if m.name in ("MDEQ-30A", "SRS-MDEQ-3A", "RS-tol"))
    run = smoke_run(adaptive=True, methods=methods, n=200, images=3)
    save_untrained(run)
    certify(run, progress=False)
    found = store.read_run(run)
    plain = found[found["method"] == "MDEQ-30A"]
    assert set(plain["n_max"]) == {200} and plain["n"].isin(Looks(200).at).all() and plain["n"].min() < 200
    assert (found.loc[found["method"] == "SRS-MDEQ-3A", ["n", "n_max"]] == [200, 0]).all(axis=None)
    rows = measures.certificates(found, alpha=run.profile.alpha).query("rule == 'cohen'")
    share = run.profile.alpha * Looks(200).share(rows["n"])
    np.testing.assert_array_equal(rows["p_lower"], lower_confidence_bound(rows["n_a"], rows["n"], share))
    # Decisions that differ from those of fixed N: of the first image, at 0.75 and 1.
    fixed = PROFILES["smoke"].runs[0]
    both = {run: counts({"n": 90, "n_a": 90}, {"n": 100, "n_a": 50}, {}), fixed: counts({"n": 400, "n_a": 400}, {"n_a": 5})}
    monkeypatch.setattr(store, "read_run", both.get)
    told = " Decisions that differ from those of 100 votes: 2 of 14 (MDEQ-30A)."
    assert certified_accuracy.adaptive_finding(run) == told and certified_accuracy.adaptive_finding(fixed) == ""
