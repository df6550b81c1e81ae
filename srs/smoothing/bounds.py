"""Certification rules: from vote counts to a lower bound on p_A and a certified l2 radius.

A rule of your own: a name in `Rule`, `sound` if proved, a function of `Counts` and alpha in `RULES`, its votes in `rules_for`.

Needs numpy and scipy only: every certificate is computed from stored integer counts, without the network.
All functions take numbers or numpy arrays of counts; alpha, split and sigma are plain numbers.
"""

import warnings
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln
from scipy.stats import beta, norm

from srs.settings import ABSTAIN, check

# Share of alpha that `audit` spends on the disagreements: best mean radius over the images of tests/test_simulation.py for both
# (N, K) = (10,000, 400) and (1,000, 100); anything from 0.6 to 0.9 is within 1 % of it.
DEFAULT_SPLIT = 0.75


class UnsoundRuleWarning(UserWarning):
    """A rule was used whose certificates are known not to hold."""


class Rule(StrEnum):
    """The known certification rules."""

    COHEN = "cohen"
    THEOREM31 = "theorem31"
    RELEASED = "released"
    AUDIT = "audit"

    @property
    def sound(self) -> bool:
        """Whether the rule fails with probability at most alpha; `released` has no such guarantee."""
        return self in (Rule.COHEN, Rule.THEOREM31, Rule.AUDIT)


def _check_share(name: str, value: ArrayLike) -> None:
    check(np.all((np.asarray(value) > 0) & (np.asarray(value) < 1)), name, value, "a share strictly between 0 and 1")


@dataclass(frozen=True)
class Counts:
    """Vote counts of one image, or arrays of them, as in Theorem 3.1 and `audit`; ConfigError for impossible ones."""

    n: ArrayLike  # noisy samples drawn for the estimate (N)
    n_a: ArrayLike  # votes for c_A among them (N_A)
    k: ArrayLike = 0  # votes for c_A, drawn uniformly without replacement, that the standard DEQ solved again
    m: ArrayLike = 0  # of these k, how many the standard DEQ gives to another class
    n_2: ArrayLike = 0  # votes for c_A among K samples drawn uniformly from all N (N_2)
    n_1: ArrayLike = 0  # of these n_2, how many the standard DEQ gives to c_A too (N_1)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check(np.issubdtype(np.asarray(value).dtype, np.integer), name, value, "whole numbers")
        check(np.all(np.greater_equal(self.n, 1)), "n", self.n, "at least 1 sample")
        for name, ceiling in (("n_a", "n"), ("k", "n_a"), ("m", "k"), ("n_2", "n_a"), ("n_1", "n_2")):
            value, top = getattr(self, name), getattr(self, ceiling)
            check(np.all(np.greater_equal(value, 0) & np.less_equal(value, top)), name, value, f"between 0 and {ceiling}")


def lower_confidence_bound(successes: ArrayLike, trials: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """LowerConfBound of Cohen et al. 2019: the one-sided Clopper-Pearson lower limit of a proportion.

    It exceeds the true proportion with probability at most alpha, is 0 without successes, and takes real values, as N_A^E.
    """
    _check_share("alpha", alpha)
    successes, trials, alpha = np.broadcast_arrays(*(np.asarray(value, float) for value in (successes, trials, alpha)))
    check(np.all((successes >= 0) & (successes <= trials)), "successes", successes, "between 0 and trials")
    return np.nan_to_num(beta.ppf(alpha, successes, trials - successes + 1.0))  # no number without successes: the limit is 0


def largest_disagreement(n_a: ArrayLike, k: ArrayLike, m: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """M_U of the rule `audit`: the largest M with P[Hypergeom(N_A, M, k) <= m] >= alpha.

    If M of the N_A votes for c_A disagree and k of them, drawn uniformly without replacement, are audited, of which m
    disagree, then M <= M_U with probability at least 1 - alpha over the draw, however the votes depend on each other.
    Exact up to N_A of a million or so; beyond, the probability's rounding grows, and M_U may be larger, never smaller.
    """
    _check_share("alpha", alpha)
    n_a, k, m, alpha = np.broadcast_arrays(*(np.asarray(value, float) for value in (n_a, k, m, alpha)))
    check(np.all((0 <= m) & (m <= k) & (k <= n_a)), "m, k, n_a", (m, k, n_a), "0 <= m <= k <= n_a")
    # Many images share their counts: each distinct case is solved once.
    cases, place = np.unique(np.stack([part.ravel() for part in (n_a, k, m, alpha)]), axis=1, return_inverse=True)
    (votes, audited, found), alpha = cases[:3].astype(np.int64), cases[3]
    low, high = found.copy(), votes - (audited - found)  # the cdf is 1 at m and 0 above n_a - (k - m)
    log_factorial = np.append(gammaln(np.arange(votes.max(initial=0) + 1) + 1), np.inf)  # the last: of -1
    # Rounding must not shrink M_U where the probability is near alpha: the slack errs on the safe side. It is that of nine
    # log-factorials, none larger than that of n_a.
    threshold = alpha * (1 - np.maximum(1e-8, 9 * np.finfo(float).eps * log_factorial[votes]))
    while np.any(low < high):
        middle = (low + high + 1) // 2
        plausible = _hypergeom_cdf(found, votes, middle, audited, log_factorial) >= threshold
        low, high = np.where(plausible, middle, low), np.where(plausible, high, middle - 1)
    return low[place.ravel()].reshape(n_a.shape)[()]


def _hypergeom_cdf(m: np.ndarray, n_a: np.ndarray, wrong: np.ndarray, k: np.ndarray, log_factorial: np.ndarray) -> np.ndarray:
    """P[Hypergeom(n_a, wrong, k) <= m] for m <= wrong; scipy's factors each probability into primes: slow."""
    first = np.cumsum(m + 1) - (m + 1)
    j = np.arange((m + 1).sum()) - np.repeat(first, m + 1)  # 0 to m of the first triple, then of the second, ...
    n_a, wrong, k = (np.repeat(values, m + 1) for values in (n_a, wrong, k))
    chosen = ((wrong, j), (n_a - wrong, k - j), (n_a, k))  # of -1, too few to take from, it is infinite
    logs = [log_factorial[of] - log_factorial[i] - log_factorial[np.maximum(of - i, -1)] for of, i in chosen]
    return np.add.reduceat(np.exp(logs[0] + logs[1] - logs[2]), first)


def cohen(counts: Counts, alpha: ArrayLike) -> np.ndarray:
    """p_lower of RS (Cohen et al. 2019): LowerConfBound(N_A, N, 1 - alpha). Holds for independent votes, not for SRS."""
    return lower_confidence_bound(counts.n_a, counts.n, alpha)


def theorem31(counts: Counts, alpha: float) -> np.ndarray:
    """p_lower of the paper's Theorem 3.1: LowerConfBound(N_A - p_m_upper N_A, N, 1 - alpha/2).

    1 - p_m_upper = LowerConfBound(N_1, N_2, 1 - alpha/2), the share of votes that agree; 0 without an audit.
    As published, the agreement step takes N_1 of N_2 for binomial, though the audit draws without replacement. Its limit can
    fail too often (3/19 at level 0.15, if 1 of N_A = 19 agrees and 3 are audited), at no share above 1/2 that tests try.
    """
    share = lower_confidence_bound(counts.n_1, counts.n_2, alpha / 2)
    return lower_confidence_bound(share * counts.n_a, counts.n, alpha / 2)


def released(counts: Counts, alpha: float) -> np.ndarray:
    """p_lower of the authors' released code, UNSOUND: LowerConfBound(c N_A, c N, 1 - alpha/2), c = 1 - p_m_upper.

    N_A / N is never reduced, so SRS votes that over-predict c_A are believed. For comparison with the published tables.
    """
    share = lower_confidence_bound(counts.n_1, counts.n_2, alpha / 2)
    # min: the two products round separately, and N_A = N must not end up above the number of trials
    return lower_confidence_bound(np.minimum(share * counts.n_a, share * counts.n), share * counts.n, alpha / 2)


def audit(counts: Counts, alpha: float, split: float = DEFAULT_SPLIT) -> np.ndarray:
    """p_lower of our rule: LowerConfBound(N_A - M_U, N, 1 - a2), M_U at level a1 = split alpha, a1 + a2 = alpha.

    Of N i.i.d. standard votes at least N_A - M_U are for c_A, with probability 1 - a1 over the audit's draw;
    the union bound adds the Clopper-Pearson limit's a2. Nothing is assumed about the SRS votes.
    The split may depend on the selection sample, never on the estimation sample.
    """
    _check_share("alpha", alpha)
    _check_share("split", split)
    a1 = split * alpha
    certain = np.asarray(counts.n_a) - largest_disagreement(counts.n_a, counts.k, counts.m, a1)
    return lower_confidence_bound(certain, counts.n, alpha - a1)


RULES = {Rule.COHEN: cohen, Rule.THEOREM31: theorem31, Rule.RELEASED: released, Rule.AUDIT: audit}


def rules_for(needs_audit: bool) -> tuple[Rule, ...]:
    """The rules under which votes are shown: independent standard votes need no audit, serialized ones do."""
    return (Rule.AUDIT, Rule.THEOREM31, Rule.RELEASED) if needs_audit else (Rule.COHEN,)


def radius(p_lower: ArrayLike, sigma: float) -> np.ndarray:
    """R = sigma Phi^-1(p_lower) (Cohen et al. 2019, Theorem 1), and 0 where p_lower <= 1/2: abstain."""
    p_lower = np.asarray(p_lower, float)
    return np.where(p_lower > 0.5, sigma * norm.ppf(np.maximum(p_lower, 0.5)), 0.0)[()]


def certify(rule: str, counts: Counts, sigma: float, alpha: ArrayLike, *, warn: bool = True) -> tuple[np.ndarray, ...]:
    """p_lower and the certified radius of c_A under a rule; they hold with probability 1 - alpha if it is sound.

    Warns of `released`, but for what names its rule where it is shown. ConfigError: sigma is not positive, alpha not in (0, 1).
    """
    if warn and not Rule(rule).sound:
        warnings.warn(f"the rule '{rule}' is unsound: its certificates may not hold", UnsoundRuleWarning, stacklevel=2)
    check(0 < sigma < np.inf, "sigma", sigma, "a positive, finite standard deviation")
    _check_share("alpha", alpha)
    p_lower = RULES[Rule(rule)](counts, alpha)
    return p_lower, radius(p_lower, sigma)


def certificates(counts, rule: str, sigma: float, alpha: ArrayLike) -> tuple[np.ndarray, ...]:
    """p_lower, the certified class (ABSTAIN where p_lower <= 1/2 or no class was selected) and the radius of rows of counts.

    A count that was not taken (-1) is none, so nothing is certified from it. alpha may be each row's own (`adaptive.spent`).
    """
    taken = {name: np.maximum(np.asarray(counts[name]), 0) for name in ("n_a", "k", "m", "n_2", "n_1")}
    taken["k"] = np.where(np.asarray(counts["m"]) < 0, 0, taken["k"])  # solved again, but not compared
    p_lower, reach = certify(rule, Counts(n=np.asarray(counts["n"]), **taken), sigma, alpha, warn=False)
    c_a = np.asarray(counts["c_a"])
    certified = (p_lower > 0.5) & (c_a != ABSTAIN)
    return p_lower, np.where(certified, c_a, ABSTAIN), np.where(certified, reach, 0.0)


def largest_radius(rule: str, n: ArrayLike, audit_k: ArrayLike, sigma: float, alpha: float) -> np.ndarray:
    """The largest radius a rule can certify: all N votes for c_A, no disagreement among the K audited ones."""
    k = np.minimum(audit_k, n)
    return certify(rule, Counts(n=n, n_a=n, k=k, m=0, n_2=k, n_1=k), sigma, alpha, warn=False)[1]


def top_class(votes: ArrayLike, classes: int) -> int:
    """The class with the most votes, the lowest of those with as many; ABSTAIN if every vote abstains."""
    votes = np.asarray(votes, int)
    valid = votes[votes >= 0]
    return int(np.bincount(valid, minlength=classes).argmax()) if valid.size else ABSTAIN


def proportion_interval(successes: ArrayLike, trials: ArrayLike, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided Clopper-Pearson interval of a proportion, such as certified accuracy over images; (0, 1) without trials."""
    _check_share("confidence", confidence)
    tail = (1 - confidence) / 2
    failures = np.asarray(trials) - np.asarray(successes)
    return lower_confidence_bound(successes, trials, tail), 1 - lower_confidence_bound(failures, trials, tail)
