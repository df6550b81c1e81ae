"""Adaptive sampling: as many votes as the question needs, at the same confidence as a fixed number of them.

Votes are looked at after 100, 125, 156, ... of them, up to N. Look j spends a share alpha_j of alpha, half of it at N and the
rest in equal parts before (alpha spending; Lan and DeMets 1983), on its own exact lower limit p_j (Clopper and Pearson):

- P[p_j > p_A] <= alpha_j at every look, however many votes are drawn in the end: the first n_j votes are n_j independent ones.
- By the union bound P[p_j <= p_A at all looks] >= 1 - sum_j alpha_j = 1 - alpha.
- So the limit of whichever look one stops at holds with probability 1 - alpha, by whatever rule one stops.
- All radii are one family of nested events: the certificate says "R >= r" for every r <= sigma Phi^-1(p_j), and none of these
  is wrong unless p_j > p_A. One alpha serves them all, and p_j is a function of the counts at the last look alone.

When it gives up a radius costs accuracy and never soundness. Only for votes that are independent and of one classifier (starts
`zero` and `anchor`): an audit of K votes would have to be drawn anew at every look.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import betabinom, binom, norm

from srs import settings
from srs.smoothing.bounds import ABSTAIN, lower_confidence_bound

Count = Callable[[int], int]  # votes for c_A among the first n


@dataclass(frozen=True)
class Looks:
    """When the votes are looked at: after `first` of them, then `growth` times as many, and last after n."""

    n: int = 10_000
    first: int = 100
    growth: float = 1.25
    last: float = 0.5  # share of alpha that the look after n spends

    def __post_init__(self):
        settings.check_count(self.n, 1, "n")
        settings.check_count(self.first, 1, "first")
        settings.check(self.growth > 1, "growth", self.growth, "a factor above 1")
        settings.check(0 < self.last < 1, "last", self.last, "a share strictly between 0 and 1")

    @property
    def at(self) -> tuple[int, ...]:
        """The numbers of votes at which to look, the last of them n."""
        looks, n = [], float(self.first)
        while n * self.growth**0.5 < self.n:  # no look just before the last
            looks.append(round(n))
            n *= self.growth
        return tuple(dict.fromkeys((*looks, self.n)))  # what is rounded to the same number is one look

    def share(self, n: ArrayLike) -> np.ndarray:
        """The share of alpha that the look after n votes spends; all looks together spend 1.

        Raises:
            ConfigError: there is no look after n votes.
        """
        settings.check(bool(np.isin(n, self.at).all()), "n", np.asarray(n).tolist(), f"numbers of votes among {self.at}")
        before = len(self.at) - 1
        return np.where(np.asarray(n) == self.n, self.last if before else 1.0, (1 - self.last) / max(before, 1))


class Decision(NamedTuple):
    """Whether the radius is at least r, and the votes that it took to say so."""

    certified: bool
    n: int


class Estimate(NamedTuple):
    """A certified radius, and the votes that were worth drawing for it."""

    radius: float
    p_lower: float
    n: int


def looks_of(method: settings.Method, sampling: settings.Sampling) -> Looks | None:
    """When a method's votes on an image are looked at; None where it draws all n of them."""
    return Looks(sampling.n) if sampling.n_max(method) else None


def enough(n_a: int, n: int, *, sigma: float, stop: settings.Stop, looks: Looks) -> bool:
    """Whether each radius is decided at this look: certified, or out of reach of the look after all N votes.

    A radius is out of reach when a Beta-binomial forecast of the further votes (uniform prior on p_A) certifies it with
    probability `stop.missed` at most. This is stochastic curtailment (Lan, Simon and Halperin 1982) of the answer no.

    Args:
        n_a: votes for c_A.
        n: votes, the number of a look.
        sigma: noise level.
        stop: the radii and the probabilities.
        looks: when to look.
    """
    if n == looks.n:
        return True
    need = norm.cdf(np.asarray(stop.radii) / sigma)
    certified = _certifies(n_a, n, need, stop.alpha * looks.share(n))
    return bool(np.all(certified | (_reach(n_a, n, need, stop.alpha, looks) <= stop.missed)))


def _certifies(n_a: ArrayLike, n: int, need: np.ndarray, alpha: ArrayLike) -> np.ndarray:
    low = lower_confidence_bound(n_a, n, alpha)
    return (low >= need) & (low > 0.5)  # p_A of one half itself certifies nothing


def _reach(n_a: int, n: int, need: np.ndarray, alpha: float, looks: Looks) -> np.ndarray:
    """The forecast probability that the look after all N votes certifies each radius."""
    most = binom.isf(alpha * looks.share(looks.n), looks.n, need)  # of all N votes, that do not certify it
    return betabinom.sf(most - n_a, looks.n - n, n_a + 1, n - n_a + 1)


def spent(alpha: float, n: ArrayLike, n_max: ArrayLike) -> ArrayLike:
    """The part of alpha that is left for the certificate of rows of counts.

    Args:
        alpha: failure probability of each certificate.
        n: votes of each row.
        n_max: the most votes that an adaptively drawn row could have had; 0 where n was fixed.
    """
    n, n_max = np.broadcast_arrays(n, n_max)
    if not n_max.any():  # the rules for votes that need an audit take one alpha
        return alpha
    return alpha * np.array([Looks(int(most)).share(own) if most else 1.0 for own, most in zip(n.ravel(), n_max.ravel())]).reshape(n.shape)


def decide(count: Count, r: float, *, sigma: float, alpha: float, missed: float = 0.001, looks: Looks = Looks()) -> Decision:
    """Decide whether the certified radius is at least r, that is p_A >= Phi(r / sigma), by a group sequential test.

    It says yes wrongly with probability at most alpha.

    Args:
        count: votes for c_A among the first n votes; called with growing n.
        r: radius in units of [0, 1] pixels.
        sigma: noise level.
        alpha: failure probability.
        missed: it says no once all N votes would certify r with at most this probability.
        looks: when to look.
    """
    stop = settings.Stop((r,), alpha, missed)
    n = next(n for n in looks.at if enough(count(n), n, sigma=sigma, stop=stop, looks=looks))
    return Decision(bool(_certifies(count(n), n, norm.cdf(r / sigma), alpha * looks.share(n))), n)


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

    def certificate(n: int, n_a: float) -> tuple[float, float]:
        p_lower = float(lower_confidence_bound(n_a, n, alpha * looks.share(n)))
        return (float(sigma * norm.ppf(p_lower)) if p_lower > 0.5 else 0.0), p_lower

    best = (0.0, 0.0)
    for n in looks.at:
        n_a = count(n)
        best = max(best, certificate(n, n_a))  # all looks hold at once, so the largest does
        if 1 - lower_confidence_bound(n - n_a, n, alpha * looks.share(n)) <= 0.5:
            break  # c_A does not have a majority
        promises = [(certificate(m, n_a * m / n)[0] - best[0]) / (m - n) for m in looks.at if m > n]
        if 1_000 * max(promises, default=0.0) < gain:
            break
    return Estimate(*best, n)


def stored(estimated: np.ndarray, c_a: int) -> Count:
    """The counts of stored votes: what a test would have seen that drew the same votes one after another."""
    running = np.concatenate([[0], np.cumsum((estimated == c_a) & (c_a != ABSTAIN))])
    return lambda n: int(running[n])
