"""How many votes to audit: the radius that an audit of K votes loses against the evaluations of f that it costs.

Computed from stored tallies. An audit is simulated on the measured disagreements (n_wrong of n_a votes for c_A); its
alternative is plain RS with fewer samples: serialized smoothing pays only where it certifies more for the same NFE.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import partial

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
    p_m: float  # mean share of votes for c_A that the auditor does not give
    dearest: int  # the largest K at which SRS costs no more than plain RS with all n samples; below 0 if there is none
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

    def at(self, k: int) -> Point:
        """The point of the tabulated audit size next to K."""
        return min(self.points, key=lambda point: abs(point.k - k))


def nfe(run: Run, method: Method, own: np.ndarray, n: int, k: int) -> int:
    """Evaluations of f per image that n votes and an audit of K of those for c_A cost, as measured on a method's tallies.

    A vote costs what the stored ones cost on average, an audited one too; a pilot and a chain's warm-up are paid once. If
    none was audited, one costs all steps of its auditor.
    """
    longer = method.warmup - method.steps if method.start == "previous" and method.warmup else 0
    surplus = np.minimum(method.batch, own["n"]) * longer
    per_vote = (own["nfe_estimate"] - surplus).sum() / own["n"].sum()
    audited, steps = np.maximum(own["k"], 0).sum(), (method.auditor or run.profile.sampling.reference).steps
    per_audit = np.maximum(own["nfe_audit"], 0).sum() / audited if audited else steps
    some = np.minimum(k, np.maximum(own["n_a"], 0) * n / own["n"]).mean()
    return round(own["nfe_select"].mean() + n * per_vote + min(method.batch, n) * longer + some * per_audit)


def _rs_radius(run: Run, share: np.ndarray, n: int, rng: np.random.Generator) -> float:
    """Mean radius of plain RS from n samples of images whose share of votes for c_A is known."""
    if n < 1:
        return 0.0
    counts = Counts(n=n, n_a=rng.binomial(n, np.tile(share, DRAWS)))
    return float(bounds.certify(Rule.COHEN, counts, run.sigma, run.profile.alpha)[1].mean())


def reference_curve(run: Run, tallies: Tallies, n: int) -> tuple[np.ndarray, np.ndarray]:
    """NFE and mean radius of plain RS with up to n samples, and n0/n as many to select c_A."""
    rng = np.random.default_rng(1)
    reference, own = run.profile.sampling.reference, tallies[run.id, run.profile.reference]
    share = _share(own)
    samples = np.unique(np.geomspace(10, n, 20).astype(int))
    radii = [_rs_radius(run, share, int(m), rng) for m in samples]
    return samples * (nfe(run, reference, own, n, 0) / n), np.array(radii)


def _share(tallies: np.ndarray) -> np.ndarray:
    return np.maximum(tallies["n_a"], 0) / tallies["n"]


def trade_off(run: Run, method: Method, tallies: Tallies, n: int) -> TradeOff:
    """Cost and mean radius (rule `audit`) of every audit size K <= n.

    At the profile's own n the measured counts are used as they are; at another n, votes and disagreements are drawn
    with the measured shares.
    """
    rng, reference = np.random.default_rng(0), run.profile.sampling.reference
    own, plain = tallies[run.id, method.name], tallies[run.id, reference.name]
    standard, p_m = _share(plain), metrics.p_m(own)
    p_m = np.where(np.isnan(p_m), metrics.audited_p_m(own), p_m)
    lost = np.tile(np.nan_to_num(p_m, nan=1.0), DRAWS)  # nothing known: no vote is taken for right
    n_a = np.tile(np.maximum(own["n_a"], 0), DRAWS)
    agreeing = n_a - np.rint(lost * n_a).astype(int)
    if n != run.profile.n:
        n_a = rng.binomial(n, np.tile(_share(own), DRAWS))
        agreeing = rng.binomial(n_a, 1 - lost)
    cost, points = partial(nfe, run, method, own, n), []
    rs_nfe = nfe(run, reference, plain, n, 0)
    for k in (k for k in KS if k <= n):
        counts = soundness.audited_counts(rng, n, n_a, agreeing, k)
        radius = bounds.certify(Rule.AUDIT, counts, run.sigma, run.profile.alpha)[1].mean()
        spent = cost(k)
        affordable = spent * n // rs_nfe  # RS selects c_A with the same share of its samples
        points.append(Point(k, spent, float(radius), _rs_radius(run, standard, affordable, rng)))
    dearest = bisect_right(range(n + 1), rs_nfe, key=cost) - 1
    known = p_m[~np.isnan(p_m)]
    mean = float(known.mean()) if known.size else float("nan")
    return TradeOff(run, method, n, tuple(points), mean, dearest, rs_nfe, _rs_radius(run, standard, n, rng))


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
        "costs RS's NFE at K": "any" if found.dearest < 0 else str(found.dearest) if found.dearest < found.n else "none",
    }
