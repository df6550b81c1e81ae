"""Measured soundness: how often each rule's certificate is false on classifiers whose true radius is known.

The votes of a surrogate for SRS are drawn sample by sample with serially correlated errors; no network is needed.
`python -m srs.soundness --out failure_rates.csv` runs every setting of `SETTINGS`.
"""

import argparse
import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.integrate import quad
from scipy.stats import norm
from tqdm import tqdm

from srs import store
from srs.bounds import DEFAULT_SPLIT, Counts, Rule, audit, certify, largest_radius, proportion_interval, theorem31

ALPHAS = (0.1, 0.01, 0.001)
TOP = 0  # the class of g at the point of every problem below
RIVAL = 1
VOTES_AT_ONCE = 2_000_000  # keeps the working arrays at tens of megabytes


# ---------------------------------------------------------------------------------------------- problems


class Problem(Protocol):
    """A base classifier h at a point x where the smoothed classifier g returns class TOP.

    `p_a` is the true probability of a vote for TOP, `radius` the true l2 distance to where g changes its class.
    """

    name: str
    classes: int
    sigma: float
    p_a: float
    radius: float

    def votes(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Independent votes h(x + e), int8."""


@dataclass(frozen=True)
class HalfSpace:
    """h = TOP on a half-space: the worst case of Cohen et al. 2019, where R = sigma Phi^-1(p_A) is exact."""

    p_a: float = 0.747  # near 3/4; the counts' lattice makes cohen's exact rate 0.82 to 0.97 alpha at N = 1e3, 1e4
    sigma: float = 0.5
    name: str = "half-space"
    classes: int = 2

    @property
    def radius(self) -> float:
        """sigma Phi^-1(p_A), the distance to the boundary of h, which is g's too."""
        return float(self.sigma * norm.ppf(self.p_a))

    def votes(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Votes from the noise's component along the normal, the only one that matters."""
        return (rng.standard_normal(shape) > norm.ppf(self.p_a)).astype(np.int8)


@dataclass(frozen=True)
class Linear:
    """h = argmax W x for a W with orthonormal rows, described by the scores W x at the point; scores[TOP] is largest.

    The scores' noise W e is N(0, sigma^2 I) in whatever dimension. Swapping two scores is a reflection that maps
    h to itself, so p_a > p_c on the side where score a > score c: g = h, and the smallest margin / sqrt 2 is g's
    true radius. With rows of other lengths and angles g's boundary is not h's, and no closed form is known.
    """

    scores: tuple[float, ...] = (0.5, 0.0, -1.0, -1.2)
    sigma: float = 0.5
    name: str = "linear"

    def __post_init__(self) -> None:
        if len(self.scores) < 2 or not self.scores[TOP] > max(self.scores[1:]):
            raise ValueError(f"scores are {self.scores}, but the first of at least two must be the largest.")

    @property
    def classes(self) -> int:
        return len(self.scores)

    @property
    def radius(self) -> float:
        """Smallest margin to another class, divided by |w_a - w_c| = sqrt 2."""
        return float((self.scores[TOP] - max(self.scores[1:])) / np.sqrt(2))

    @property
    def p_a(self) -> float:
        """P[TOP's noisy score is the largest] by quadrature over that score's noise."""
        margins = (self.scores[TOP] - np.array(self.scores[1:])) / self.sigma
        return quad(lambda z: norm.pdf(z) * np.prod(norm.cdf(z + margins)), -9, 9)[0]

    def votes(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Votes from independent noise on every score."""
        best = self.scores[TOP] + self.sigma * rng.standard_normal(shape)
        votes = np.zeros(shape, np.int8)
        for c, score in enumerate(self.scores[1:], start=1):
            noisy = score + self.sigma * rng.standard_normal(shape)
            votes[noisy > best] = c
            np.maximum(best, noisy, out=best)
        return votes


@dataclass(frozen=True)
class Surrogate:
    """SRS-like votes: standard votes with errors that come in runs along the chain.

    Attributes:
        over: share of the votes for other classes that are turned to TOP.
        under: share of the votes for TOP that are turned to RIVAL.
        persistence: correlation of the error mode between successive samples, in [0, 1).
    """

    over: float = 0.0
    under: float = 0.0
    persistence: float = 0.9

    def votes(self, rng: np.random.Generator, standard: np.ndarray) -> np.ndarray:
        """SRS votes beside the standard votes of the same noise; shape (certificates, n) as `standard`."""
        votes = standard.copy()
        votes[(standard != TOP) & self._error_mode(rng, standard.shape, self.over)] = TOP
        votes[(standard == TOP) & self._error_mode(rng, standard.shape, self.under)] = RIVAL
        return votes

    def _error_mode(self, rng: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
        """A stationary two-state Markov chain per row: redrawn with probability 1 - persistence, else kept."""
        if share == 0:
            return np.zeros(shape, bool)
        mode = rng.random(shape, np.float32) < share
        redrawn = rng.random(shape, np.float32) >= self.persistence
        redrawn[:, 0] = True
        last_redrawn = np.maximum.accumulate(np.where(redrawn, np.arange(shape[1], dtype=np.int32), 0), axis=1)
        return np.take_along_axis(mode, last_redrawn, axis=1)


# ---------------------------------------------------------------------------------------------- failure rates


@dataclass(frozen=True)
class FailureRate:
    """How often one rule's certificate was false; `lower` and `upper` are one-sided 99 % Clopper-Pearson limits."""

    problem: str
    over: float
    under: float
    persistence: float
    rule: str
    sound: bool
    alpha: float
    n: int
    audit_k: int
    certificates: int
    failures: int
    rate: float
    lower: float
    upper: float
    mean_radius: float
    true_radius: float

    @property
    def verdict(self) -> str:
        """`holds` if upper <= alpha + 3 standard errors, `refuted` if lower > alpha, else `undecided`.

        A rule that fails in exactly alpha of the cases is undecided in about one run of four, whatever the number
        of certificates: the limit lies 2.33 of the 3 standard errors away.
        """
        if self.lower > self.alpha:
            return "refuted"
        allowance = 3 * np.sqrt(self.alpha * (1 - self.alpha) / self.certificates)
        return "holds" if self.upper <= self.alpha + allowance else "undecided"


def audited_counts(rng: np.random.Generator, n: int, n_a: np.ndarray, agreeing: np.ndarray, audit_k: int) -> Counts:
    """Counts after both audits, drawn uniformly without replacement: K of all N (Theorem 3.1), min(K, N_A) of N_A.

    Args:
        rng: randomness of the audits, independent of the votes.
        n: samples.
        n_a: SRS votes for c_A, an array.
        agreeing: how many of them the standard DEQ gives to c_A too.
        audit_k: K.
    """
    n_2 = rng.hypergeometric(n_a, n - n_a, min(audit_k, n))
    n_1 = rng.hypergeometric(agreeing, n_a - agreeing, n_2)
    k = np.minimum(audit_k, n_a)
    m = rng.hypergeometric(n_a - agreeing, agreeing, k)
    return Counts(n=n, n_a=n_a, k=k, m=m, n_2=n_2, n_1=n_1)


def _select(votes: np.ndarray, classes: int) -> np.ndarray:
    """c_A of every row, the class with the most votes; ties go to the lowest index, as in bounds.top_class."""
    return np.stack([(votes == c).sum(axis=1) for c in range(classes)]).argmax(axis=0)


def _draw(
    problem: Problem, surrogate: Surrogate, rng: np.random.Generator, n: int, n0: int, certificates: int
) -> np.ndarray:
    """Selection on noise of its own, then the estimate; one column per certificate, five rows.

    Rows: c_A under the standard votes and the standard votes for it; c_A under SRS, the SRS votes for it, and how
    many of those the standard DEQ gives to it too.
    """
    first = problem.votes(rng, (certificates, n0))
    c_standard, c_srs = (_select(v, problem.classes) for v in (first, surrogate.votes(rng, first)))
    standard = problem.votes(rng, (certificates, n))
    chosen = surrogate.votes(rng, standard) == c_srs[:, None]
    agreeing = chosen & (standard == c_srs[:, None])
    n_standard = (standard == c_standard[:, None]).sum(axis=1)
    return np.stack([c_standard, n_standard, c_srs, chosen.sum(axis=1), agreeing.sum(axis=1)])


def failure_rates(
    problem: Problem,
    surrogate: Surrogate,
    *,
    rules: Iterable[str] = tuple(Rule),
    alphas: Iterable[float] = ALPHAS,
    n: int = 10_000,
    n0: int = 100,
    audit_k: int = 400,
    certificates: int = 10_000,
    seed: int = 0,
    split: float = DEFAULT_SPLIT,
    progress: Callable[[int], object] = lambda drawn: None,
) -> list[FailureRate]:
    """Measured failure rate of each rule: the share of certificates with R > true radius, or R > 0 for a wrong c_A.

    `cohen` is given the standard votes (plain RS), the other rules the surrogate's; all share the same noise, and
    every rule and alpha sees the same certificates.

    Args:
        problem: classifier with known radius.
        surrogate: how SRS votes differ from standard ones.
        rules: names of rules.
        alphas: failure probabilities that are promised.
        n: samples per certificate.
        n0: samples that select c_A.
        audit_k: K, samples solved again.
        certificates: independent repetitions.
        seed: of all randomness.
        split: share of alpha for the audit of `audit`.
        progress: called with the number of certificates drawn since the last call.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, certificates, size := max(1, VOTES_AT_ONCE // n)):
        drawn = min(size, certificates - start)
        parts.append(_draw(problem, surrogate, rng, n, n0, drawn))
        progress(drawn)
    c_standard, n_standard, c_srs, n_srs, agreeing = np.concatenate(parts, axis=1)
    plain, srs = Counts(n=n, n_a=n_standard), audited_counts(rng, n, n_srs, agreeing, audit_k)

    rows = []
    for rule, alpha in product(map(Rule, rules), alphas):
        counts, c_a = (plain, c_standard) if rule is Rule.COHEN else (srs, c_srs)
        _, radii = certify(rule, counts, problem.sigma, alpha, split)
        failures = int(np.sum(radii > np.where(c_a == TOP, problem.radius, 0.0)))
        lower, upper = proportion_interval(failures, certificates, 0.98)  # 99 % on either side
        setting = (problem.name, surrogate.over, surrogate.under, surrogate.persistence)
        promise = (rule.value, rule.sound, alpha, n, audit_k, certificates)
        measured = (failures, failures / certificates, float(lower), float(upper), float(radii.mean()))
        rows.append(FailureRate(*setting, *promise, *measured, problem.radius))
    return rows


# ---------------------------------------------------------------------------------------------- caps and splits


@dataclass(frozen=True)
class Cap:
    """The largest radius that a rule can certify at all."""

    rule: str
    sound: bool
    n: int
    audit_k: int
    sigma: float
    alpha: float
    radius: float


def measured_caps(
    *, rules: Iterable[str], ns: Sequence[int], audit_ks: Sequence[int], sigma: float, alpha: float
) -> list[Cap]:
    """Largest certifiable radius per rule, N and K <= N: all votes for c_A, and no audited one disagrees."""
    return [
        Cap(rule.value, rule.sound, n, k, sigma, alpha, float(largest_radius(rule, n, k, sigma, alpha)))
        for rule in map(Rule, rules)
        for n, k in product(ns, audit_ks)
        if k <= n
    ]


@dataclass(frozen=True)
class SplitGain:
    """Mean radius of `audit` at one split beside theorem31's, over the same simulated images."""

    n: int
    audit_k: int
    split: float
    audit_radius: float
    theorem31_radius: float
    share_at_least: float  # of images on which audit's radius is no smaller


def simulated_images(rng: np.random.Generator, n: int, audit_k: int, images: int) -> Counts:
    """Counts of images with p_A from 1/2 to 1, half of them crowded towards 1, and 0 to 30 % of other votes turned."""
    even = rng.uniform(0.5, 1, images)
    crowded = 1 - 0.5 * rng.beta(0.3, 1, images)  # the shape that certified images of a trained model have
    p_a = np.where(np.arange(images) % 2, even, crowded)
    agreeing = rng.binomial(n, p_a)
    turned = rng.binomial(n - agreeing, rng.choice([0.0, 0.02, 0.1, 0.3], images))
    return audited_counts(rng, n, agreeing + turned, agreeing, audit_k)


def compare_splits(
    splits: Iterable[float],
    *,
    n: int = 10_000,
    audit_k: int = 400,
    sigma: float = 0.5,
    alpha: float = 0.001,
    images: int = 2_000,
    seed: int = 0,
) -> list[SplitGain]:
    """Mean radius of `audit` per split of alpha, and theorem31's, over `simulated_images`; an abstention counts 0."""
    counts = simulated_images(np.random.default_rng(seed), n, audit_k, images)
    _, paper = certify(Rule.THEOREM31, counts, sigma, alpha)
    rows = []
    for split in splits:
        _, ours = certify(Rule.AUDIT, counts, sigma, alpha, split)
        means = float(ours.mean()), float(paper.mean())
        rows.append(SplitGain(n, audit_k, split, *means, float(np.mean(ours >= paper))))
    return rows


def audit_gain(
    *, n: int, audit_k: int, alpha: float, split: float = 0.5, votes: int = 40, disagreements: int = 20
) -> np.ndarray:
    """p_lower of `audit` less theorem31's over a grid of N_A and m, shape (votes, disagreements); >= 0 at split 1/2.

    In a cell both rules have audited the same number of votes for c_A with the same outcome: n_2 = k, n_2 - n_1 = m.
    """
    n_a = np.linspace(0, n, votes).round().astype(int)[:, None]
    k = np.minimum(audit_k, n_a)
    m = (np.linspace(0, 1, disagreements) ** 2 * k).round().astype(int)  # squared: few disagreements matter most
    counts = Counts(n=n, n_a=n_a, k=k, m=m, n_2=k, n_1=k - m)
    return audit(counts, alpha, split) - theorem31(counts, alpha)


# ---------------------------------------------------------------------------------------------- command line

SETTINGS: tuple[tuple[Problem, Surrogate], ...] = (
    (HalfSpace(), Surrogate(over=0.2)),
    (HalfSpace(), Surrogate(over=0.4, under=0.01, persistence=0.99)),
    (Linear(), Surrogate(over=0.2)),
    (Linear(), Surrogate(over=0.4, under=0.01, persistence=0.99)),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the failure rates of all rules in all SETTINGS and write them as CSV."""
    parser = argparse.ArgumentParser(prog="python -m srs.soundness", description=main.__doc__)
    parser.add_argument("--certificates", type=int, default=10_000, help="per setting")
    parser.add_argument("--n", type=int, default=10_000, help="samples per certificate")
    parser.add_argument("--audit-k", type=int, default=400, help="samples solved again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="CSV file")
    chosen = parser.parse_args(arguments)

    rows = []
    with tqdm(total=chosen.certificates * len(SETTINGS), unit="certificate") as bar:
        for index, (problem, surrogate) in enumerate(SETTINGS):
            sizes = {"n": chosen.n, "audit_k": chosen.audit_k, "certificates": chosen.certificates}
            rows += failure_rates(problem, surrogate, **sizes, seed=chosen.seed + index, progress=bar.update)
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(FailureRate)])
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    store.write(chosen.out, text.getvalue().encode())
    for row in rows:
        print(
            f"{row.problem:10} {row.rule:9} {'' if row.sound else '(unsound) '}alpha {row.alpha:<5} "
            f"rate {row.rate:.4f} in [{row.lower:.4f}, {row.upper:.4f}]: {row.verdict}"
        )


if __name__ == "__main__":
    main()
