"""Notebook 40: which rule holds, how far each can reach, what our rule gains, how many votes to audit, what exact noise costs."""

import timeit
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from srs import profiles, settings
from srs.analysis import measures, plots, show
from srs.analysis.measures import METHOD, RULES, RUN
from srs.analysis.show import RULE_LABELS, Shown
from srs.experiments import simulation
from srs.experiments.certified_accuracy import best_of_the_paper, family_name, published, PUBLISHED_SETTINGS
from srs.experiments.simulation import DEAREST, OWN_RS, RS
from srs.settings import Profile
from srs.smoothing import bounds, exact, noise
from srs.smoothing.bounds import DEFAULT_SPLIT, Rule

N, K, ALPHA = PUBLISHED_SETTINGS.values()
MARKERS = dict(zip(RULE_LABELS.values(), "os^x"))
CAP_SIGMAS = (0.12, 0.25, 0.5, 1.0)
CAP_NS = (1_000, 10_000, 100_000)
CAP_KS = (50, 100, 200, 400, 1_000, 2_100, 4_000, 10_000)
NEAR = 0.1  # of plain RS's radius: so far a point may lie from the line of equal radii
PIXELS, REPEATS = 1_000_000, 3  # drawn at a time to be timed; the fastest one counts: the machine may be busy


def labels(rules: pd.Series) -> pd.Categorical:
    """The rules under the names that the reader sees, in the order of the tables."""
    return pd.Categorical(rules.map(RULE_LABELS), RULE_LABELS.values(), ordered=True)


# ------------------------------------------------------------------------------------------------ (a) failure rates


def rates(measured: pd.DataFrame, profile: Profile) -> list[Shown]:
    """A table and a figure of `simulation.measure` at each N: how often each rule's certificates are false."""
    shown = []
    for n, k, _ in simulation.SIZES:
        own, name = measured[measured["n"] == n], "failure_rates" + "_small_n" * (n != N)
        told = (
            f"False certificates in percent with one-sided 99 % limits (N = {n}, K = {k}, {own['certificates'].iloc[0]} "
            "certificates a line). Errors: share of the votes for other classes that the surrogate turns to the top class, and "
            "(-) of its votes that it turns away. 'cohen' is given the standard votes, the others the surrogate's."
        )
        panels = own.assign(label=labels(own["rule"]), panel=own["problem"] + ", " + own["errors"])
        drawn = plots.grid(panels, panel="panel", hue="label", draw=_draw_rates, x=r"promised $\alpha$ (%)", y="failure rate (%)")
        for ax in drawn.axes:
            promised = [100 * alpha for alpha in sorted(simulation.ALPHAS, reverse=True)]
            for i, percent in enumerate(promised):
                ax.hlines(percent, i - 0.42, i + 0.42, color="0.35", linewidth=0.8, linestyle="--")
            ax.set(yscale="log", xticks=range(len(promised)), xticklabels=map("{:g}".format, promised))
        shown += [
            show.table(profile, name, rate_table(own), (
                f"{told} 'holds': upper limit <= alpha + 3 standard errors; 'refuted': lower limit > alpha. Mean radius at the "
                "least alpha, abstentions counting 0."
            ), {"true radius": 3}, down=["mean radius"]),
            show.figure(profile, f"{name}_figure", drawn, f"{told} Dashed: what was promised. Arrow: no failure was seen."),
        ]  # fmt: skip
    return shown


def rate_table(measured: pd.DataFrame) -> pd.DataFrame:
    """A line per classifier, surrogate and rule; per alpha the failures in percent, 99 % limits and verdict."""
    percent = measured[["rate", "lower", "upper"]].map(lambda share: show.round_half_up(100 * share, 3))
    cell = percent["rate"] + " (" + percent["lower"] + "-" + percent["upper"] + ") " + measured["verdict"]
    line, last = ["problem", "errors", "rule"], measured["alpha"] == measured["alpha"].min()
    wide = measured.assign(cell=cell).set_index([*line, "alpha"])["cell"].unstack("alpha").iloc[:, ::-1].add_prefix("alpha = ")
    radius = measured[last].set_index(line)[["radius", "true radius"]].rename(columns={"radius": "mean radius"})
    return wide.join(radius).reset_index()


def _draw_rates(ax: Axes, own: pd.DataFrame, look: dict, place: tuple[int, int]) -> None:
    """Points with limits; where no failure was seen, an arrow down from the upper limit."""
    own = own.sort_values("alpha", ascending=False).reset_index(drop=True)
    x = own.index + 0.2 * (place[0] - (place[1] - 1) / 2)
    rate, lower, upper = (100 * own[name] for name in ("rate", "lower", "upper"))
    some, bar = rate > 0, {"color": look["color"], "linewidth": 0.7, "capsize": 1.5}
    ax.errorbar(x[some], rate[some], [(rate - lower)[some], (upper - rate)[some]], fmt=MARKERS[look["label"]], markersize=3,
                label=look["label"], **bar)  # fmt: skip
    ax.errorbar(x[~some], upper[~some], 0.7 * upper[~some], fmt="none", uplims=True, **bar)


def rates_finding(measured: pd.DataFrame) -> str:
    """In how many settings each rule holds or is refuted, and how large its failure rate is."""
    told = []
    for rule, own in measured.groupby("rule", observed=True):
        verdicts, most = own["verdict"].value_counts(), (own["rate"] / own["alpha"]).max()
        counted = ", ".join(f"{word} in {verdicts[word]}" for word in ("holds", "undecided", "refuted") if word in verdicts)
        spans = (f"{100 * part.min():.0f} to {100 * part.max():.0f} % at N = {n:,}" for n, part in own.groupby("n")["rate"])
        rate = " and ".join(spans) if "refuted" in verdicts else f"at most {most:.2g} alpha"
        told.append(f"{RULE_LABELS[rule]} {counted} of {len(own)} settings, its failure rate is {rate}")
    return "; ".join(told) + "."


# ------------------------------------------------------------------------------------------------ (b) caps


def caps(profile: Profile) -> list[Shown]:
    """The largest radius that each rule can certify at all, in tables and a figure, and published entries beyond it."""
    ideal = f"all N votes for c_A and no disagreement among the K audited ones (alpha = {ALPHA:g})."
    by_sigma = pd.DataFrame({"sigma": CAP_SIGMAS} | {rule: [largest(rule, K, sigma) for sigma in CAP_SIGMAS] for rule in RULES})
    by_sigma, by_size = (table.rename(columns=RULE_LABELS) for table in (by_sigma, reach(CAP_NS, CAP_KS)))
    fine = pd.concat(reach([n], np.unique(np.geomspace(20, n, 40).astype(int))) for n in CAP_NS)
    fine = fine.melt(["N", "K"], RULES, "rule", "radius")
    fine = fine.assign(label=labels(fine["rule"]), panel=measures.in_order(f"N = {n:,}" for n in fine["N"]))
    drawn = plots.grid(
        fine, panel="panel", hue="label", columns=3, x="audited K", y=r"largest $\ell_2$ radius / $\sigma$", shared="y",
        draw=lambda ax, own, look, _: ax.semilogx(own["K"], own["radius"], **look),
    )  # fmt: skip
    drawn.axes[0].set_ylim(bottom=0)  # after all have drawn: they share the axis
    return [
        show.table(profile, "caps", by_sigma, f"Largest radius at N = {N}, K = {K}: {ideal}"),
        show.table(profile, "caps_by_size", by_size, f"Largest radius / sigma: {ideal}"),
        show.figure(profile, "caps_figure", drawn, f"Largest radius / sigma of each rule: {ideal}"),
        show.table(profile, "published_beyond_caps", published_beyond(), (
            f"Published SRS entries (CIFAR-10, sigma = 0.5) at radii that Theorem 3.1 cannot certify at N = {N}, K = {K} from "
            "any votes; the released (unsound) formula can. Last columns: the K from which a rule could reach r at that N."
        )),
    ]  # fmt: skip


def reach(ns, ks) -> pd.DataFrame:
    """The largest radius in units of sigma of each rule (a column) for every N and K <= N (a row)."""
    sizes = pd.MultiIndex.from_product([ns, ks], names=["N", "K"]).to_frame(index=False).query("K <= N").reset_index(drop=True)
    n, k = sizes["N"].to_numpy(), sizes["K"].to_numpy()
    with bounds.silent_about_released():
        return sizes.assign(**{rule: bounds.largest_radius(rule, n, k, 1.0, ALPHA) for rule in RULES})


def largest(rule: Rule, k: int, sigma: float, n: int = N) -> float:
    """The largest radius of a rule, by default at the paper's N."""
    return float(sigma * reach([n], [k])[rule].iloc[0])


def published_beyond(k: int = K, sigma: float = 0.5) -> pd.DataFrame:
    """Published SRS entries at radii beyond Theorem 3.1's reach at the paper's N, and the K it would take."""
    known = published("cifar10").xs(sigma, level="sigma").filter(like="r=").dropna()
    entries = known[known.index.get_level_values("method").str.startswith("SRS")].T
    entries = entries[[float(r[2:]) > largest(Rule.THEOREM31, k, sigma) for r in entries.index]].map("{:g} %".format)
    entries.columns = [f"{method} {model}, as published" for model, method in entries.columns]
    every = reach([N], np.arange(1, N + 1))
    for rule in (Rule.THEOREM31, Rule.AUDIT):
        needed = [every.loc[sigma * every[rule] >= float(r[2:]), "K"].min() for r in entries.index]
        entries[f"K needed, {RULE_LABELS[rule]}"] = ["out of reach" if np.isnan(least) else str(least) for least in needed]
    return entries.rename(lambda r: r[2:]).rename_axis("r")


def caps_finding(k: int = K, sigma: float = 0.5) -> str:
    """How far Theorem 3.1 reaches at the paper's N, how many published entries lie beyond, and what extends its reach."""
    beyond, theorem = published_beyond(k, sigma), partial(largest, Rule.THEOREM31)
    entries = int((beyond.filter(like="published") != "0 %").to_numpy().sum())
    where = f", at r = {', '.join(beyond.index)}," if len(beyond) else ""
    return (
        f"At sigma = {sigma:g}, N = {N:,} and K = {k} Theorem 3.1 certifies no radius above {theorem(k, sigma):.3f}, and "
        f"'released (unsound)' none above {largest(Rule.RELEASED, k, sigma):.3f}; {entries} published SRS entries{where} lie "
        f"beyond the theorem's reach. In units of sigma ten times the votes raise its cap from {theorem(k, 1.0):.2f} to "
        f"{theorem(k, 1.0, 10 * N):.2f}, ten times the audit to {theorem(min(10 * k, N), 1.0):.2f}."
    )


# ------------------------------------------------------------------------------------------------ (c) trained models


def rules_by_image(counts: pd.DataFrame, profile: Profile) -> list[Shown]:
    """Each image's SRS radius under every rule against plain RS's, and what our rule gains; nothing for a profile without SRS."""
    if not counts["needs_audit"].any():
        return []
    shown, best = [], best_of_the_paper(counts)
    for (model, recipe), own in by_image(counts, profile).groupby(["model", "recipe"], observed=True):
        axes = {"x": f"{plots.RADIUS} of {profile.reference}", "y": f"{plots.RADIUS} of {best}", "shared": ""}
        drawn = plots.grid(own, panel="sigma", hue="label", draw=_scatter, title=plots.sigma_title, **axes)
        for ax in drawn.axes[: own["sigma"].nunique()]:
            top = 1.05 * max(1e-3, ax.dataLim.x1, ax.dataLim.y1)
            ax.plot([0, top], [0, top], color="0.6", linewidth=0.6)
            ax.set(xlim=(0, top), ylim=(0, top))
        shown.append(show.figure(profile, f"rules_by_image_{family_name(model, recipe)}", drawn, (
            f"Certified radius of every image under {best} by each rule, against that of {profile.reference} by 'cohen' on the "
            f"same noise (MDEQ-{family_name(model, recipe)} on {profile.data.name}). 0: the rule abstains. Grey: equal radii. "
            f"{line_finding(own)}"
        )))  # fmt: skip
    gain = audit_gain(counts, profile)
    digits, down = {name: 2 for name in gain if name.startswith("gain")}, [n for n in gain if n.startswith(("theorem", "audit"))]
    return [*shown, show.table(profile, "audit_gain", gain, (
        "Mean certified radius of 'audit' at an equal split of alpha and at the default one, beside Theorem 3.1's, over the "
        "images that at least one of them certifies (column 'images'). The two rules audit different votes: single images may "
        "lose."
    ), digits, down)]  # fmt: skip


def by_image(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The radius of every image under each rule on the paper's best SRS votes, beside the reference's `radius_rs`."""
    certified = measures.certificates(counts, alpha=profile.alpha)
    standard = certified.loc[certified["method"] == profile.reference, [*RUN, "idx", "radius"]]
    own = certified[certified["needs_audit"] & (certified["method"] == best_of_the_paper(counts))]
    return own.merge(standard, on=[*RUN, "idx"], suffixes=("", "_rs")).assign(label=lambda rows: labels(rows["rule"]))


def _scatter(ax: Axes, own: pd.DataFrame, look: dict, _: tuple[int, int]) -> None:
    marker = {"s": 7, "marker": MARKERS[look["label"]], "linewidths": 0.6, "clip_on": False}
    ax.scatter(own["radius_rs"], own["radius"], color=look["color"], label=look["label"], **marker)


def line_finding(rows: pd.DataFrame) -> str:
    """How many images each rule gives nearly the radius of plain RS; rows of `by_image`."""
    some = rows[rows["radius_rs"] > 0]
    near = ((some["radius"] - some["radius_rs"]).abs() <= NEAR * some["radius_rs"]).groupby(some["label"], observed=True).sum()
    told = ", ".join(f"{count} under {label}" for label, count in near.items())
    return (
        f"Of {len(some[[*RUN, 'idx']].drop_duplicates())} images that plain RS certifies, those whose SRS radius lies within "
        f"{100 * NEAR:g} % of RS's: {told or 'none'}. A radius under 'released (unsound)' does not hold, however near it comes."
    )


def audit_gain(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Mean radius of `audit` at an equal and at the default split beside theorem31's, over images either certifies."""
    srs = counts[counts["needs_audit"]].reset_index(drop=True)
    theorem, equal, default = columns = [RULE_LABELS[Rule.THEOREM31], "audit, split 0.5", f"audit, split {DEFAULT_SPLIT:g}"]
    for column, rule, split in zip(columns, (Rule.THEOREM31, Rule.AUDIT, Rule.AUDIT), (0.5, 0.5, DEFAULT_SPLIT)):
        srs[column] = measures.certificates(srs, alpha=profile.alpha, rules=[rule], split=split)["radius"]
    some, loss = (srs[columns] > 0).any(axis=1), f"images with a loss at {DEFAULT_SPLIT:g}"
    known = srs[METHOD].join(srs[columns].where(some)).assign(**{"images": some, loss: some & (srs[default] < srs[theorem])})
    groups = known.groupby(METHOD, observed=True)
    table = groups[["images", loss]].sum().join(groups[columns].mean())
    for split, ours in (("0.5", equal), (f"{DEFAULT_SPLIT:g}", default)):
        table[f"gain at {split} %"] = 100 * (table[ours] / table[theorem].replace(0, np.nan) - 1)
    return table[["images", theorem, equal, "gain at 0.5 %", default, f"gain at {DEFAULT_SPLIT:g} %", loss]].reset_index()


def gain_finding(counts: pd.DataFrame, profile: Profile) -> str:
    """In how many rows our rule certifies more than Theorem 3.1, at either split."""
    table = audit_gain(counts, profile).query("images > 0")
    if table.empty:
        return "Neither 'audit' nor Theorem 3.1 certifies an image."
    told = []
    for split in ("0.5", f"{DEFAULT_SPLIT:g}"):
        more = int((table[f"audit, split {split}"] > table[RULE_LABELS[Rule.THEOREM31]]).sum())
        told.append(f"at split {split} in {more} of {len(table)} rows (median gain {table[f'gain at {split} %'].median():.1f} %)")
    lost, every = table[[f"images with a loss at {DEFAULT_SPLIT:g}", "images"]].sum()
    return (
        f"'audit' certifies a larger mean radius than Theorem 3.1 at the same K {' and '.join(told)}; at split {DEFAULT_SPLIT:g} "
        f"{lost} of {every} single certificates lose."
    )


# ------------------------------------------------------------------------------------------------ (d) audit size


def size_table(sizes: pd.DataFrame, k: int) -> pd.DataFrame:
    """A line per run and method at one N: what the usual K costs and certifies, the best K, and where SRS pays."""
    srs = sizes.dropna(subset=["K"]).reset_index(drop=True)
    groups = srs.assign(lead=srs["radius"] - srs[RS], far=(srs["K"] - k).abs()).groupby(METHOD, sort=False)
    usual, best = (srs.loc[place].set_index(METHOD) for place in (groups["far"].idxmin(), groups["lead"].idxmax()))
    names = {"K": "best K", "NFE": "its NFE", "radius": "its radius", RS: "RS at its NFE"}
    table = usual[["p_m %", "RS: NFE", "RS: radius", *names]].join(best[list(names)].rename(columns=names))
    n = sizes["N"].iloc[0]
    dearest = usual[DEAREST].map(lambda most: "any" if most < 0 else f"{most:.0f}" if most < n else "none")
    return table.assign(**{"pays for K": paying(srs, RS).reindex(table.index).fillna("none"), DEAREST: dearest}).reset_index()


def paying(srs: pd.DataFrame, alternative: str) -> pd.Series:
    """The span of K at which SRS certifies more than the alternative (a column) for the same NFE; no row where there is none."""
    ks = srs[srs["radius"] > srs[alternative]].groupby(METHOD, sort=False)["K"]
    return ks.agg(lambda k: f"{k.min():.0f} to {k.max():.0f}" if k.min() < k.max() else f"{k.min():.0f}").astype(object)


def size_tables(sizes: pd.DataFrame, profile: Profile) -> list[Shown]:
    """Tables and figures of `audit_sizes`: what an audit of K votes costs and certifies; nothing for a profile without SRS."""
    shown, srs = [], best_of_the_paper(sizes.assign(needs_audit=sizes["K"].notna()))
    for n, own in sizes.groupby("N", sort=False) if srs else ():
        ending, k = ("", profile.method(srs).audit) if n == profile.n else ("_large_n", K)
        drawn = "as measured" if n == profile.n else f"drawn with the shares measured at N = {profile.n}"
        caption = (
            f"Mean radius under 'audit' against NFE per image as the audit grows (N = {n}, counts {drawn}, alpha = "
            f"{profile.alpha:g}; abstentions count 0). SRS pays where it certifies more than plain RS ({profile.reference}) with "
            "fewer samples and the same NFE."
        )
        table = size_table(own, k)
        split = list(table).index("best K")
        for name, columns, told in (
            ("audit_size", list(table)[:split], "Columns from 'K': at the usual K, beside plain RS that spends as much."),
            ("audit_size_pays", [*METHOD, *list(table)[split:]], "'best K': where the lead over plain RS is largest."),
        ):
            digits = {c: 0 for c in columns if "NFE" in c or c.endswith("K")} | {"p_m %": 2}
            down = [c for c in columns if c.endswith("radius") or c.startswith("RS at")]
            shown.append(show.table(profile, name + ending, table[columns], f"{caption} {told}", digits, down))
        for (model, recipe), rows in own.groupby(["model", "recipe"], sort=False):
            methods = [name for name in dict.fromkeys(rows["method"]) if name != profile.reference]
            for i, part in enumerate(np.array_split(methods, -(-len(methods) // (plots.MOST_LINES - 1)))):
                known = rows["sigma"].isin(rows.loc[rows["method"].isin(part), "sigma"])  # noise levels that draw some of them
                some = rows[known & rows["method"].isin([*part, profile.reference])]
                axes = ("NFE per image", f"mean {plots.RADIUS}")
                look = {"panel": "sigma", "title": plots.sigma_title, "labels": axes, "shared": "x"}
                name = f"audit_size_{family_name(model, recipe)}{ending}_figure" + f"_{i + 1}" * bool(i)
                shown.append(show.figure(profile, name, plots.lines(some, x="NFE", y="radius", hue="method", **look), caption))
    return shown


def when_srs_pays(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Whether SRS pays at all, a row per N (the profile's and the paper's), see `pays`; what the report says first."""
    return pays(simulation.audit_sizes(counts, profile))


def pays(sizes: pd.DataFrame) -> pd.DataFrame:
    """In how many rows SRS has an audit size at which it certifies a larger mean radius than plain RS does for the same NFE.

    A row per N of `audit_sizes`: how many `rows` there are, in how many SRS pays `beside RS` and `beside its auditor`, `where`,
    the largest `lead` over RS in radius, and where that is (`lead of`).
    """
    found = []
    for n, srs in sizes.dropna(subset=["K"]).groupby("N", sort=False):
        won, best = paying(srs, RS), srs.loc[(srs["radius"] - srs[RS]).idxmax()]
        found.append({
            "N": n, "rows": len(srs[METHOD].drop_duplicates()), "beside RS": len(won),
            "beside its auditor": len(paying(srs, OWN_RS)),
            "where": "; ".join(f"{m} on {model} {recipe}, sigma {s:g}: K = {k}" for (model, recipe, s, m), k in won.items()),
            "lead": best["radius"] - best[RS], "lead of": f"{best['method']}, sigma {best['sigma']:g}, K = {best['K']:.0f}",
        })  # fmt: skip
    return pd.DataFrame(found)


def pays_finding(sizes: pd.DataFrame) -> str:
    """Whether SRS pays, in words."""
    return " ".join(
        f"At N = {row['N']:,} SRS certifies more than plain RS for the same NFE in {row['beside RS']} of {row['rows']} "
        f"rows{(' (' + row['where'] + ')') * bool(row['where'])}; its largest lead over RS is {row['lead']:+.3f} "
        f"({row['lead of']}). Beside plain RS by the very solve that audits it, it pays in {row['beside its auditor']} of "
        f"{row['rows']}."
        for _, row in pays(sizes).iterrows()
    ) or "This profile has no SRS rows."


# ------------------------------------------------------------------------------------------------ (e) exact noise


def exact_noise(profile: Profile) -> Shown:
    """What exact noise costs to draw and adds to alpha."""
    samples = profile.n0 + profile.n
    data_sets = dict.fromkeys((profile.data, profiles.CIFAR10))  # 8-bit images in any case: most thresholds
    rows = [drawing_cost(d, sigma, samples) for d in data_sets for sigma in profile.sigmas]
    digits = {"table, once (seconds)": 2, "float noise (seconds)": 4, "grid noise (seconds)": 4, "ratio": 1}
    return show.table(profile, "exact_noise", pd.DataFrame(rows), (
        "Noise on the pixels' own grid, from the exactly computed discretised Gaussian. 'added to alpha': bound for a "
        f"certificate from {samples} noisy copies on what rounding the probabilities to 64 bits can do. Seconds are those of a "
        "million pixels."
    ), digits)  # fmt: skip


def drawing_cost(data_set: settings.Data, sigma: float, samples: int) -> dict[str, object]:
    """What a million pixels of grid noise take beside float noise, and what the 64 bits add to alpha."""
    rng, levels = noise.stream(0, 0, "estimate"), data_set.levels
    once = timeit.timeit(lambda: exact.table.__wrapped__(sigma, levels), number=1)  # past the cache
    draws = (lambda: rng.standard_normal(PIXELS, np.float32), lambda: exact.draw(rng, (PIXELS,), sigma, levels))
    plain, grid = (min(timeit.repeat(draw, number=1, repeat=REPEATS)) for draw in draws)
    return {
        "data": data_set.name, "grid": f"1/{levels}", "sigma": sigma, "thresholds": len(exact.table(sigma, levels).thresholds),
        "added to alpha per certificate": f"{exact.added_to_alpha(sigma, levels, np.prod(data_set.shape), samples):.1e}",
        "table, once (seconds)": once, "float noise (seconds)": plain, "grid noise (seconds)": grid, "ratio": grid / plain,
    }  # fmt: skip
