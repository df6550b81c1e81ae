"""The paper's comparisons: our certified accuracy beside Lipschitz-bounded networks and other smoothed classifiers.

Published numbers come with their source; ours come from stored tallies and say which data they were measured on.
"""

import bisect
from collections.abc import Sequence

import numpy as np
import pandas as pd

from srs import metrics, published, published_others, shown, tables
from srs.published_others import LIPSCHITZ, LIPSCHITZ_RADII, Result, SMOOTHING, SMOOTHING_RADII, SMOOTHING_SIGMA
from srs.settings import Method, Profile, Run
from srs.smoothing import bounds
from srs.smoothing.bounds import Rule
from srs.store.sealed import paths, results, shipped

NOTEBOOK = "80_coverage"
COMPARED = ("MDEQ-30A", "SRS-MDEQ-3A")  # of the paper's rows: its reference and its most accurate SRS
RULES = {False: Rule.COHEN, True: Rule.AUDIT}
OURS = "this repository"
UNSTATED = "smoothing, as published"  # whether a published SRS row is the theorem's or the released formula's


def at_least_and_at_most(percent: Sequence[float], radii: Sequence[float], r: float) -> str:
    """Certified accuracy at r from a row printed at other radii: it never rises, so its neighbours bound it.

    Args:
        percent: certified accuracy at `radii`.
        radii: increasing, beginning with 0.
        r: any radius.

    Returns:
        The printed number where r is one of the radii, else "low to high"; empty beyond the last radius.
    """
    i = bisect.bisect_left(radii, r)
    if i == len(radii):
        return ""
    return str(percent[i]) if radii[i] == r else f"{percent[i]} to {percent[i - 1]}"


def lipschitz(profile: Profile) -> pd.DataFrame:
    """Certified accuracy at the radii of the Lipschitz literature: theirs, the paper's, and ours at every sigma."""
    names = [f"r={round(255 * r)}/255" if 0 < r < 1 else f"r={r:.2f}" for r in LIPSCHITZ_RADII]
    rows = [_row(one, "Lipschitz bound", names) for one in LIPSCHITZ]
    for (model, sigma), known in published.CIFAR10.items():
        for method in (m for m in COMPARED if known[m].percent):
            cells = [at_least_and_at_most(known[method].percent, published.RADII, r) for r in LIPSCHITZ_RADII]
            rows.append(_paper(method, model, sigma) | dict(zip(names, cells)))
    for run in profile.every_run:
        rows += _ours(run, LIPSCHITZ_RADII, names)
    return pd.DataFrame(rows).fillna("")[["method", "certificate", "sigma", "data", *names, "source"]]


def smoothing(profile: Profile) -> pd.DataFrame:
    """Certified accuracy and ACR of smoothed classifiers at sigma 0.5: other training methods, the paper's, ours."""
    names = [f"r={r:.2f}" for r in SMOOTHING_RADII]
    sigma = {"sigma": f"{SMOOTHING_SIGMA:.2f}"}
    rows = [_row(one, tables.RULE_LABELS[Rule.COHEN], names) | sigma for one in SMOOTHING]
    for (model, at), known in published.CIFAR10.items():
        for method in (m for m in COMPARED if at == SMOOTHING_SIGMA):
            cells = dict(zip(names, map(str, known[method].percent)))
            rows.append(_paper(method, model, at) | cells | {"ACR": tables.number(known[method].acr, 2)})
    for run in profile.every_run:
        rows += _ours(run, SMOOTHING_RADII, names) if run.sigma == SMOOTHING_SIGMA else []
    return pd.DataFrame(rows).fillna("")[["method", "certificate", "sigma", "data", *names, "ACR", "source"]]


def _row(one: Result, certificate: str, names: list[str]) -> dict[str, str]:
    cells = {name: "" if p is None else str(p) for name, p in zip(names, one.percent)}
    acr = tables.number(one.acr, 3)
    return {"method": one.name, "certificate": certificate, "data": one.data, **cells, "ACR": acr, "source": one.source}


def _paper(method: str, model: str, sigma: float) -> dict[str, str]:
    srs = method.startswith("SRS")
    certificate = UNSTATED if srs else tables.RULE_LABELS[Rule.COHEN]
    identity = {"method": f"{method} {model}", "certificate": certificate, "sigma": f"{sigma:.2f}"}
    return identity | {"data": published.DATA, "source": published_others.PAPER}


def _ours(run: Run, radii: Sequence[float], names: list[str]) -> list[dict[str, str]]:
    """A row for the reference and one for the SRS method of most steps, where tallies are stored, else shipped."""
    profile = run.profile
    methods = [profile.method(profile.reference), *sorted(tables.serialized(profile), key=lambda m: m.steps)[-1:]]
    for place in (paths.tallies, paths.shipped_tallies):
        there = [method for method in methods if place(run, method).is_file()]
        if there:
            return [_our_row(run, m, results.read_tallies(place(run, m)), radii, names) for m in there]
    return []


def _our_row(run: Run, method: Method, own: np.ndarray, radii: Sequence[float], names: list[str]) -> dict[str, str]:
    rule = RULES[method.serialized]
    certificates = metrics.certificates(own, rule=rule, sigma=run.sigma, alpha=run.profile.alpha)
    right = metrics.correct(certificates, own["label"])
    held = metrics.certified_counts(right, certificates.radius, radii)
    recipe = "" if run.train.recipe == "paper" else f", {run.train.recipe}"
    return {
        "method": f"{method.name} {run.model.name}{recipe}",
        "certificate": tables.RULE_LABELS[rule],
        "sigma": f"{run.sigma:.2f}",
        "data": f"{shipped.card(run).get('data', run.profile.data.name)}, {len(own)} images",
        **{name: tables.percent(count, len(own)) for name, count in zip(names, held)},
        "ACR": tables.radius(metrics.average_certified_radius(right, certificates.radius)),
        "source": OURS,
    }


def make_comparison(profile: Profile) -> dict[str, pd.DataFrame]:
    """Make and save both tables of comparison; without stored tallies they hold the published rows alone."""
    cap = tables.radius(
        float(bounds.largest_radius(Rule.THEOREM31, published.N, published.K, SMOOTHING_SIGMA, published.ALPHA))
    )
    ours = (
        f"Rows of '{OURS}' are the models of profile '{profile.name}' with N = {profile.n} and alpha = "
        f"{profile.alpha:g}: their column 'data' says on what they were measured, and rows on other data are no better "
        "or worse for it. Published SRS rows do not say by which formula: at the paper's settings Theorem 3.1 reaches "
        f"{cap} at sigma {SMOOTHING_SIGMA} and no further."
    )
    captions = {
        "comparison_lipschitz": (
            "Certified accuracy in percent at l2 radius r beside networks with a bounded Lipschitz constant, whose "
            "certificates are deterministic (at r=0.00 their clean accuracy) where smoothing's hold with probability "
            "1 - alpha. 'a to b': the source gives other radii, and certified accuracy never rises with the radius. "
        ),
        "comparison_smoothing": (
            "Certified accuracy in percent at l2 radius r and average certified radius (ACR) at sigma "
            f"{SMOOTHING_SIGMA}, beside a ResNet-110 trained in other ways and certified with N = 100,000. "
        ),
    }  # fmt: skip
    made = {"comparison_lipschitz": lipschitz(profile), "comparison_smoothing": smoothing(profile)}
    for name, frame in made.items():
        tables.save(frame, paths.shown(profile, name), caption=captions[name] + ours, made_by=NOTEBOOK)
    return made


if __name__ == "__main__":
    for name in make_comparison(shown.profile_argument("python -m srs.comparison", "Make the tables of comparison.")):
        print(name)
