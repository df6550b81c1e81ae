"""Notebook 40: which rule holds, how far each can reach, what our rule gains, how many votes to audit, what exact noise costs."""

import timeit
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from srs import data, profiles, settings
from srs.analysis import measures, plots, show
from srs.analysis.measures import METHOD, RULES, RUN
from srs.analysis.show import RULE_LABELS, Shown
from srs.deq import checkpoints
from srs.experiments import simulation
from srs.experiments.certified_accuracy import best_of_the_paper, family_name, published, PUBLISHED_SETTINGS
from srs.experiments.simulation import DEAREST, OWN_RS, RS
from srs.settings import Profile, Run
from srs.smoothing import bounds, exact, noise, votes
from srs.smoothing.bounds import DEFAULT_SPLIT, Rule
from srs.store import paths

N, K, ALPHA = PUBLISHED_SETTINGS.values()
MARKERS = dict(zip(RULE_LABELS.values(), "os^x"))
CAP_SIGMAS = (0.12, 0.25, 0.5, 1.0)
CAP_NS = (1_000, 10_000, 100_000)
CAP_KS = (50, 100, 200, 400, 1_000, 2_100, 4_000, 10_000)
NEAR = 0.1  # of plain RS's radius: so far a point may lie from the line of equal radii
PIXELS, REPEATS = 1_000_000, 3  # drawn at a time to be timed; the fastest one counts: the machine may be busy
IMAGES, COPIES = 3, 200  # on which votes are compared: minutes of the smallest network, not hours of the largest


# ------------------------------------------------------------------------------------------------ (a) failure rates


def rates(measured: pd.DataFrame, profile: Profile) -> list[Shown]:
    """A table and a figure of `simulation.measure` at each N: how often each rule's certificates are false."""
    shown = []
    for n, k, _ in simulation.SIZES:
        own, name = measured[measured["n"] == n], "failure_rates" + "_small_n" * (n != N)
        sizes = f"N = {n}, K = {k}, {own['certificates'].iloc[0]} certificates"
        caption = (
            f"False certificates in percent, with one-sided 99 % limits to either side ({sizes} a line). False: the radius "
            "exceeds the true one. 'errors': share of the votes for other classes that the surrogate turns to the top class, and "
            "(-) of its votes that it turns away, in runs along the chain. 'holds': upper limit <= alpha + 3 standard errors; "
            "'refuted': lower limit > alpha. The rule 'cohen' is given the standard votes, the others the surrogate's. Mean "
            f"radius at alpha = {min(simulation.ALPHAS):g}, abstentions counting 0. 'released (unsound)' is the authors' code."
        )
        shown.append(show.table(profile, name, rate_table(own), caption, {"true radius": 3}, down=["mean radius"]))
        panels = own.assign(label=labels(own["rule"]), panel=own["problem"] + ", " + own["errors"])
        drawn = plots.grid(panels, panel="panel", hue="label", draw=_draw_rates, x=r"promised $\alpha$", y="failure rate")
        caption = (
            f"Measured failure rates with 99 % limits ({sizes} a panel). Dashed: what was promised. Arrow down from the upper "
            "limit: no failure was seen. Errors as in the table. 'released (unsound)' is the authors' code."
        )
        shown.append(show.figure(profile, f"{name}_figure", drawn, caption))
    return shown


def rate_table(measured: pd.DataFrame) -> pd.DataFrame:
    """A line per classifier, surrogate and rule; per alpha the failures in percent, 99 % limits and verdict."""
    percent = measured[["rate", "lower", "upper"]].map(lambda share: show.round_half_up(100 * share, 3))
    cell = percent["rate"] + " (" + percent["lower"] + "-" + percent["upper"] + ") " + measured["verdict"]
    line = ["problem", "errors", "rule"]
    wide = measured.assign(cell=cell).set_index([*line, "alpha"])["cell"].unstack("alpha")
    radius = measured[measured["alpha"] == measured["alpha"].min()].set_index(line)[["radius", "true radius"]]
    alphas = {alpha: f"alpha = {alpha:g}" for alpha in sorted(wide, reverse=True)}
    return wide[list(alphas)].rename(columns=alphas).join(radius.rename(columns={"radius": "mean radius"})).reset_index()


def _draw_rates(ax: Axes, named: Mapping[str, pd.DataFrame]) -> None:
    for i, (name, own) in enumerate(named.items()):
        alphas, bar = sorted(own["alpha"], reverse=True), {"color": plots.look(name)[0], "linewidth": 0.7, "capsize": 1.5}
        x = own["alpha"].map(alphas.index).to_numpy() + 0.2 * (i - (len(named) - 1) / 2)
        rate, lower, upper = (own[column].to_numpy() for column in ("rate", "lower", "upper"))
        some = rate > 0
        limits = [(rate - lower)[some], (upper - rate)[some]]
        ax.errorbar(x[some], rate[some], limits, fmt=MARKERS[name], markersize=3, label=name, **bar)
        ax.errorbar(x[~some], upper[~some], 0.7 * upper[~some], fmt="none", uplims=True, **bar)
    for i, alpha in enumerate(alphas):
        ax.hlines(alpha, i - 0.42, i + 0.42, color="0.35", linewidth=0.8, linestyle="--", label=None if i else "promised")
    ax.set_yscale("log")
    ax.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])


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


def labels(rules: pd.Series) -> pd.Categorical:
    """The rules under the names that the reader sees, in the order of the tables."""
    return pd.Categorical(rules.map(RULE_LABELS), RULE_LABELS.values(), ordered=True)


# ------------------------------------------------------------------------------------------------ (b) caps


def caps(profile: Profile) -> list[Shown]:
    """The largest radius that each rule can certify at all, in tables and a figure, and published entries beyond it."""
    ideal = (
        f"all N votes for c_A and no disagreement among the K audited ones (alpha = {ALPHA:g}). 'released (unsound)' never pays "
        "for what the audit leaves open."
    )
    by_sigma = pd.DataFrame({"sigma": CAP_SIGMAS} | {rule: [largest(rule, K, sigma) for sigma in CAP_SIGMAS] for rule in RULES})
    fine = pd.concat(reach([n], np.unique(np.geomspace(20, n, 40).astype(int))) for n in CAP_NS)
    fine = fine.melt(["N", "K"], RULES, "rule", "radius")
    fine = fine.assign(label=labels(fine["rule"]), panel=measures.in_order(f"N = {n:,}" for n in fine["N"]))
    drawn = plots.grid(fine, panel="panel", hue="label", draw=_draw_caps, columns=3, x="audited K", y=r"largest radius / $\sigma$")
    drawn.axes[0].set_ylim(bottom=0)  # after all have drawn: they share the axis
    beyond = (
        f"Published SRS entries (CIFAR-10, sigma = 0.5) at radii that Theorem 3.1 cannot certify at N = {N}, K = {K} from any "
        "votes; the released (unsound) formula can. Last columns: the K from which a rule could reach r at that N."
    )
    digits = {label: 3 for label in RULE_LABELS.values()}  # to the nearest: a cap certifies nothing
    named = [frame.rename(columns=RULE_LABELS) for frame in (by_sigma, reach(CAP_NS, CAP_KS))]
    return [
        show.table(profile, "caps", named[0], f"Largest radius of each rule at N = {N}, K = {K}: {ideal}", digits),
        show.table(profile, "caps_by_size", named[1], f"Largest radius of each rule in units of sigma: {ideal}", digits),
        show.figure(profile, "caps_figure", drawn, f"Largest radius of each rule in units of sigma: {ideal}"),
        show.table(profile, "published_beyond_caps", published_beyond(), beyond),
    ]


def reach(ns, ks) -> pd.DataFrame:
    """The largest radius in units of sigma of each rule (a column) for every N and K <= N (a row)."""
    sizes = pd.MultiIndex.from_product([ns, ks], names=["N", "K"]).to_frame(index=False).query("K <= N").reset_index(drop=True)
    n, k = sizes["N"].to_numpy(), sizes["K"].to_numpy()
    with bounds.silent_about_released():
        return sizes.assign(**{rule: bounds.largest_radius(rule, n, k, 1.0, ALPHA) for rule in RULES})


def largest(rule: Rule, k: int, sigma: float, n: int = N) -> float:
    """The largest radius of a rule, by default at the paper's N."""
    return float(sigma * reach([n], [k])[rule].iloc[0])


def _draw_caps(ax: Axes, named: Mapping[str, pd.DataFrame]) -> None:
    for name, own in named.items():
        colour, line = plots.look(name)
        ax.plot(own["K"], own["radius"], label=name, color=colour, linestyle=line)
    ax.set_xscale("log")


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
    entries = beyond.filter(like="published").to_numpy().ravel()
    where = f", at r = {', '.join(beyond.index)}," if len(beyond) else ""
    return (
        f"At sigma = {sigma:g}, N = {N:,} and K = {k} Theorem 3.1 certifies no radius above {theorem(k, sigma):.3f}, and "
        f"'released (unsound)' none above {largest(Rule.RELEASED, k, sigma):.3f}; {int((entries != '0 %').sum())} published SRS "
        f"entries{where} lie beyond the theorem's reach. In units of sigma ten times the votes raise its cap from "
        f"{theorem(k, 1.0):.2f} to {theorem(k, 1.0, 10 * N):.2f}, ten times the audit to {theorem(min(10 * k, N), 1.0):.2f}."
    )


# ------------------------------------------------------------------------------------------------ (c) trained models


def rules_by_image(counts: pd.DataFrame, profile: Profile) -> list[Shown]:
    """Every image's radius under each rule against plain RS's, and what our rule gains; nothing for a profile without SRS."""
    if not counts["needs_audit"].any():
        return []
    shown, best = [], profile.method(best_of_the_paper(counts))
    for (model, recipe), own in by_image(counts, profile).groupby(["model", "recipe"], observed=True):
        family, axes = family_name(model, recipe), {"x": f"radius of {profile.reference}", "y": f"radius of {best.name}"}
        drawn = plots.grid(own, panel="sigma", hue="label", draw=_scatter, title=plots.sigma_title, shared=False, **axes)
        caption = (
            f"Certified l2 radius ([0, 1] pixels) of every image under {best.name} by each rule, against that of "
            f"{profile.reference} by 'cohen' on the same noise (MDEQ-{family} on {profile.data.name}, N = {profile.n}, K = "
            f"{best.audit}, alpha = {profile.alpha:g}). 0: the rule abstains. Grey: equal radii. {line_finding(own)}"
        )
        shown.append(show.figure(profile, f"rules_by_image_{family}", drawn, caption))
    caption = (
        "Mean certified radius of the rule 'audit' at an equal split of alpha and at the default one, beside Theorem 3.1's, over "
        "the images that at least one of them certifies (column 'images'); radii rounded down. The two rules audit different "
        "votes, so that single images may lose."
    )
    gain = audit_gain(counts, profile)
    digits, down = {name: 2 for name in gain if name.startswith("gain")}, [n for n in gain if n.startswith(("theorem", "audit"))]
    return [*shown, show.table(profile, "audit_gain", gain, caption, digits, down)]


def by_image(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The radius of every image under each rule on the paper's best SRS votes, beside the reference's `radius_rs`."""
    certified = measures.certificates(counts, alpha=profile.alpha)
    standard = certified.loc[certified["method"] == profile.reference, [*RUN, "idx", "radius"]]
    own = certified[certified["needs_audit"] & (certified["method"] == best_of_the_paper(counts))]
    return own.merge(standard, on=[*RUN, "idx"], suffixes=("", "_rs")).assign(label=lambda rows: labels(rows["rule"]))


def _scatter(ax: Axes, named: Mapping[str, pd.DataFrame]) -> None:
    top = 1.05 * max(1e-3, *(own[["radius", "radius_rs"]].to_numpy().max() for own in named.values()))
    ax.plot([0, top], [0, top], color="0.6", linewidth=0.6)
    for name, own in named.items():
        look = {"s": 7, "marker": MARKERS[name], "color": plots.look(name)[0], "linewidths": 0.6, "label": name}
        ax.scatter(own["radius_rs"], own["radius"], clip_on=False, **look)
    ax.set(xlim=(0, top), ylim=(0, top))


def line_finding(rows: pd.DataFrame) -> str:
    """How many images each rule gives nearly the radius of plain RS; rows of `by_image`."""
    some = rows[rows["radius_rs"] > 0]
    near = ((some["radius"] - some["radius_rs"]).abs() <= NEAR * some["radius_rs"]).groupby(some["label"], observed=True).sum()
    images = len(some[[*RUN, "idx"]].drop_duplicates())
    told = ", ".join(f"{count} under {label}" for label, count in near.items())
    return (
        f"Of {images} images that plain RS certifies, those whose SRS radius lies within {100 * NEAR:g} % of RS's: "
        f"{told or 'none'}. A radius under 'released (unsound)' does not hold, however near it comes."
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
    base = table[theorem].replace(0, np.nan)
    for split, ours in (("0.5", equal), (f"{DEFAULT_SPLIT:g}", default)):
        table[f"gain at {split} %"] = 100 * (table[ours] / base - 1)
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
            f"Radius against cost as the audit grows (N = {n}, counts {drawn}, alpha = {profile.alpha:g}). NFE per image, at "
            "what votes and audited votes cost when measured: selection with its pilot, N votes with their warm-up, min(K, N_A) "
            "audited ones; radius: mean over all images under the rule 'audit', abstentions counting 0. SRS pays where it "
            f"certifies more than plain RS ({profile.reference}) with fewer samples (n0 in proportion) and the same NFE."
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
                some = some.assign(panel=some["sigma"].map(plots.sigma_title))
                axes = ("NFE per image", r"mean $\ell_2$ radius")
                figure = plots.lines(some, x="NFE", y="radius", hue="method", panel="panel", labels=axes)
                name = f"audit_size_{family_name(model, recipe)}{ending}_figure" + f"_{i + 1}" * bool(i)
                shown.append(show.figure(profile, name, figure, caption))
    return shown


def pays_finding(sizes: pd.DataFrame) -> str:
    """Whether SRS pays at all: where it certifies a larger mean radius than plain RS does for the same NFE."""
    told = []
    for n, own in sizes.groupby("N", sort=False):
        srs = own.dropna(subset=["K"])
        if srs.empty:
            return "This profile has no SRS rows."
        pays, fair, rows = paying(srs, RS), paying(srs, OWN_RS), len(srs[METHOD].drop_duplicates())
        where = "; ".join(f"{method} on {model} {recipe}, sigma {s:g}: K = {k}" for (model, recipe, s, method), k in pays.items())
        best = srs.loc[(srs["radius"] - srs[RS]).idxmax()]
        lead = f"{best['radius'] - best[RS]:+.3f} ({best['method']}, sigma {best['sigma']:g}, K = {best['K']:.0f})"
        told.append(
            f"At N = {n:,} SRS certifies more than plain RS for the same NFE in {len(pays)} of {rows} rows"
            f"{f' ({where})' * bool(where)}; its largest lead over RS is {lead}. Beside plain RS by the very solve that audits "
            f"it, it pays in {len(fair)} of {rows}."
        )
    return " ".join(told)


# ------------------------------------------------------------------------------------------------ (e) exact noise


def exact_noise(profile: Profile) -> list[Shown]:
    """What exact noise costs to draw and adds to alpha, and whether a trained model votes otherwise where one is at hand."""
    samples = profile.n0 + profile.n
    data_sets = dict.fromkeys((profile.data, profiles.CIFAR10))  # 8-bit images in any case: most thresholds
    rows = [drawing_cost(d, sigma, samples) for d in data_sets for sigma in profile.sigmas]
    caption = (
        "The exact-noise mode: noise on the pixels' own grid from the exactly computed discretised Gaussian, so that rounding "
        f"cannot void a certificate. 'added to alpha': bound for a certificate from {samples} noisy copies on what rounding the "
        "probabilities to 64 bits can do. Both kinds of noise come from the same generator; their seconds are those of a million "
        "pixels."
    )
    digits = {"table, once (seconds)": 2, "float noise (seconds)": 4, "grid noise (seconds)": 4, "ratio": 1}
    shown = [show.table(profile, "exact_noise", pd.DataFrame(rows), caption, digits)]
    if trained := [run for run in profile.runs if paths.weights(run).is_file()]:
        caption = (
            f"Votes of one trained model ({profile.reference}) for the same class on float noise and on grid noise, drawn "
            "independently of each other: up to three standard errors of difference is what chance gives. Seconds are those of "
            "an image's votes."
        )
        digits |= {"largest difference of vote shares": 3, "three standard errors there": 3}
        shown.append(show.table(profile, "exact_noise_votes", pd.DataFrame([vote_shares(trained[0])]), caption, digits))
    return shown


def drawing_cost(data_set: settings.Data, sigma: float, samples: int) -> dict[str, object]:
    """What a million pixels of grid noise take beside float noise, and what the 64 bits add to alpha."""
    rng, levels = noise.stream(0, 0, "estimate"), data_set.levels
    once = timeit.timeit(lambda: exact.table.__wrapped__(sigma, levels), number=1)  # past the cache
    draws = (lambda: rng.standard_normal(PIXELS, np.float32), lambda: exact.draw(rng, (PIXELS,), sigma, levels))
    plain, grid = (min(timeit.repeat(draw, number=1, repeat=REPEATS)) for draw in draws)
    return {
        "data": data_set.name, "grid": f"1/{levels}", "sigma": sigma, "thresholds": len(exact.table(sigma, levels).thresholds),
        "added to alpha per certificate": show.scientific(exact.added_to_alpha(sigma, levels, np.prod(data_set.shape), samples)),
        "table, once (seconds)": once, "float noise (seconds)": plain, "grid noise (seconds)": grid, "ratio": grid / plain,
    }  # fmt: skip


def vote_shares(run: Run) -> dict[str, object]:
    """The share of votes for c_A on float and on grid noise, images side by side, by the standard solve."""
    model, images = checkpoints.load(paths.weights(run), run.model, run.profile.data), data.load(run.profile.data, "test")
    copies = min(COPIES, run.profile.n)
    sampling = replace(run.profile.sampling, n0=min(run.profile.n0, copies), n=copies)
    kinds, evaluated = [replace(sampling, noise=kind) for kind in settings.NOISES], run.profile.evaluated[:IMAGES]
    draw = partial(votes.draw_votes, model, method=sampling.reference, sigma=run.sigma)
    drawn = [[draw(images.x(i), sampling=kind, idx=i) for kind in kinds] for i in evaluated]
    c_a = [bounds.top_class(plain.select, sampling.classes) for plain, _ in drawn]
    plain, grid = np.array([[bounds.count(of.estimate, c) / copies for of in both] for both, c in zip(drawn, c_a)]).T
    seconds = np.array([[of.seconds.sum() for of in both] for both in drawn]).mean(axis=0)
    pooled, worst = (plain + grid) / 2, int(np.abs(plain - grid).argmax())
    return {
        "model": run.id, "images": len(evaluated), "copies": copies,
        "largest difference of vote shares": abs(plain - grid)[worst],
        "float / grid there": f"{plain[worst]:.3f} / {grid[worst]:.3f}",
        "three standard errors there": 3 * np.sqrt(2 * pooled * (1 - pooled) / copies)[worst],
        "float noise (seconds)": seconds[0], "grid noise (seconds)": seconds[1],
    }  # fmt: skip
