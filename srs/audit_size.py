"""How many votes to audit: the radius that an audit of K votes loses against the evaluations of f that it costs.

Computed from stored tallies. An audit is simulated on the measured disagreements (n_wrong of n_a votes for c_A); its
alternative is plain RS with fewer samples: serialized smoothing pays only where it certifies more for the same NFE.
"""

from dataclasses import dataclass

import numpy as np

from srs import bounds, metrics, soundness, tables
from srs.bounds import Counts, Rule
from srs.config import Method, Run
from srs.shipped import Tallies

KS = (10, 20, 30, 50, 70, 100, 150, 200, 300, 400, 600, 800, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000)
DRAWS = 10  # simulated audits of each image, over which radii are averaged


@dataclass(frozen=True)
class Point:
    """One audit size of one method: mean radius over all images, abstentions counting 0."""

    k: int
    nfe: int  # evaluations of f per image: selection, estimation, warm-up, audit
    radius: float
    rs_radius: float  # of plain RS with as many samples as the same NFE buys


@dataclass(frozen=True)
class TradeOff:
    """What every audit size of one method on one model costs and certifies, at n samples."""

    run: Run
    method: Method
    n: int
    points: tuple[Point, ...]
    p_m: float  # mean share of votes for c_A that the standard solve does not give
    rs_nfe: int  # of plain RS with all n samples
    rs_radius: float

    @property
    def paying(self) -> tuple[int, ...]:
        """The audit sizes at which SRS certifies more than plain RS does for the same NFE."""
        return tuple(point.k for point in self.points if point.radius > point.rs_radius)

    @property
    def best(self) -> Point:
        """The audit size with the largest lead over plain RS, or the smallest deficit."""
        return max(self.points, key=lambda point: point.radius - point.rs_radius)

    @property
    def dearest(self) -> int:
        """The largest K at which SRS costs no more than plain RS with all n samples; below 0 if there is none."""
        reference = self.run.profile.sampling.reference
        return (self.rs_nfe - nfe(self.run, self.method, self.n, 0)) // reference.steps

    def at(self, k: int) -> Point:
        """The point of the tabulated audit size next to K."""
        return min(self.points, key=lambda point: abs(point.k - k))


def nfe(run: Run, method: Method, n: int, k: int) -> int:
    """Evaluations of f per image: (n0 + n) steps, what the start costs, and the standard solve of K votes."""
    sampling = run.profile.sampling
    first, longer = min(method.batch, sampling.n0) + min(method.batch, n), method.warmup - method.steps
    start = {
        "previous": first * longer if method.warmup else 0,
        "clean": sampling.reference.steps,
    }.get(method.start, method.pilot_nfe)
    return start + (sampling.n0 + n) * method.steps + k * sampling.reference.steps


def _rs_radius(run: Run, share: np.ndarray, n: int, rng: np.random.Generator) -> float:
    """Mean radius of plain RS from n samples of images whose share of votes for c_A is known."""
    if n < 1:
        return 0.0
    counts = Counts(n=n, n_a=rng.binomial(n, np.tile(share, DRAWS)))
    return float(bounds.certify(Rule.COHEN, counts, run.sigma, run.profile.alpha)[1].mean())


def reference_curve(run: Run, tallies: Tallies, n: int) -> tuple[np.ndarray, np.ndarray]:
    """NFE and mean radius of plain RS with up to n samples, and n0/n as many to select c_A."""
    rng = np.random.default_rng(1)
    share, reference = _share(tallies[run.id, run.profile.reference]), run.profile.sampling.reference
    samples = np.unique(np.geomspace(10, n, 20).astype(int))
    radii = [_rs_radius(run, share, int(m), rng) for m in samples]
    return samples * (nfe(run, reference, n, 0) / n), np.array(radii)


def _share(tallies: np.ndarray) -> np.ndarray:
    return np.maximum(tallies["n_a"], 0) / tallies["n"]


def trade_off(run: Run, method: Method, tallies: Tallies, n: int) -> TradeOff:
    """Cost and mean radius (rule `audit`) of every audit size K <= n.

    At the profile's own n the measured counts are used as they are; at another n, votes and disagreements are drawn
    with the measured shares.
    """
    rng = np.random.default_rng(0)
    own, standard = tallies[run.id, method.name], _share(tallies[run.id, run.profile.reference])
    p_m = np.nan_to_num(metrics.p_m(own))
    n_a = np.tile(np.maximum(own["n_a"], 0), DRAWS)
    agreeing = n_a - np.tile(np.maximum(own["n_wrong"], 0), DRAWS)
    if n != run.profile.n:
        n_a = rng.binomial(n, np.tile(_share(own), DRAWS))
        agreeing = rng.binomial(n_a, 1 - np.tile(p_m, DRAWS))
    steps, points = run.profile.sampling.reference.steps, []
    for k in (k for k in KS if k <= n):
        counts = soundness.audited_counts(rng, n, n_a, agreeing, k)
        radius = bounds.certify(Rule.AUDIT, counts, run.sigma, run.profile.alpha)[1].mean()
        spent = nfe(run, method, n, k)
        affordable = spent // steps * n // (run.profile.n0 + n)  # RS selects c_A with the same share of its samples
        points.append(Point(k, spent, float(radius), _rs_radius(run, standard, affordable, rng)))
    rs_nfe = nfe(run, run.profile.sampling.reference, n, 0)
    return TradeOff(run, method, n, tuple(points), float(p_m.mean()), rs_nfe, _rs_radius(run, standard, n, rng))


def row(found: TradeOff, k: int) -> dict[str, str]:
    """One line of the table: what the usual K costs and certifies, the best K, and where SRS stops paying."""
    usual, best, paying = found.at(k), found.best, found.paying
    return {
        **tables.identity(found.run),
        "method": found.method.name,
        "p_m %": tables.number(100 * found.p_m, 2),
        "RS: NFE": str(found.rs_nfe),
        "RS: radius": tables.radius(found.rs_radius),
        "K": str(usual.k),
        "NFE": str(usual.nfe),
        "radius": tables.radius(usual.radius),
        "RS at that NFE": tables.radius(usual.rs_radius),
        "best K": str(best.k),
        "its NFE": str(best.nfe),
        "its radius": tables.radius(best.radius),
        "RS at its NFE": tables.radius(best.rs_radius),
        "pays for K": f"{paying[0]} to {paying[-1]}" if paying else "none",
        "costs RS's NFE at K": str(found.dearest) if found.dearest >= 0 else "any",
    }
