"""What an audit of another size would find and cost, from counts that were measured."""

import numpy as np

from srs.settings import Method, Run
from srs.smoothing.bounds import Counts


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


def nfe(run: Run, method: Method, own, n: int, k: int | np.ndarray) -> np.ndarray:
    """Evaluations of f per image that n votes and an audit of K of those for c_A cost, as measured on a method's counts.

    A vote costs what the counted ones cost on average, an audited one too; a pilot and a chain's warm-up are paid once. If none
    was audited, one costs all steps of its auditor.

    Args:
        run: whose reference audits.
        method: how the votes were drawn.
        own: its counts, rows of the long table or tallies.
        n: votes.
        k: K, one or many; no more than the votes for c_A are audited.
    """
    longer = method.warmup - method.steps if method.start == "previous" and method.warmup else 0
    surplus = np.minimum(method.batch, own["n"]) * longer
    per_vote = (own["nfe_estimate"] - surplus).sum() / own["n"].sum()
    audited, steps = np.maximum(own["k"], 0).sum(), (method.auditor or run.profile.sampling.reference).steps
    per_audit = np.maximum(own["nfe_audit"], 0).sum() / audited if audited else steps
    votes = np.maximum(np.asarray(own["n_a"]), 0) * n / np.asarray(own["n"])
    some = np.minimum(np.asarray(k)[..., None], votes).mean(axis=-1)
    return np.rint(own["nfe_select"].mean() + n * per_vote + min(method.batch, n) * longer + some * per_audit).astype(int)
