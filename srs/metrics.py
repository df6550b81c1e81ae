"""From stored tallies to the paper's measures: certified accuracy, ACR, RRD, p_m, gap, cost. No network, no torch.

Images without a certificate: an abstention is never correct and counts radius 0 in certified accuracy and ACR; RRD
is taken over the images that standard RS certifies; p_m and gap need votes for c_A only, certified or not, and are
nan where there are none.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from srs.smoothing import bounds
from srs.smoothing.bounds import ABSTAIN, Counts


class Certificates(NamedTuple):
    """What a rule says about each image."""

    predict: np.ndarray  # c_A, or ABSTAIN
    radius: np.ndarray  # certified l2 radius, 0 where it abstains


def counts(tallies: np.ndarray) -> Counts:
    """The tallies as the rules want them: a count that was not taken (-1) is none, so nothing is certified from it."""
    taken = {name: np.maximum(tallies[name], 0) for name in ("n_a", "k", "m", "n_2", "n_1")}
    return Counts(n=tallies["n"], **taken)


def certificates(
    tallies: np.ndarray, *, rule: str, sigma: float, alpha: float, split: float = bounds.DEFAULT_SPLIT
) -> Certificates:
    """c_A and its radius under a rule; ABSTAIN and 0 where p_lower <= 1/2 or no selection sample had a class.

    Args:
        tallies: as read by `results.read_tallies`.
        rule: name of a `bounds.Rule`; `released` warns.
        sigma: standard deviation of the noise, in units of [0, 1] pixels.
        alpha: failure probability of each certificate.
        split: share of alpha that the rule `audit` spends on the disagreements.
    """
    p_lower, radius = bounds.certify(rule, counts(tallies), sigma, alpha, split)
    certified = (p_lower > 0.5) & (tallies["c_a"] != ABSTAIN)
    return Certificates(np.where(certified, tallies["c_a"], ABSTAIN), np.where(certified, radius, 0.0))


def correct(certificates: Certificates, label: ArrayLike) -> np.ndarray:
    """Whether the certified class is the label; an abstention never is."""
    return (certificates.predict == np.asarray(label)) & (certificates.predict != ABSTAIN)


def certified_counts(correct: ArrayLike, radius: ArrayLike, radii: ArrayLike) -> np.ndarray:
    """How many images are classified rightly with a radius of at least r, for each r of `radii`."""
    held = np.where(np.asarray(correct, bool), radius, -np.inf)
    return np.array([np.count_nonzero(held >= r) for r in np.atleast_1d(radii)])


def certified_accuracy(correct: ArrayLike, radius: ArrayLike, radii: ArrayLike) -> np.ndarray:
    """Share of all images that are classified rightly with a radius of at least r; nan without images."""
    images = len(np.asarray(correct))
    return certified_counts(correct, radius, radii) / (images or np.nan)


def average_certified_radius(correct: ArrayLike, radius: ArrayLike) -> float:
    """ACR (Zhai et al. 2020): the mean radius over all images, wrong ones and abstentions counting 0."""
    held = np.where(np.asarray(correct, bool), radius, 0.0)
    return float(held.mean()) if held.size else float("nan")


def relative_radius_difference(rs: Certificates, srs: Certificates) -> np.ndarray:
    """RRD = |r_RS - r_SRS| / r_RS of every image that standard RS certifies, rightly or not.

    An SRS certificate for another class than standard RS's protects another statement: it counts radius 0, like an
    abstention, so that the RRD is 1.
    """
    certified = (rs.predict != ABSTAIN) & (rs.radius > 0)
    same = srs.predict == rs.predict
    r_rs, r_srs = rs.radius[certified], np.where(same, srs.radius, 0.0)[certified]
    return np.abs(r_rs - r_srs) / r_rs


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, nan where part was not taken (-1) or whole is 0."""
    return np.where((part >= 0) & (whole > 0), part / np.maximum(whole, 1), np.nan)


def p_m(tallies: np.ndarray) -> np.ndarray:
    """p_m of each image: share of the votes for c_A that its auditor, on the same noise, does not give."""
    return _ratio(tallies["n_wrong"], tallies["n_a"])


def audited_p_m(tallies: np.ndarray) -> np.ndarray:
    """The same share among the audited votes alone, an estimate of p_m; nan without an audit."""
    return _ratio(tallies["m"], tallies["k"])


def p_m_upper(tallies: np.ndarray, alpha: float) -> np.ndarray:
    """Theorem 3.1's estimate of p_m: 1 - LowerConfBound(N_1, N_2, 1 - alpha/2); 1 without an audit."""
    c = counts(tallies)
    return 1 - bounds.lower_confidence_bound(c.n_1, c.n_2, alpha / 2)


def gap(tallies: np.ndarray, alpha: float) -> np.ndarray:
    """How far the estimated bound lies above the measured p_m of each image; negative where it failed."""
    return p_m_upper(tallies, alpha) - p_m(tallies)


def disagreement(tallies: np.ndarray) -> float:
    """Share of all votes that differ from the reference method's on the same noise; nan where it was not measured."""
    taken = tallies[tallies["n_differ"] >= 0]
    return float(taken["n_differ"].sum() / taken["n"].sum()) if taken["n"].sum() else float("nan")


@dataclass(frozen=True)
class Cost:
    """What a method spends on an image, on average; NFE are evaluations of f on one noisy copy."""

    nfe_select: float
    nfe_estimate: float
    nfe_audit: float
    nfe_per_vote: float  # of the estimation stage, warm-up included, audit not
    seconds: float

    @property
    def nfe(self) -> float:
        """Evaluations of f per image in all three stages."""
        return self.nfe_select + self.nfe_estimate + self.nfe_audit


def cost(tallies: np.ndarray) -> Cost:
    """The mean cost per image; nan without images."""
    if not len(tallies):
        return Cost(*[float("nan")] * 5)
    stages = {name: np.maximum(tallies[name], 0) for name in ("nfe_select", "nfe_estimate", "nfe_audit")}
    per_vote = float(stages["nfe_estimate"].sum() / tallies["n"].sum())
    means = {name: float(nfe.mean()) for name, nfe in stages.items()}
    return Cost(**means, nfe_per_vote=per_vote, seconds=float(tallies["seconds"].mean()))


class SpeedUp(NamedTuple):
    """How many times less a method costs than the reference; nan where its own cost is 0."""

    nfe: float
    seconds: float


def speed_up(reference: Cost, method: Cost) -> SpeedUp:
    """The reference's cost over the method's, audit and selection included on both sides."""
    return SpeedUp(reference.nfe / (method.nfe or np.nan), reference.seconds / (method.seconds or np.nan))


def require_same_images(one: np.ndarray, other: np.ndarray) -> None:
    """Pairwise measures compare image by image.

    Raises:
        ValueError: the two tallies are not of the same images.
    """
    if not np.array_equal(one["idx"], other["idx"]):
        raise ValueError(
            f"the tallies are of different images ({len(one)} and {len(other)} of them): certify both methods again"
        )
