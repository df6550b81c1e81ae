"""What is simulated for notebook 40: certificates whose true radius is known, and audits of another size. No network is needed.

Votes are drawn sample by sample, those of a surrogate for SRS with serially correlated errors. Their counts form the same long
table as those of trained models, so that the certificates are made by the same code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import norm

from srs.analysis import measures
from srs.experiments.certified_accuracy import certified_runs, identity, of_run
from srs.smoothing.engine import tqdm
from srs.settings import check_count, Profile, Run
from srs.smoothing import audit_size, bounds
from srs.smoothing.bounds import Counts, Rule

ALPHAS = (0.1, 0.01, 0.001)
TOP = 0  # the class of g at the point of every problem below
RIVAL = 1
VOTES_AT_ONCE = 2_000_000  # keeps the working arrays at tens of megabytes
# N, K, and how many times the certificates: the paper's sizes, and small ones that are cheap enough for so many that alpha =
# 0.001 can be told from alpha + 3 standard errors.
SIZES = ((10_000, 400, 1), (1_000, 100, 4))
N = SIZES[0][0]
AUDIT_KS = (10, 20, 30, 50, 70, 100, 150, 200, 300, 400, 600, 800, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000)
DRAWS = 10  # simulated audits of each image, over which radii are averaged
RS, OWN_RS = "RS at that NFE", "its auditor's RS"  # mean radius of plain RS with as many samples as the same NFE buys
DEAREST = "costs RS's NFE at K"  # the largest K at which SRS costs no more than plain RS with all N samples


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
        """Independent votes h(x + e) as int8, from the noise's component along the normal, the only one that matters."""
        return (rng.standard_normal(shape) > norm.ppf(self.p_a)).astype(np.int8)


@dataclass(frozen=True)
class Linear:
    """h = argmax W x for a W with orthonormal rows, described by the scores W x at the point; scores[TOP] is largest.

    The scores' noise W e is N(0, sigma^2 I) in whatever dimension. Swapping two scores is a reflection that maps h to itself, so
    p_a > p_c on the side where score a > score c: g = h, and the smallest margin / sqrt 2 is g's true radius.
    """

    scores: tuple[float, ...] = (0.5, 0.0, -1.0, -1.2)
    sigma: float = 0.5
    name: str = "linear"
    classes: int = 4

    @property
    def radius(self) -> float:
        """Smallest margin to another class, divided by |w_a - w_c| = sqrt 2."""
        return float((self.scores[TOP] - max(self.scores[1:])) / np.sqrt(2))

    def votes(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Independent votes as int8, from independent noise on every score."""
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

    `over` is the share of the votes for other classes that are turned to TOP, `under` the share of the votes for TOP that are
    turned to RIVAL, `persistence` the correlation of the error mode between successive samples, in [0, 1).
    """

    over: float = 0.0
    under: float = 0.0
    persistence: float = 0.9

    def __str__(self) -> str:
        return f"+{100 * self.over:.0f}%" + (f", -{100 * self.under:.0f}%" if self.under else "")

    def votes(self, rng: np.random.Generator, standard: np.ndarray) -> np.ndarray:
        """SRS votes beside the standard votes of the same noise; shape (certificates, n) as `standard`."""
        votes, shape = standard.copy(), standard.shape
        for share, wrong, turned in ((self.over, standard != TOP, TOP), (self.under, standard == TOP, RIVAL)):
            if share:  # a stationary two-state Markov chain per row: redrawn with probability 1 - persistence, else kept
                mode, redrawn = rng.random(shape, np.float32) < share, rng.random(shape, np.float32) >= self.persistence
                redrawn[:, 0] = True
                last_redrawn = np.maximum.accumulate(np.where(redrawn, np.arange(shape[1], dtype=np.int32), 0), axis=1)
                votes[wrong & np.take_along_axis(mode, last_redrawn, axis=1)] = turned
        return votes


SETTINGS: tuple[tuple[HalfSpace | Linear, Surrogate], ...] = (
    (HalfSpace(), Surrogate(over=0.2)),
    (HalfSpace(), Surrogate(over=0.4, under=0.01, persistence=0.99)),
    (Linear(), Surrogate(over=0.2)),
    (Linear(), Surrogate(over=0.4, under=0.01, persistence=0.99)),
)


# ------------------------------------------------------------------------------------------------ failure rates


def simulate(
    problem: HalfSpace | Linear, surrogate: Surrogate, *, n: int = 10_000, n0: int = 100, audit_k: int = 400,
    certificates: int = 10_000, seed: int = 0,
) -> pd.DataFrame:
    """Counts of `certificates` repetitions as rows of the long table: of standard votes and of the surrogate's on their noise."""
    rng, size = np.random.default_rng(seed), max(1, VOTES_AT_ONCE // n)
    drawn = [_draw(problem, surrogate, rng, n, n0, min(size, certificates - done)) for done in range(0, certificates, size)]
    c_standard, n_standard, c_srs, n_srs, agreeing = np.concatenate(drawn, axis=1)
    audited = audit_size.audited_counts(rng, n, n_srs, agreeing, audit_k)
    plain = {"needs_audit": False, "c_a": c_standard, "n": n, "n_a": n_standard} | dict.fromkeys(("k", "m", "n_2", "n_1"), 0)
    both = pd.concat(map(pd.DataFrame, (plain, {"needs_audit": True, "c_a": c_srs} | vars(audited))), ignore_index=True)
    known = {"problem": problem.name, "errors": str(surrogate), "sigma": problem.sigma, "true radius": problem.radius}
    return both.assign(**known, K=audit_k, label=TOP)


def _draw(
    problem: HalfSpace | Linear, surrogate: Surrogate, rng: np.random.Generator, n: int, n0: int, certificates: int
) -> np.ndarray:
    """A column per certificate: c_A and its votes, c_A and its votes under SRS, and how many of those the standard DEQ gives."""
    first = problem.votes(rng, (certificates, n0))
    c_standard, c_srs = (  # ties go to the lowest class, as in bounds.top_class
        np.stack([(votes == c).sum(axis=1) for c in range(problem.classes)]).argmax(axis=0)
        for votes in (first, surrogate.votes(rng, first))
    )
    standard = problem.votes(rng, (certificates, n))
    chosen = surrogate.votes(rng, standard) == c_srs[:, None]
    agreeing = chosen & (standard == c_srs[:, None])
    n_standard = (standard == c_standard[:, None]).sum(axis=1)
    return np.stack([c_standard, n_standard, c_srs, chosen.sum(axis=1), agreeing.sum(axis=1)])


def failure_rates(
    counts: pd.DataFrame, *, alphas: tuple[float, ...] = ALPHAS, split: float = bounds.DEFAULT_SPLIT
) -> pd.DataFrame:
    """How often each rule's certificate is false: R > true radius, or R > 0 for a wrong c_A. A row per setting, rule and alpha.

    `cohen` is given the standard votes (plain RS), the other rules the surrogate's. `lower` and `upper` are one-sided 99 %
    Clopper-Pearson limits, `radius` is the mean over all certificates, abstentions counting 0.
    """
    certified = pd.concat([measures.certificates(counts, alpha=a, split=split).assign(alpha=a) for a in alphas])
    false = certified["radius"] > certified["true radius"].where(certified["c_a"] == TOP, 0.0)
    groups = certified.assign(false=false).groupby(["problem", "errors", "n", "K", "true radius", "rule", "alpha"], observed=True)
    rates = groups.agg(certificates=("false", "size"), failures=("false", "sum"), radius=("radius", "mean")).reset_index()
    rates["rate"] = rates["failures"] / rates["certificates"]
    rates["lower"], rates["upper"] = bounds.proportion_interval(rates["failures"], rates["certificates"], 0.98)
    return rates.assign(verdict=verdicts(rates))


def verdicts(rates: pd.DataFrame) -> np.ndarray:
    """`holds` if upper <= alpha + 3 standard errors, `refuted` if lower > alpha, else `undecided`.

    A rule that fails in exactly alpha of the cases is undecided in about one run of four, whatever the number of certificates:
    the limit lies 2.33 of the 3 standard errors away.
    """
    alpha = rates["alpha"]
    allowed = alpha + 3 * np.sqrt(alpha * (1 - alpha) / rates["certificates"])
    return np.select([rates["lower"] > alpha, rates["upper"] <= allowed], ["refuted", "holds"], "undecided")


def measure(*, certificates: int = 10_000) -> pd.DataFrame:
    """Failure rates of all rules in all SETTINGS, at the paper's N and K and, by four times the certificates, at small ones."""
    check_count(certificates, 1, "certificates")
    todo = [(size, seed) for size in SIZES for seed in range(len(SETTINGS))]
    return pd.concat([
        failure_rates(simulate(*SETTINGS[seed], n=n, audit_k=k, certificates=times * certificates, seed=seed))
        for (n, k, times), seed in tqdm(todo, desc="simulated certificates", unit="setting")
    ], ignore_index=True)  # fmt: skip


# ------------------------------------------------------------------------------------------------ audits of another size


def audit_sizes(counts: pd.DataFrame, profile: Profile, *, ns: tuple[int, ...] = ()) -> pd.DataFrame:
    """What an audit of K votes certifies and costs, a row per N (the profile's and the paper's, or `ns`), run, method and K.

    An audit is simulated on the measured disagreements, at measured cost. Its alternative is plain RS with fewer samples: by the
    reference (column RS), and by the method's own auditor where its votes are counted (OWN_RS). Rows of the reference, without a
    K, are plain RS with up to N samples. Radii are means over all images, an abstention counting 0. A run without the reference's
    votes has no rows.
    """
    parts = []
    for n in dict.fromkeys(ns or (profile.n, N)):
        for run in certified_runs(counts, profile):
            own = {str(name): rows for name, rows in of_run(counts, run).groupby("method", observed=True)}
            for name, rows in own.items() if profile.reference in own else ():
                if name == profile.reference or rows["needs_audit"].all():
                    sizes = _fewer_samples(run, rows, n) if name == profile.reference else _sizes(run, name, own, n)
                    parts.append(sizes.assign(N=n, **identity(run), method=name))
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*measures.METHOD, "N"])
    return found if "K" in found else found.assign(K=np.nan)


def _sizes(run: Run, name: str, counts: Mapping[str, pd.DataFrame], n: int) -> pd.DataFrame:
    rng, own, method, reference = np.random.default_rng(0), counts[name], run.profile.method(name), run.profile.sampling.reference
    p_m = measures.p_m(own).fillna((own["m"] / own["k"]).where(own["k"] > 0)).to_numpy()
    lost = np.tile(np.nan_to_num(p_m, nan=1.0), DRAWS)  # nothing known: no vote is taken for right
    n_a = np.tile(own["n_a"].clip(lower=0), DRAWS)
    agreeing = n_a - np.rint(lost * n_a).astype(int)
    if n != run.profile.n:  # votes and disagreements at the measured shares
        n_a = rng.binomial(n, np.tile(_share(own), DRAWS))
        agreeing = rng.binomial(n_a, 1 - lost)
    auditor = method.auditor if method.auditor and method.auditor.name in counts else reference
    rs_nfe, own_nfe = (int(audit_size.nfe(run, plain, counts[plain.name], n, 0)) for plain in (reference, auditor))
    rs, fair = (partial(_rs_radius, run, _share(counts[plain.name])) for plain in (reference, auditor))
    cost, points = audit_size.nfe(run, method, own, n, np.arange(n + 1)), []
    for k in (k for k in AUDIT_KS if k <= n):
        audited = audit_size.audited_counts(rng, n, n_a, agreeing, k)
        radius = bounds.certify(Rule.AUDIT, audited, run.sigma, run.profile.alpha)[1].mean()
        beside = rs(cost[k] * n // rs_nfe, rng)  # selects c_A with the same share of its samples
        own_rs = beside if auditor == reference else fair(cost[k] * n // own_nfe, np.random.default_rng(1))
        points.append((k, cost[k], radius, beside, own_rs))
    whole = {"p_m %": 100 * pd.Series(p_m).mean(), "RS: NFE": rs_nfe, DEAREST: np.searchsorted(cost, rs_nfe, side="right") - 1}
    return pd.DataFrame(points, columns=["K", "NFE", "radius", RS, OWN_RS]).assign(**whole, **{"RS: radius": rs(n, rng)})


def _fewer_samples(run: Run, standard: pd.DataFrame, n: int) -> pd.DataFrame:
    rng, samples = np.random.default_rng(1), np.unique(np.geomspace(10, n, 20).astype(int))
    nfe = audit_size.nfe(run, run.profile.sampling.reference, standard, n, 0)
    return pd.DataFrame({"NFE": samples * (nfe / n), "radius": [_rs_radius(run, _share(standard), m, rng) for m in samples]})


def _share(counts: pd.DataFrame) -> np.ndarray:
    return (counts["n_a"].clip(lower=0) / counts["n"]).to_numpy()


def _rs_radius(run: Run, share: np.ndarray, n: int, rng: np.random.Generator) -> float:
    """Mean radius of plain RS from n samples of images whose share of votes for c_A is known."""
    if n < 1:
        return 0.0
    counts = Counts(n=n, n_a=rng.binomial(n, np.tile(share, DRAWS)))
    return float(bounds.certify(Rule.COHEN, counts, run.sigma, run.profile.alpha)[1].mean())
