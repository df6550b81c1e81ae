"""What is simulated for notebook 40, without a network: certificates whose true radius is known, and audits of another size."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from srs.analysis import measures
from srs.experiments.certified_accuracy import certified_runs, identity, of_run
from srs.settings import Method, Profile, Run
from srs.smoothing import bounds, engine

ALPHAS = (0.1, 0.01, 0.001)
SIGMA = 0.5
EDGE = norm.ppf(0.747)  # near 3/4 the counts' lattice makes cohen's exact failure rate 0.82 to 0.97 alpha at N = 1e3, 1e4
TRUE_RADIUS = float(SIGMA * EDGE)  # of a half-space, the worst case of Cohen et al. 2019, at a point with that p_A
TOP, RIVAL = 0, 1  # the class of the smoothed classifier there, and the other one
VOTES_AT_ONCE = 2_000_000  # keeps the working arrays at tens of megabytes
# N, K, and how many times the certificates: the small ones so many that alpha = 0.001 is told from alpha + 3 standard errors.
SIZES = ((N := 10_000, 400, 1), (1_000, 100, 4))
N0 = 100
AUDIT_KS = (10, 20, 30, 50, 70, 100, 150, 200, 300, 400, 600, 800, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000)
DRAWS = 10  # simulated audits of each image, over which radii are averaged
RS, OWN_RS = "RS at that NFE", "its auditor's RS"  # mean radius of plain RS with as many samples as the same NFE buys
DEAREST = "costs RS's NFE at K"  # the largest K at which SRS costs no more than plain RS with all N samples


def half_space(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Independent votes: the noise's component along the normal is on one side or on the other."""
    return (rng.standard_normal(shape) > EDGE).astype(np.int8)


@dataclass(frozen=True)
class Surrogate:
    """SRS-like votes: standard votes with errors that come in runs along the chain."""

    over: float = 0.0  # share of the votes for other classes that are turned to TOP
    under: float = 0.0  # share of the votes for TOP that are turned to RIVAL
    persistence: float = 0.9  # correlation of the error mode between successive samples, in [0, 1)

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


SURROGATES = (Surrogate(over=0.2), Surrogate(over=0.4, under=0.01, persistence=0.99))


def simulate(surrogate: Surrogate, *, n: int, audit_k: int, certificates: int, seed: int = 0) -> pd.DataFrame:
    """Counts of many certificates as rows of the long table: of standard votes and of the surrogate's on their noise."""
    rng, drawn, size = np.random.default_rng(seed), [], max(1, VOTES_AT_ONCE // n)
    for done in range(0, certificates, size):
        rows = min(size, certificates - done)
        first = half_space(rng, (rows, N0))
        c_standard, c_srs = ((2 * votes.sum(axis=1) > N0).astype(int) for votes in (first, surrogate.votes(rng, first)))
        standard = half_space(rng, (rows, n))
        chosen = surrogate.votes(rng, standard) == c_srs[:, None]
        agreeing = chosen & (standard == c_srs[:, None])
        votes = (standard == c_standard[:, None], chosen, agreeing)
        drawn.append([c_standard, c_srs, *(some.sum(axis=1) for some in votes)])
    c_standard, c_srs, n_standard, n_srs, agreeing = np.concatenate(drawn, axis=1)
    audited = audited_counts(rng, n, n_srs, agreeing, audit_k)
    plain = {"needs_audit": False, "c_a": c_standard, "n": n, "n_a": n_standard} | dict.fromkeys(("k", "m", "n_2", "n_1"), 0)
    both = pd.concat(map(pd.DataFrame, (plain, {"needs_audit": True, "c_a": c_srs} | vars(audited))), ignore_index=True)
    return both.assign(errors=str(surrogate), sigma=SIGMA, K=audit_k, label=TOP)


def failure_rates(counts: pd.DataFrame, *, alphas: tuple = ALPHAS) -> pd.DataFrame:
    """How often each rule's certificate is false: R > TRUE_RADIUS, or R > 0 for a wrong c_A. A row per setting, rule and alpha.

    `lower` and `upper` are one-sided 99 % Clopper-Pearson limits, `radius` is a mean in which abstentions count 0. A verdict is
    `refuted` if lower > alpha, `holds` if upper <= alpha + 3 standard errors, else `undecided`.
    """
    certified = pd.concat([measures.certificates(counts, alpha=a).assign(alpha=a) for a in alphas])
    false = certified["radius"] > np.where(certified["c_a"] == TOP, TRUE_RADIUS, 0.0)
    groups = certified.assign(false=false).groupby(["errors", "n", "K", "rule", "alpha"], observed=True)
    rates = groups.agg(certificates=("false", "size"), failures=("false", "sum"), radius=("radius", "mean")).reset_index()
    rates["rate"] = rates["failures"] / rates["certificates"]
    rates["lower"], rates["upper"] = bounds.proportion_interval(rates["failures"], rates["certificates"], 0.98)
    allowed = rates["alpha"] + 3 * np.sqrt(rates["alpha"] * (1 - rates["alpha"]) / rates["certificates"])
    decided = [rates["lower"] > rates["alpha"], rates["upper"] <= allowed]
    return rates.assign(verdict=np.select(decided, ["refuted", "holds"], "undecided"))


def measure(*, certificates: int = 10_000) -> pd.DataFrame:
    """Failure rates of all rules for all SURROGATES, at each of SIZES."""
    todo = [(size, seed) for size in SIZES for seed in range(len(SURROGATES))]
    return pd.concat([
        failure_rates(simulate(SURROGATES[seed], n=n, audit_k=k, certificates=times * certificates, seed=seed))
        for (n, k, times), seed in engine.tqdm(todo, desc="simulated certificates", unit="setting")
    ], ignore_index=True)  # fmt: skip


def audit_sizes(counts: pd.DataFrame, profile: Profile, *, ns: tuple[int, ...] = ()) -> pd.DataFrame:
    """What an audit of K votes certifies and costs: a row per N (the profile's and the paper's, or `ns`), run, method and K.

    An audit is simulated on the measured disagreements, at measured cost. Its alternative is plain RS with fewer samples: by
    the reference (RS), and by the method's own auditor where its votes are counted (OWN_RS). Radii are means over all images.
    """
    parts = []
    for n in dict.fromkeys(ns or (profile.n, N)):
        for run in certified_runs(counts, profile):
            own = {str(name): rows for name, rows in of_run(counts, run).groupby("method", observed=True)}
            srs = [name for name, rows in own.items() if rows["needs_audit"].all()]
            parts += [_sizes(run, name, own, n).assign(N=n, **identity(run), method=name) for name in srs]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*measures.METHOD, "N"])


def audited_counts(rng: np.random.Generator, n: int, n_a: np.ndarray, agreeing: np.ndarray, audit_k: int) -> bounds.Counts:
    """Counts after audits of K of all N (Theorem 3.1) and min(K, N_A) of the N_A votes for c_A, `agreeing` of which agree."""
    n_2 = rng.hypergeometric(n_a, n - n_a, min(audit_k, n))
    n_1 = rng.hypergeometric(agreeing, n_a - agreeing, n_2)
    k = np.minimum(audit_k, n_a)
    return bounds.Counts(n=n, n_a=n_a, k=k, m=rng.hypergeometric(n_a - agreeing, agreeing, k), n_2=n_2, n_1=n_1)


def nfe(run: Run, method: Method, own: pd.DataFrame, n: int, k: int | np.ndarray) -> np.ndarray:
    """NFE per image of n votes and an audit of K (one or many), as measured on a method's rows; else by its auditor's steps."""
    longer = method.warmup - method.steps if method.start == "previous" and method.warmup else 0
    per_vote = (own["nfe_estimate"] - np.minimum(method.batch, own["n"]) * longer).sum() / own["n"].sum()
    audited, steps = own["k"].clip(lower=0).sum(), (method.auditor or run.profile.sampling.reference).steps
    per_audit = own["nfe_audit"].clip(lower=0).sum() / audited if audited else steps
    some = np.minimum(np.asarray(k)[..., None], (own["n_a"].clip(lower=0) * n / own["n"]).to_numpy()).mean(axis=-1)
    return np.rint(own["nfe_select"].mean() + n * per_vote + min(method.batch, n) * longer + some * per_audit).astype(int)


def _sizes(run: Run, name: str, counts: dict[str, pd.DataFrame], n: int) -> pd.DataFrame:
    rng, own = np.random.default_rng(0), counts[name]
    method, reference = run.profile.method(name), run.profile.sampling.reference
    share = {which: (rows["n_a"].clip(lower=0) / rows["n"]).to_numpy() for which, rows in counts.items()}
    p_m = measures.p_m(own).fillna((own["m"] / own["k"]).where(own["k"] > 0)).to_numpy()
    lost = np.tile(np.nan_to_num(p_m, nan=1.0), DRAWS)  # nothing known: no vote is taken for right
    n_a = np.tile(own["n_a"].clip(lower=0), DRAWS)
    agreeing = n_a - np.rint(lost * n_a).astype(int)
    if n != run.profile.n:  # votes and disagreements at the measured shares
        n_a = rng.binomial(n, np.tile(share[name], DRAWS))
        agreeing = rng.binomial(n_a, 1 - lost)
    auditor = method.auditor if method.auditor and method.auditor.name in counts else reference
    rs_nfe, own_nfe = (int(nfe(run, plain, counts[plain.name], n, 0)) for plain in (reference, auditor))
    rs, own_rs = share[reference.name], share[auditor.name]
    cost, ks, drawn, beside = nfe(run, method, own, n, np.arange(n + 1)), [k for k in AUDIT_KS if k <= n], [], []
    for k in ks:
        drawn.append(audited_counts(rng, n, n_a, agreeing, k))
        plain = _rs_radius(run, rs, cost[k] * n // rs_nfe, rng)  # selects c_A with the same share of its samples
        fair = plain if auditor == reference else _rs_radius(run, own_rs, cost[k] * n // own_nfe, np.random.default_rng(1))
        beside.append((k, cost[k], plain, fair))
    k, m = (np.stack([getattr(audited, name) for audited in drawn]) for name in ("k", "m"))
    audits = bounds.Counts(n=n, n_a=np.tile(n_a, (len(ks), 1)), k=k, m=m)  # together: the bound loops over m
    radius = bounds.certify(bounds.Rule.AUDIT, audits, run.sigma, run.profile.alpha)[1].mean(axis=1)
    dearest = np.searchsorted(cost, rs_nfe, side="right") - 1
    return pd.DataFrame(beside, columns=["K", "NFE", RS, OWN_RS]).assign(radius=radius, **{DEAREST: dearest})


def _rs_radius(run: Run, share: np.ndarray, n: int, rng: np.random.Generator) -> float:
    """Mean radius of plain RS from n samples of images whose share of votes for c_A is known."""
    counts = bounds.Counts(n=max(n, 1), n_a=rng.binomial(n, np.tile(share, DRAWS)))  # 0 of 0 certify nothing, as 0 of 1
    return float(bounds.certify(bounds.Rule.COHEN, counts, run.sigma, run.profile.alpha)[1].mean())
