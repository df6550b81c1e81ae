"""Notebook 40: which rule holds, how far each can reach, what our rule gains, how many votes to audit."""

import numpy as np
import pandas as pd

from srs.analysis import measures, show
from srs.experiments.certified_accuracy import published, PUBLISHED_SETTINGS
from srs.experiments.simulation import DEAREST, OWN_RS, RS, TRUE_RADIUS
from srs.settings import Profile
from srs.smoothing import bounds, exact

N, K, ALPHA = PUBLISHED_SETTINGS.values()
PAYS_OWN = "pays beside its auditor for K"
CAP_SIGMAS = (0.12, 0.25, 0.5, 1.0)


def rates(measured: pd.DataFrame, profile: Profile) -> show.Shown:
    """How often each rule's certificates are false, by `simulation.measure`: a line per size, surrogate and rule."""
    percent = measured[["rate", "lower", "upper"]].map(lambda share: show.round_half_up(100 * share, 3))
    cell = percent["rate"] + " (" + percent["lower"] + "-" + percent["upper"] + ") " + measured["verdict"]
    measured, line = measured.assign(cell=cell).rename(columns={"n": "N"}), ["N", "K", "certificates", "errors", "rule"]
    wide = measured.pivot(index=line, columns="alpha", values="cell").iloc[:, ::-1].add_prefix("alpha = ")
    least = measured[measured["alpha"] == measured["alpha"].min()].set_index(line)
    return show.table(profile, "failure_rates", wide.join(least["radius"].rename("mean radius")), (
        f"False certificates in percent with one-sided 99 % limits, at true radius {TRUE_RADIUS:.3f}. Errors: share of the "
        "other votes that the surrogate turns to the top class, and (-) of its votes that it turns away. 'cohen' is given the "
        "standard votes, the others the surrogate's. Mean radius at the least alpha, abstentions counting 0."
    ))  # fmt: skip


def rates_finding(measured: pd.DataFrame) -> str:
    """In how many settings each rule holds or is refuted, and how many times alpha its failure rate is at most."""
    told, most = [], (measured["rate"] / measured["alpha"]).groupby(measured["rule"], observed=True).max()
    for rule, verdicts in measured.groupby("rule", observed=True)["verdict"]:
        counted = ", ".join(f"{verdict} in {times}" for verdict, times in verdicts.value_counts().items())
        told.append(f"{show.RULE_LABELS[rule]} {counted} of {len(verdicts)} settings, rate at most {most[rule]:,.2f} alpha")
    return "; ".join(told) + "."


def caps(profile: Profile) -> list[show.Shown]:
    """The largest radius that each rule can certify at all, and published entries beyond it."""
    ideal = f"all N votes for c_A and no disagreement among the K audited ones (alpha = {ALPHA:g})."
    reach = {"sigma": CAP_SIGMAS} | {told: np.multiply(CAP_SIGMAS, cap(rule, K)) for rule, told in show.RULE_LABELS.items()}
    return [
        show.table(profile, "caps", pd.DataFrame(reach), f"Largest radius at N = {N}, K = {K}: {ideal}"),
        show.table(profile, "published_beyond_caps", published_beyond(), (
            f"Published SRS entries (CIFAR-10, sigma = 0.5) at radii that Theorem 3.1 cannot certify at N = {N}, K = {K} from "
            "any votes; the released (unsound) formula can. Last columns: the K from which a rule could reach r at that N."
        )),
    ]  # fmt: skip


def cap(rule: bounds.Rule, k, n=N) -> np.ndarray:
    """The largest radius of a rule in units of sigma, by default at the paper's N."""
    return bounds.largest_radius(rule, n, k, 1.0, ALPHA)


def published_beyond(k: int = K, sigma: float = 0.5) -> pd.DataFrame:
    """Published SRS entries at radii beyond Theorem 3.1's reach at the paper's N, and the K it would take."""
    known = published("cifar10").xs(sigma, level="sigma").filter(like="r=").dropna()
    entries = known[known.index.get_level_values("method").str.startswith("SRS")].T.rename(lambda r: r[2:]).rename_axis("r")
    entries = entries[entries.index.astype(float) > sigma * cap(bounds.Rule.THEOREM31, k)].map("{:g} %".format)
    entries.columns = [f"{method} {model}, as published" for model, method in entries.columns]
    for rule in (bounds.Rule.THEOREM31, bounds.Rule.AUDIT):
        reach = sigma * cap(rule, np.arange(1, N + 1))
        short = [int((reach < float(r)).sum()) for r in entries.index]
        entries[f"K needed, {show.RULE_LABELS[rule]}"] = ["out of reach" if ks == N else str(ks + 1) for ks in short]
    return entries


def caps_finding(k: int = K, sigma: float = 0.5) -> str:
    """How far Theorem 3.1 reaches at the paper's N, how many published entries lie beyond, and what extends its reach."""
    theorem, more, audited = cap(bounds.Rule.THEOREM31, (k, k, min(10 * k, N)), (N, 10 * N, N))
    beyond = published_beyond(k, sigma)
    entries = int((beyond.filter(like="published") != "0 %").to_numpy().sum())
    where = f", at r = {', '.join(beyond.index)}," if len(beyond) else ""
    return (
        f"At sigma = {sigma:g}, N = {N:,} and K = {k} Theorem 3.1 certifies no radius above {sigma * theorem:.3f}, and "
        f"'released (unsound)' none above {sigma * cap(bounds.Rule.RELEASED, k):.3f}; {entries} published SRS entries{where} "
        f"lie beyond the theorem's reach. In units of sigma ten times the votes raise its cap from {theorem:.2f} to "
        f"{more:.2f}, ten times the audit to {audited:.2f}."
    )


def gain_finding(counts: pd.DataFrame, profile: Profile) -> str:
    """In how many rows our rule certifies a larger mean radius than Theorem 3.1 on the same SRS votes."""
    certified = measures.certificates(counts[counts["needs_audit"]], alpha=profile.alpha)
    radius = certified.groupby(measures.ROW, observed=True)["radius"].mean().unstack("rule")
    radius = radius.reindex(columns=[bounds.Rule.THEOREM31, bounds.Rule.AUDIT]).query("audit > 0 or theorem31 > 0")
    if radius.empty:
        return "Neither 'audit' nor Theorem 3.1 certifies an image."
    more, (theirs, ours) = (radius[bounds.Rule.AUDIT] > radius[bounds.Rule.THEOREM31]).sum(), radius.mean()
    return (
        f"'audit' certifies a larger mean radius than Theorem 3.1 at the same K in {more} of {len(radius)} rows; over all of "
        f"them {ours:.3f} against {theirs:.3f}."
    )


def rounding_finding(profile: Profile) -> str:
    """What the 64 bits of exact noise add to alpha at most, for a certificate at any of the profile's noise levels."""
    size, data = profile.n0 + profile.n, profile.data
    added = max(exact.added_to_alpha(run.sigma, data.levels, int(np.prod(data.shape)), size) for run in profile.plan)
    return f"Rounding to 64 bits adds at most {added:.1e} to the alpha of a certificate from {size:,} noisy copies."


def size_table(sizes: pd.DataFrame) -> pd.DataFrame:
    """A line per run and method at one N: the best K, and where SRS pays."""
    srs = sizes.assign(lead=sizes["radius"] - sizes[RS]).reset_index(drop=True)
    best = srs.loc[srs.groupby(measures.METHOD, sort=False)["lead"].idxmax()].set_index(measures.METHOD)
    names = {"K": "best K", "NFE": "its NFE", "radius": "its radius", RS: "RS at its NFE"}
    dearest = best[DEAREST].map(lambda most: "any" if most < 0 else f"{most:.0f}" if most < srs["N"].iloc[0] else "none")
    beside = {"pays for K": RS, PAYS_OWN: OWN_RS}
    pays = {told: paying(srs, other).reindex(best.index).fillna("none") for told, other in beside.items()}
    return best[list(names)].rename(columns=names).assign(**pays, **{DEAREST: dearest}).reset_index()


def paying(srs: pd.DataFrame, alternative: str) -> pd.Series:
    """The span of K at which SRS certifies more than the alternative (a column) for the same NFE; no row without one."""
    ks = srs[srs["radius"] > srs[alternative]].groupby(measures.METHOD, sort=False)["K"]
    return ks.agg(lambda k: f"{k.min()} to {k.max()}" if k.min() < k.max() else f"{k.min()}").astype(object)


def size_tables(sizes: pd.DataFrame, profile: Profile) -> list[show.Shown]:
    """A table of `audit_sizes` at each N: where SRS pays."""
    shown = []
    for n, own in sizes.groupby("N", sort=False):
        drawn = "as measured" if n == profile.n else f"drawn with the shares measured at N = {profile.n}"
        shown.append(show.table(profile, "audit_size_pays" + "_large_n" * (n != profile.n), size_table(own), (
            f"Mean radius under 'audit' and NFE per image (N = {n}, counts {drawn}, alpha = {profile.alpha:g}; abstentions "
            f"count 0). SRS pays where it certifies more than plain RS ({profile.reference}) for the same NFE; '{PAYS_OWN}': "
            "than plain RS by the solve that audits it. 'best K': where the lead over plain RS is largest."
        )))  # fmt: skip
    return shown


def pays_finding(sizes: pd.DataFrame) -> str:
    """In how many rows SRS certifies more than plain RS for the same NFE at some K, and by how much it leads at most."""
    told = []
    for n, srs in sizes.groupby("N", sort=False):
        lead, rows = srs["radius"] - srs[RS], len(srs[measures.METHOD].drop_duplicates())
        best = srs.loc[lead.idxmax()]
        told.append(
            f"At N = {n:,} SRS certifies more than plain RS for the same NFE in {len(paying(srs, RS))} of {rows} rows; its "
            f"largest lead is {lead.max():+.3f} ({best['method']}, sigma {best['sigma']:g}, K = {best['K']}). Beside plain RS "
            f"by the very solve that audits it, it pays in {len(paying(srs, OWN_RS))} of {rows}."
        )
    return " ".join(told) or "This profile has no SRS rows."
