"""Made-up tallies of a whole profile: what the tables, figures and report are tested on without a network."""

from dataclasses import replace

import numpy as np
import pandas as pd

from srs import counts, paths, results
from srs.config import Method, Profile, Run
from srs.experiments import variants
from srs.results import Tally

# Share of votes that are lost, differ and cost, by method: the order of the paper's tables, nothing more.
WORSE = {
    "MDEQ-1A": 0.3, "MDEQ-5A": 0.1, "MDEQ-30A": 0.0, "SRS-MDEQ-1N": 0.04, "SRS-MDEQ-1A": 0.02, "SRS-MDEQ-3A": 0.004,
    "MDEQ-1B": 0.3, "MDEQ-5B": 0.1, "MDEQ-14B": 0.0, "SRS-MDEQ-1B": 0.02, "SRS-MDEQ-3B": 0.004, "RS": 0.0,
}  # fmt: skip


def tally(**counts) -> Tally:
    """A tally of one rightly classified image with ten unanimous votes, but for the given fields."""
    plain = dict(
        idx=0, label=3, c_a=3, n=10, n_a=10, k=-1, m=-1, n_2=-1, n_1=-1, n_wrong=0, n_differ=0,
        nfe_select=0, nfe_estimate=0, nfe_audit=0, seconds=0.0,
    )  # fmt: skip
    return Tally(**plain | counts)


def array(*tallies: Tally) -> np.ndarray:
    """Tallies as `results.read_tallies` gives them."""
    kinds = [(name, float if name == "seconds" else np.int64) for name in results.COLUMNS]
    return np.array([tuple(vars(t).values()) for t in tallies], kinds)


def tallies(run: Run, method: Method) -> list[Tally]:
    """Plausible counts of every image of a run under a method; the images are the same for every method."""
    p, worse = run.profile, WORSE.get(method.name, 0.02)
    images = np.random.default_rng(17)  # one stream for what all methods share
    label = images.integers(0, p.data.classes, p.images)
    p_a = images.beta(12, 0.3 + 2 * run.sigma, p.images)
    right = images.random(p.images) < 0.9
    own = np.random.default_rng([ord(c) for c in run.id + method.name])
    return [_tally(p, method, own, i, int(label[i]), bool(right[i]), float(p_a[i]), worse) for i in range(p.images)]


def _tally(p: Profile, method: Method, rng, i: int, label: int, right: bool, p_a: float, worse: float) -> Tally:
    n_a = int(rng.binomial(p.n, p_a * (1 - worse)))
    n_wrong = int(rng.binomial(n_a, worse))
    k = min(method.audit, n_a)
    n_2 = min(n_a, int(rng.binomial(method.audit, n_a / p.n)))
    m = int(rng.hypergeometric(n_wrong, n_a - n_wrong, k)) if k else 0
    n_1 = n_2 - min(n_2, int(rng.binomial(n_2, worse)))
    evaluations = method.steps * p.n + (method.warmup * method.batch if method.serialized else 0)
    return Tally(
        idx=i * p.stride, label=label, c_a=label if right else (label + 1) % p.data.classes, n=p.n, n_a=n_a,
        k=k, m=m, n_2=n_2, n_1=n_1, n_wrong=n_wrong, n_differ=n_wrong + int(rng.binomial(p.n - n_a, worse)),
        nfe_select=method.steps * p.n0, nfe_estimate=evaluations, nfe_audit=30 * k, seconds=1e-5 * evaluations,
    )  # fmt: skip


def write_profile(profile: Profile) -> None:
    """Write the tallies and model cards of a profile under SRS_ROOT."""
    for run in profile.runs:
        for method in run.profile.methods:
            results.write_tallies(paths.tallies(run, method), tallies(run, method))
        card = {
            "run": run.id, "recipe": run.train.recipe, "sigma": run.sigma, "parameters": 12_345, "seconds": 42.0,
            "steps": 900, "clean_accuracy": 0.981, "noisy_accuracy": 0.7, "residual": {"1": 0.5, "30": 0.002},
            "agreement": {"1": 0.61, "5": 0.93, "30": 1.0},
        }  # fmt: skip
        results.write_json(paths.card(run), card)


def recounted(run: Run) -> pd.DataFrame:
    """Plausible counts of every line of the ablations' tables, as their file has them."""
    rows, p = [], run.profile
    for train, method, n, k in dict.fromkeys((line.train, line.method, line.n, line.k) for line in variants.lines(run)):
        shorter = replace(p, n=n, methods=tuple(replace(m, audit=0) for m in p.methods))
        other = replace(run, train=train)
        rows.append(counts.label(other, method, tallies(replace(other, profile=shorter), replace(method, audit=min(k, n)))).assign(K=k))
    return pd.concat(rows)
