"""Adaptive sampling: as many votes as the question needs, at the same confidence as a fixed number of them.

Votes are looked at after 100, 125, 156, ... of them, up to N. Look j spends a share alpha_j of alpha, half of it at N and the
rest in equal parts before (alpha spending; Lan and DeMets 1983), on its own exact lower limit p_j (Clopper and Pearson):

- P[p_j > p_A] <= alpha_j at every look, however many votes are drawn in the end: the first n_j votes are n_j independent ones.
- By the union bound P[p_j <= p_A at all looks] >= 1 - sum_j alpha_j = 1 - alpha.
- So the limit of whichever look one stops at holds with probability 1 - alpha, by whatever rule one stops.
- All radii are one family of nested events: the certificate says "R >= r" for every r <= sigma Phi^-1(p_j), and none of these
  is wrong unless p_j > p_A. One alpha serves them all, and p_j is a function of the counts at the last look alone.

When it gives up a radius costs accuracy and never soundness. Only for votes that are independent and of one classifier (starts
`zero` and `train_mean`): an audit of K votes would have to be drawn anew at every look.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import betabinom, binom, norm

from srs import settings
from srs.smoothing.bounds import lower_confidence_bound, radius

FIRST, GROWTH = 100, 1.25  # the first look is after so many votes, the next after so many times as many
LAST = 0.5  # share of alpha that the look after all N votes spends


@dataclass(frozen=True)
class Looks:
    """When votes are looked at that are n at most."""

    n: int

    @property
    def at(self) -> tuple[int, ...]:
        """The numbers of votes at which to look, the last of them n."""
        looks, n = [], float(FIRST)
        while n * GROWTH**0.5 < self.n:  # no look just before the last
            looks.append(round(n))
            n *= GROWTH
        return (*looks, self.n)

    def share(self, n: ArrayLike) -> np.ndarray:
        """The share of alpha that the look after n votes spends, 1 over all looks; ConfigError if there is no such look."""
        settings.check(bool(np.isin(n, self.at).all()), "n", np.asarray(n).tolist(), f"numbers of votes among {self.at}")
        before = len(self.at) - 1
        return np.where(np.asarray(n) == self.n, LAST if before else 1.0, (1 - LAST) / max(before, 1))


def enough(n_a: int, n: int, *, sigma: float, stop: settings.Stop, looks: Looks) -> bool:
    """Whether each radius of `stop` is decided by n_a of n votes at a look, certified or out of reach of all N, and `keep` met.

    A radius is out of reach when a Beta-binomial forecast of the further votes (uniform prior on p_A) certifies it with
    probability `stop.missed` at most. This is stochastic curtailment (Lan, Simon and Halperin 1982) of the answer no.
    """
    if n == looks.n:
        return True
    need = norm.cdf(np.asarray(stop.radii) / sigma)
    low = lower_confidence_bound(n_a, n, stop.alpha * looks.share(n))
    most = binom.isf(stop.alpha * looks.share(looks.n), looks.n, need)  # of all N votes, that do not certify it
    reach = betabinom.sf(most - n_a, looks.n - n, n_a + 1, n - n_a + 1)
    of_all = lower_confidence_bound(n_a / n * looks.n, looks.n, stop.alpha * looks.share(looks.n))
    near = radius(low, sigma) >= stop.keep * radius(of_all, sigma)
    return bool(near and np.all((low >= need) & (low > 0.5) | (reach <= stop.missed)))  # p_A = 1/2 certifies nothing


def spent(alpha: float, n: ArrayLike, n_max: ArrayLike) -> ArrayLike:
    """The part of alpha that is left for certificates from n votes, drawn adaptively up to n_max; n_max 0: n was fixed."""
    n, n_max = np.broadcast_arrays(n, n_max)
    if not n_max.any():  # the rules for votes that need an audit take one alpha
        return alpha
    shares = [Looks(int(most)).share(own) if most else 1.0 for own, most in zip(n.ravel(), n_max.ravel())]
    return alpha * np.array(shares).reshape(n.shape)
