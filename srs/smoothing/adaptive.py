"""Adaptive sampling: as many votes as the question needs, at the same confidence as a fixed number of them.

Votes are looked at after 50, 75, 113, ... of them, up to N. Each of the J looks spends alpha/J on its own exact
(Clopper-Pearson) bound, so that by the union bound all of them hold at once with probability 1 - alpha, whenever one
stops: alpha spending (Lan and DeMets 1983) in equal parts. Only for votes that are independent and of one classifier
(starts `zero` and `anchor`): an audit of K votes would have to be drawn anew at every look.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from srs import settings
from srs.smoothing.bounds import ABSTAIN, lower_confidence_bound

Count = Callable[[int], int]  # votes for c_A among the first n


@dataclass(frozen=True)
class Looks:
    """When the votes are looked at: after `first` of them, then `growth` times as many, and last after n."""

    n: int = 10_000
    first: int = 50
    growth: float = 1.5

    def __post_init__(self):
        settings.check_count(self.n, 1, "n")
        settings.check_count(self.first, 1, "first")
        settings.check(self.growth > 1, "growth", self.growth, "a factor above 1")

    @property
    def at(self) -> tuple[int, ...]:
        """The numbers of votes at which to look, the last of them n."""
        looks, n = [], float(self.first)
        while n * self.growth**0.5 < self.n:  # no look just before the last
            looks.append(round(n))
            n *= self.growth
        return tuple(dict.fromkeys((*looks, self.n)))  # what is rounded to the same number is one look


class Decision(NamedTuple):
    """Whether the radius is at least r, and the votes that it took to say so."""

    certified: bool
    n: int


class Estimate(NamedTuple):
    """A certified radius, and the votes that were worth drawing for it."""

    radius: float
    p_lower: float
    n: int


def decide(count: Count, r: float, *, sigma: float, alpha: float, looks: Looks = Looks()) -> Decision:
    """Decide whether the certified radius is at least r, that is p_A >= Phi(r / sigma), by a group sequential test.

    It says yes wrongly with probability at most alpha. It says no as soon as the same bound from above, at the same
    alpha, shows that p_A is smaller, and after all n votes in any case.

    Args:
        count: votes for c_A among the first n votes; called with growing n.
        r: radius in units of [0, 1] pixels.
        sigma: noise level.
        alpha: failure probability.
        looks: when to look.
    """
    settings.check(r >= 0, "r", r, "a radius of 0 or more")
    need, share = norm.cdf(r / sigma), alpha / len(looks.at)
    for n in looks.at:
        n_a = count(n)
        low = lower_confidence_bound(n_a, n, share)
        if low >= need and low > 0.5:  # p_A of one half itself certifies nothing
            return Decision(True, n)
        if 1 - lower_confidence_bound(n - n_a, n, share) < need:
            return Decision(False, n)
    return Decision(False, looks.n)


def estimate(count: Count, *, sigma: float, alpha: float, gain: float, looks: Looks = Looks()) -> Estimate:
    """A certified radius from as many votes as pay: stop once 1,000 further votes promise less than `gain` of radius.

    The promise is the best of what any later look would give if the share of votes for c_A stayed the same.

    Args:
        count: votes for c_A among the first n votes; called with growing n.
        sigma: noise level.
        alpha: failure probability of the radius, whenever it stops.
        gain: radius per 1,000 votes, in units of [0, 1] pixels.
        looks: when to look.
    """
    share = alpha / len(looks.at)

    def certificate(n: int, n_a: float) -> tuple[float, float]:
        p_lower = float(lower_confidence_bound(n_a, n, share))
        return (float(sigma * norm.ppf(p_lower)) if p_lower > 0.5 else 0.0), p_lower

    best = (0.0, 0.0)
    for n in looks.at:
        n_a = count(n)
        best = max(best, certificate(n, n_a))  # all looks hold at once, so the largest does
        if 1 - lower_confidence_bound(n - n_a, n, share) <= 0.5:
            break  # c_A does not have a majority
        promises = [(certificate(m, n_a * m / n)[0] - best[0]) / (m - n) for m in looks.at if m > n]
        if 1_000 * max(promises, default=0.0) < gain:
            break
    return Estimate(*best, n)


def stored(estimated: np.ndarray, c_a: int) -> Count:
    """The counts of stored votes: what a test would have seen that drew the same votes one after another."""
    running = np.concatenate([[0], np.cumsum((estimated == c_a) & (c_a != ABSTAIN))])
    return lambda n: int(running[n])
