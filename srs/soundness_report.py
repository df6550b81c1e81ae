"""Notebook 40: which rule holds, how far each can reach, what our rule gains, and how many votes to audit.

Every step makes its tables and figures, saves them and returns them. `python -m srs.soundness_report` makes them all.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from srs import audit_size, bounds, config, exact_report, figures, metrics, paths, published, soundness
from srs import soundness_figures, tables
from srs.bounds import DEFAULT_SPLIT, Rule
from srs.config import Method, Profile, Run
from srs.exact_report import NOTEBOOK
from srs.soundness import FailureRate
from srs.soundness_figures import RULES
from srs.shipped import Tallies, certified
from srs.tables import RULE_LABELS, SRS_RULES

SMALL_N, SMALL_K = 1_000, 100  # cheap enough for so many certificates that alpha = 0.001 can be told from alpha + 3 SE
SMALL_TIMES = 4
CAP_RULES = (Rule.THEOREM31, Rule.AUDIT, Rule.RELEASED, Rule.COHEN)
CAP_SIGMAS = (0.12, 0.25, 0.5, 1.0)
CAP_NS = (1_000, 10_000, 100_000)
CAP_KS = (50, 100, 200, 400, 1_000, 2_100, 4_000, 10_000)


class Step(NamedTuple):
    """What one step of the notebook shows, by the names on disk."""

    tables: dict[str, pd.DataFrame]
    figures: dict[str, Figure]


Captioned = dict[str, tuple[pd.DataFrame | Figure, str]]


def _save(profile: Profile, made: Captioned) -> Step:
    step = Step({}, {})
    for name, (shown, caption) in made.items():
        save, kind = (figures.save, step.figures) if isinstance(shown, Figure) else (tables.save, step.tables)
        save(shown, paths.shown(profile, name), caption=caption, made_by=NOTEBOOK)
        kind[name] = shown
    return step


# ------------------------------------------------------------------------------------------------ (a) failure rates


def measure(n: int, audit_k: int, certificates: int, progress: Callable[[int], object]) -> list[FailureRate]:
    """Failure rates of every rule in every setting of `soundness.SETTINGS`."""
    rows = []
    for seed, (problem, surrogate) in enumerate(soundness.SETTINGS):
        sizes = {"n": n, "audit_k": audit_k, "certificates": certificates}
        with bounds.silent_about_released():
            rows += soundness.failure_rates(problem, surrogate, **sizes, seed=seed, progress=progress)
    return rows


def failure_table(rows: Sequence[FailureRate]) -> pd.DataFrame:
    """A line per problem, surrogate and rule; per alpha the failures in percent, 99 % limits, verdict."""
    lines: dict[tuple, dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: (row.problem, row.over, row.under, RULES.index(row.rule))):
        key = (row.problem, soundness_figures.errors_of(row), RULE_LABELS[Rule(row.rule)])
        line = lines.setdefault(key, dict(zip(("problem", "errors", "rule"), key)))
        measured = f"{100 * row.rate:.3f} ({100 * row.lower:.3f}-{100 * row.upper:.3f}) {row.verdict}"
        line[f"alpha = {row.alpha:g}"] = measured
        if row.alpha == min(soundness.ALPHAS):
            line["mean radius"], line["true radius"] = tables.radius(row.mean_radius), tables.number(row.true_radius, 3)
    return pd.DataFrame(lines.values())


def make_failure_rates(profile: Profile, certificates: int) -> Step:
    """Measure and show how often each rule's certificates are false, at the paper's N and K and at small ones."""
    sizes = {
        "failure_rates": (published.N, published.K, certificates),
        "failure_rates_small_n": (SMALL_N, SMALL_K, SMALL_TIMES * certificates),
    }
    made: Captioned = {}
    with tqdm(total=len(soundness.SETTINGS) * sum(c for _, _, c in sizes.values()), unit="certificate") as bar:
        for name, (n, k, count) in sizes.items():
            rows = measure(n, k, count, bar.update)
            made[name] = (failure_table(rows), _failure_caption(n, k, count))
            made[f"{name}_figure"] = (
                soundness_figures.failure_rates(rows),
                f"Measured failure rates with 99 % limits (N = {n}, K = {k}, {count} certificates a panel). Dashed: "
                f"what was promised. Rates below {soundness_figures.FLOOR:g} are drawn there. Errors: share of the "
                "other classes' votes turned to the top class, and of its votes turned away. 'released (unsound)' is "
                "the authors' code.",
            )
    return _save(profile, made)


def _failure_caption(n: int, k: int, certificates: int) -> str:
    return (
        f"False certificates in percent of {certificates} per line, with one-sided 99 % limits to either side (N = "
        f"{n}, K = {k}). A certificate is false if its radius exceeds the true one. 'errors': share of the votes for other "
        "classes that the surrogate turns to the top class, and (-) of its votes that it turns away, in runs along the "
        "chain. 'holds': upper limit <= alpha + 3 standard errors; 'refuted': lower limit > alpha. The rule 'cohen' is "
        "given the standard votes, the others the surrogate's. Mean radius at alpha = 0.001, abstentions counting 0. "
        "'released (unsound)' is the authors' code: its certificates do not hold."
    )


# ------------------------------------------------------------------------------------------------ (b) caps


def cap_table(sigmas: Sequence[float] = CAP_SIGMAS) -> pd.DataFrame:
    """The largest radius of each rule at the paper's N, K and alpha, to the nearest 0.001: a cap certifies nothing."""
    lines = []
    for sigma in sigmas:
        with bounds.silent_about_released():
            caps = {rule: _cap(rule, published.N, published.K, sigma) for rule in CAP_RULES}
        cells = {RULE_LABELS[rule]: tables.number(cap, 3) for rule, cap in caps.items()}
        lines.append({"sigma": f"{sigma:.2f}", **cells})
    return pd.DataFrame(lines)


def _cap(rule: Rule, n: int, k: int, sigma: float) -> float:
    return float(bounds.largest_radius(rule, n, k, sigma, published.ALPHA))


def cap_by_size(caps: Sequence[soundness.Cap]) -> pd.DataFrame:
    """Caps in units of sigma, a line per N and K."""
    lines: dict[tuple[int, int], dict[str, str]] = {}
    for cap in caps:
        line = lines.setdefault((cap.n, cap.audit_k), {"N": str(cap.n), "K": str(cap.audit_k)})
        line[RULE_LABELS[Rule(cap.rule)]] = tables.number(cap.radius / cap.sigma, 3)
    return pd.DataFrame([lines[key] for key in sorted(lines)])


def smallest_audit(rule: Rule, n: int, radius: float, sigma: float) -> int | None:
    """The smallest K whose cap reaches a radius; None if not even K = N does."""
    low, high = 1, n
    if _cap(rule, n, n, sigma) < radius:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _cap(rule, n, middle, sigma) >= radius else (middle + 1, high)
    return low


def published_beyond_caps(sigma: float = 0.5) -> pd.DataFrame:
    """Published SRS entries at radii beyond Theorem 3.1's reach at the paper's settings, and the K it would take."""
    cap = _cap(Rule.THEOREM31, published.N, published.K, sigma)
    lines = []
    for r in (r for r in published.RADII if r > cap):
        entries = {
            f"{method} {model}, as published": f"{row.percent[published.RADII.index(r)]} %"
            for model in ("LARGE", "SMALL") for method, row in published.rows(model, sigma).items()
            if method.startswith("SRS") and row.percent
        }  # fmt: skip
        needed = {rule: smallest_audit(rule, published.N, r, sigma) for rule in (Rule.THEOREM31, Rule.AUDIT)}
        need = {f"K needed, {RULE_LABELS[rule]}": "out of reach" if k is None else str(k) for rule, k in needed.items()}
        lines.append({"r": f"{r:.2f}", **entries, **need})
    return pd.DataFrame(lines)


def make_caps(profile: Profile) -> Step:
    """Tabulate and draw the largest radius that each rule can certify at all."""
    fine_ks = np.unique(np.geomspace(20, CAP_NS[-1], 60).astype(int)).tolist()
    sizes = {"rules": RULES, "ns": CAP_NS, "sigma": 1.0, "alpha": published.ALPHA}
    with bounds.silent_about_released():
        caps, fine = (soundness.measured_caps(audit_ks=ks, **sizes) for ks in (CAP_KS, fine_ks))
    ideal = (
        f"all N votes for c_A and no disagreement among the K audited ones (alpha = {published.ALPHA:g}). 'released "
        "(unsound)' reaches nearly as far as plain RS because it never pays for what the audit leaves open."
    )
    paper = f"N = {published.N}, K = {published.K}"
    theorem = tables.number(_cap(Rule.THEOREM31, published.N, published.K, 0.5), 3)
    beyond = (
        f"Published SRS entries (CIFAR-10, sigma = 0.5) beyond {theorem}, the largest radius that Theorem 3.1 can "
        f"certify at {paper}: no votes whatever could give them by the theorem; the released (unsound) formula can. "
        "Last columns: the K from which a rule could reach r at that N."
    )
    made: Captioned = {
        "caps": (cap_table(), f"Largest radius that each rule can certify at {paper}: {ideal}"),
        "caps_by_size": (cap_by_size(caps), f"Largest radius in units of sigma that each rule can certify: {ideal}"),
        "caps_figure": (soundness_figures.caps(fine), f"Largest radius that each rule can certify: {ideal}"),
        "published_beyond_caps": (published_beyond_caps(), beyond),
    }
    return _save(profile, made)


# ------------------------------------------------------------------------------------------------ (c) trained models


def audit_gain(profile: Profile, tallies: Tallies) -> pd.DataFrame:
    """Mean radius of `audit` at an equal and at the default split beside theorem31's, over images either certifies."""
    rows = []
    for run in certified(profile, tallies):
        for method in tables.serialized(run.profile):
            own = tallies[run.id, method.name]
            rule = {"sigma": run.sigma, "alpha": profile.alpha}
            theorem = metrics.certificates(own, rule=Rule.THEOREM31, **rule).radius
            equal = metrics.certificates(own, rule=Rule.AUDIT, **rule, split=0.5).radius
            default = metrics.certificates(own, rule=Rule.AUDIT, **rule).radius
            rows.append({**tables.identity(run), "method": method.name, **_gain_cells(theorem, equal, default)})
    return pd.DataFrame(rows)


def _gain_cells(theorem: np.ndarray, equal: np.ndarray, default: np.ndarray) -> dict[str, str]:
    certified = (theorem > 0) | (equal > 0) | (default > 0)
    some = bool(certified.any())
    base = theorem[certified].mean() if some else float("nan")
    cells = {"images": str(np.count_nonzero(certified)), RULE_LABELS[Rule.THEOREM31]: tables.radius(base)}
    for split, radii in ((0.5, equal), (DEFAULT_SPLIT, default)):
        mean = radii[certified].mean() if some else float("nan")
        cells[f"audit, split {split:g}"] = tables.radius(mean)
        cells[f"gain at {split:g} %"] = tables.number(100 * (mean / base - 1) if some and base else None, 2)
    worse = np.count_nonzero((default < theorem)[certified])
    return cells | {f"images with a loss at {DEFAULT_SPLIT:g}": str(worse)}


def make_rules_by_image(profile: Profile, tallies: Tallies) -> Step:
    """Draw every image's radius under each rule beside plain RS's, and tabulate what our rule gains."""
    made: Captioned = {}
    if not tables.serialized(profile):
        return Step({}, {})
    method = tables.best_of_the_paper(profile)
    for family, runs in figures.runs_by_family(profile, tallies).items():
        panels = {figures.panel_title(run): _radii(run, method, tallies) for run in runs}
        made[f"rules_by_image_{family}"] = (
            soundness_figures.rules_by_image(panels),
            f"Certified radius of every image under {method.name} by each rule, against its radius under "
            f"{profile.reference} and 'cohen' on the same noise (MDEQ-{family} on {profile.data.name}, N = {profile.n}, "
            f"K = {method.audit}, alpha = {profile.alpha:g}). 0: the rule abstains. Grey: equal radii. Points of "
            "'released (unsound)' come close to the line because its certificates do not hold.",
        )
    caption = (
        "Mean certified radius of the rule 'audit' at an equal split of alpha and at the default one, beside Theorem "
        "3.1's, over the images that at least one of them certifies (their number in the column 'images'); radii "
        "rounded down. The two rules audit different votes, so that single images may lose."
    )
    return _save(profile, made | {"audit_gain": (audit_gain(profile, tallies), caption)})


def _radii(run: Run, method: Method, tallies: Tallies) -> tuple[np.ndarray, dict[Rule, np.ndarray]]:
    reference = run.profile.method(run.profile.reference)
    by_rule = {rule: tables.certify(run, method, tallies, rule).radius for rule in SRS_RULES}
    return tables.certify(run, reference, tallies, Rule.COHEN).radius, by_rule


# ------------------------------------------------------------------------------------------------ (d) audit size


def make_audit_size(profile: Profile, tallies: Tallies) -> Step:
    """Tabulate and draw what an audit of K votes costs and certifies, at the profile's N and at the paper's."""
    made: Captioned = {}
    if not tables.serialized(profile):
        return Step({}, {})
    usual = tables.best_of_the_paper(profile).audit
    for ending, n, k in (("", profile.n, usual), ("_large_n", published.N, published.K)):
        runs = certified(profile, tallies)
        found = [audit_size.trade_off(run, method, tallies, n) for run in runs for method in tables.serialized(run.profile)]
        caption = f"{_size_caption(profile, n)} Columns from 'K': at the usual K, beside plain RS that spends as much."
        made[f"audit_size{ending}"] = (pd.DataFrame([audit_size.row(one, k) for one in found]), caption)
        for family, runs in figures.runs_by_family(profile, tallies).items():
            panels = {figures.panel_title(run): _size_curves(run, found, tallies, n) for run in runs}
            figure = soundness_figures.audit_size(panels)
            made[f"audit_size_{family}{ending}_figure"] = (figure, _size_caption(profile, n))
    return _save(profile, made)


def _size_curves(
    run: Run, found: Sequence[audit_size.TradeOff], tallies: Tallies, n: int
) -> dict[str, soundness_figures.Curve]:
    curves = {f"{run.profile.reference}, fewer samples": audit_size.reference_curve(run, tallies, n)}
    for own in (one for one in found if one.run == run):
        curves[own.method.name] = (np.array([p.nfe for p in own.points]), np.array([p.radius for p in own.points]))
    return curves


def _size_caption(profile: Profile, n: int) -> str:
    drawn = "as measured" if n == profile.n else f"drawn with the shares measured at N = {profile.n}"
    return (
        f"Radius against cost as the audit grows (N = {n}, counts {drawn}, alpha = {profile.alpha:g}). NFE per image, at what "
        "votes and audited votes cost when measured: selection with its pilot, N votes with their warm-up, and min(K, N_A) audited "
        "ones; radius: mean over all images under the rule 'audit', abstentions counting 0. SRS pays where it certifies more than plain RS with fewer samples (n0 "
        "in proportion) and the same NFE."
    )


# ------------------------------------------------------------------------------------------------ command line


def make_all(profile: Profile, certificates: int) -> list[str]:
    """Every table and figure of the notebook; returns their names."""
    tallies = tables.load(profile)  # first: if they are missing, nothing is worth measuring
    steps = (
        make_failure_rates(profile, certificates), make_caps(profile), make_rules_by_image(profile, tallies),
        make_audit_size(profile, tallies),
    )  # fmt: skip
    names = [name for step in steps for part in step for name in part]
    return names + list(exact_report.make_exact_noise(profile))


def main(arguments: Sequence[str] | None = None) -> None:
    """Make everything that notebook 40 shows."""
    parser = argparse.ArgumentParser(prog="python -m srs.soundness_report", description=main.__doc__)
    parser.add_argument("--profile", default="digits", help=config.one_of(config.PROFILES))
    parser.add_argument("--certificates", type=int, default=10_000, help="per setting (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    try:
        config.check(chosen.certificates >= 1, "certificates", chosen.certificates, "at least 1")
        names = make_all(config.get_profile(chosen.profile), chosen.certificates)
    except config.ConfigError as error:
        parser.error(str(error))
    print(*names, sep="\n")


if __name__ == "__main__":
    main()
