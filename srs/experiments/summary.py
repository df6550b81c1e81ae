"""What a reader sees first: five findings and a figure that open the report, the distance to the paper, the README's table."""

import math
import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from srs import profiles, sealed, store
from srs.analysis import measures, plots, show
from srs.experiments import certified_accuracy, scaling, soundness, speed
from srs.experiments.certified_accuracy import best_of_the_paper, name_of
from srs.settings import Profile, Run, STOP
from srs.smoothing import bounds
from srs.smoothing.bounds import Rule

SIGMA = 0.5  # the paper's main noise level
RADII = (0.25, 0.5, 1.0)
PAPER_REFERENCE = "MDEQ-30A"
NEARLY = 95  # percent of the ACR: what a better buy must keep
BLOCK = re.compile(r"(<!-- (rows|scaling|beside): ([^>]*?) -->\n).*?(\n<!-- end -->)", re.DOTALL)
CERTIFIED_BY = {
    Rule.COHEN: "Cohen et al. 2019", Rule.RELEASED: "the authors' formula", Rule.THEOREM31: "the paper's Theorem 3.1",
    Rule.AUDIT: "`audit` (ours)",
}  # fmt: skip
MARKERS = dict(zip(show.RULE_LABELS.values(), "os^x"))


def findings(counted: pd.DataFrame, profile: Profile) -> list[tuple[str, str, str]]:
    """Questions, their answers with numbers, and their tables; some are read from `failure_rates` and `audit_size_pays`."""
    run, told = main_run(counted, profile), [("How accurate is it?", *accuracy_finding(counted, profile))]
    own = certified_accuracy.of_run(counted, run)
    standard = kept(at_main_sigma(counted, profile), profile).query("method == @profile.reference")
    if best_of_the_paper(own) and standard["ACR"].any():  # a model that certifies nothing has nothing to be compared
        told += [
            ("What does SRS keep?", kept_finding(own, profile), name_of("cost", run)),
            ("Do the authors' certificates hold?", released_finding(own, profile), "failure_rates"),
            ("When does SRS pay at all?", pays_finding(counted, profile), "audit_size_pays"),
            ("What is our rule worth?", soundness.gain_finding(own, profile), name_of("certified_accuracy", run)),
        ]
    if run.profile.adaptive and (timings := speed.read(run)) is not None:
        told.append(("How fast is it?", speed.table_finding(run, timings), name_of("cost_by_n", run)))
    return told


def main_run(counted: pd.DataFrame, profile: Profile) -> Run:
    """The run at sigma 0.5, or at the first level without it, of the most images, and there of standard RS's largest ACR."""
    runs = certified_accuracy.certified_runs(counted, profile)
    at = SIGMA if any(run.sigma == SIGMA for run in runs) else runs[0].sigma
    standard = measures.certificates(counted[~counted["needs_audit"]], alpha=profile.alpha)
    acr = measures.certified_accuracy(standard, [0.0], measures.METHOD)["ACR"].groupby(measures.RUN, observed=True).max()
    of = {run: tuple(certified_accuracy.identity(run).values()) for run in runs if run.sigma == at}
    return max(of, key=lambda run: (run.profile.images, acr[of[run]]))


def at_main_sigma(counted: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The counts of all models at the noise level of `main_run`."""
    return counted[counted["sigma"] == main_run(counted, profile).sigma]


def accuracy_finding(counted: pd.DataFrame, profile: Profile) -> tuple[str, str]:
    """Certified accuracy of standard RS and of the paper's best SRS, how far from the paper's it lies; its table."""
    run, radii = main_run(counted, profile), (0.0, *RADII)
    own = certified_accuracy.of_run(counted, run)
    methods = [method for method in (profile.reference, best_of_the_paper(own)) if method]
    rows = measures.certified_accuracy(measures.holding(own, alpha=profile.alpha), radii, ["method"]).drop(columns="ACR")
    told = [f"{method} {' / '.join(show.round_half_up(value, 1) for value in rows.loc[method])} %" for method in methods]
    sentence = (
        f"Certified accuracy at r = {', '.join(f'{r:g}' for r in radii)} ({profile.data.name}, {run.model.name} "
        f"{run.train.recipe}, sigma {run.sigma:g}, {own['idx'].nunique()} images): {'; by audit '.join(told)}."
    )
    if (away := distance(counted, profile)).empty:
        return sentence, name_of("certified_accuracy", run)
    away = away[(away[["model", "sigma", "method"]] == [run.model.name, run.sigma, methods[0]]).all(axis=1)]
    away = away.set_index(["recipe", "statement"]).filter(like="r=")
    points = away.loc[(run.train.recipe, "distance")]
    sentence += f" Ours minus the paper's {PAPER_REFERENCE}: {points.min():+.1f} to {points.max():+.1f} points over all radii"
    if own["idx"].nunique() >= plots.FEW:  # or the interval holds nearly everything
        spans = away.xs("its 95 % interval", level="statement")
        inside = spans.map(lambda span: np.multiply(*map(float, span.split(" to "))) <= 0).sum(axis=1)
        others = ", ".join(f"{recipe} {count}" for recipe, count in inside.drop(run.train.recipe).items())
        sentence += f"; the 95 % interval of the difference holds 0 at {inside[run.train.recipe]} of {len(points)} radii"
        sentence += f" (other recipes: {others})" * bool(others)
    return f"{sentence}.", "paper_distance"


def kept_finding(counted: pd.DataFrame, profile: Profile) -> str:
    """How much faster the paper's best SRS is on a run, and what of standard RS's ACR it keeps under each rule."""
    srs, audit = best_of_the_paper(counted), f"at K = {profile.method(best_of_the_paper(counted)).audit}"
    rows = kept(counted, profile).query("method == @srs").set_index("rule")
    told = ", ".join(f"{share:.0f} % under {rule}" for rule, share in rows["kept"].items())
    faster = f"{srs} spends {rows['times'].iloc[0]:.1f} times fewer evaluations of f than"
    return f"{faster} {certified_accuracy.reference_of(profile)} and {audit} keeps this much of its ACR: {told}."


def released_finding(counted: pd.DataFrame, profile: Profile) -> str:
    """In how many simulated settings the authors' rule fails, and how many SRS certificates exceed standard RS's, by rule."""
    srs, told, name = best_of_the_paper(counted), "", show.RULE_LABELS[Rule.RELEASED]
    if (path := store.shown(profile, "failure_rates.csv")).is_file():
        cells = pd.read_csv(path).query("rule == @name").filter(like="alpha = ")
        refuted = cells.apply(lambda column: column.str.endswith("refuted")).to_numpy()
        told = f"Where the truth is known, '{name}' is refuted in {refuted.sum()} of {refuted.size} simulated settings. "
    both = measures.rrd(measures.certificates(counted[counted["method"].isin([srs, profile.reference])], alpha=profile.alpha))
    above = (both["radius"] > both["radius_rs"]).groupby(both["rule"].cat.rename_categories(show.RULE_LABELS), observed=True)
    larger = ", ".join(f"{count} under {rule}" for rule, count in above.sum().items())
    return (
        f"{told}The authors' formula does not pay for wrong votes. Of {above.size().max()} images, {srs} has a "
        f"larger radius than {profile.reference} on the same noise on {larger}."
    )


def pays_finding(counted: pd.DataFrame, profile: Profile) -> str:
    """Where SRS certifies more than plain RS at equal cost, by N, K and model, and the better buy elsewhere."""
    told = []
    for n, name in ((profile.n, "audit_size_pays"), (soundness.N, "audit_size_pays_large_n")):
        if (path := store.shown(profile, f"{name}.csv")).is_file():
            table = pd.read_csv(path, keep_default_na=False)
            won = table[table["pays for K"] != "none"].assign(lead=lambda rows: rows["its radius"] - rows["RS at its NFE"])
            most = won.sort_values("lead", ascending=False)[:1]
            where = [f"{r['method']} on {r['recipe']} {r['sigma']:g} with K = {r['pays for K']}" for _, r in most.iterrows()]
            beside = f", beside {profile.reference} in {len(won)}{''.join(map(' (most by {})'.format, where))}"
            alone = f"{(table[soundness.PAYS_OWN] != 'none').sum()} of {len(table)} rows beside the solve that audits it"
            told.append(f"at N = {n:,} in {alone}{beside * any(method.auditor for method in profile.methods)}")
    pays = f"Under audit SRS certifies more than plain RS at equal cost: {'; '.join(told)}. " if told else ""
    return f"{pays}{better_buy(counted, profile)}"


def better_buy(counted: pd.DataFrame, profile: Profile) -> str:
    """The fastest votes without an audit that keep nearly all of standard RS's ACR, on each model of the main noise level."""
    rows, srs, told = kept(at_main_sigma(counted, profile), profile), best_of_the_paper(counted), []
    for (model, recipe), own in rows[rows["ACR_rs"] > 0].groupby(["model", "recipe"], observed=True):
        plain = own[own["rule"] == show.RULE_LABELS[Rule.COHEN]].set_index("method")
        best = plain.loc[plain["times"].where(plain["kept"] >= NEARLY).idxmax()]
        audited = own[(own["method"] == srs) & (own["rule"] == show.RULE_LABELS[Rule.AUDIT])]
        beside = "".join(f"; {srs} {row.times:.1f} times, {row.kept:.0f} %" for row in audited.itertuples())
        share = f"{best['times']:.1f} times fewer evaluations, {best['kept']:.0f} % kept"
        told.append(f"{best.name} on {model} {recipe} ({share}{beside})")
    return (
        f"The better buy, which keeps at least {NEARLY} % of {profile.reference}'s ACR without an audit, is "
        f"{' and '.join(told) or 'unknown'}."
    )


def kept(counted: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """What each method keeps of RS's ACR under each rule (percent), and how many times fewer evaluations it spends."""
    rows = measures.certified_accuracy(measures.certificates(counted, alpha=profile.alpha), [0.0]).reset_index()
    rows = rows.merge(measures.cost(counted)["NFE/image"].reset_index(), on=measures.METHOD)
    standard = rows[rows["method"] == profile.reference].drop(columns="method")
    both = rows.merge(standard, suffixes=("", "_rs"), on=measures.RUN)
    share, times = both["ACR"] / both["ACR_rs"].replace(0, np.nan), both["NFE/image_rs"] / both["NFE/image"]
    return both.assign(kept=100 * share, times=times, rule=both["rule"].cat.rename_categories(show.RULE_LABELS))


def kept_against_speed(counted: pd.DataFrame, profile: Profile) -> list[show.Shown]:
    """The figure of the first screen: accuracy kept against speed under each rule; none where no SRS votes were drawn."""
    rows = kept(own := at_main_sigma(counted, profile), profile)
    if rows.empty or not own["needs_audit"].any():
        return []
    rows = rows.assign(panel=measures.in_order(rows["model"].astype(str) + ", " + rows["recipe"].astype(str)))
    axes = {"x": f"times fewer evaluations than {profile.reference}", "y": f"ACR kept (% of {profile.reference}'s)"}
    drawn = plots.grid(rows, panel="panel", hue="rule", draw=_points, columns=1, height=2.0, **axes)
    caption = (
        f"Accuracy kept against speed at sigma {own['sigma'].iloc[0]:g} ({profile.data.name}, {own['idx'].nunique()} images): "
        "a point per method and rule. Round: standard votes, which need no audit. Square and triangle: SRS votes under our "
        "rule and under the paper's. Cross: the same votes by the authors' formula, whose certificates do not hold."
    )
    return [show.figure(profile, "kept_against_speed", drawn, caption)]


def _points(ax: Axes, own: pd.DataFrame, look: dict, _: tuple[int, int]) -> None:
    own, marker = own.dropna(subset=["kept"]), {"s": 12, "marker": MARKERS[look["label"]], "linewidths": 0.8}
    ax.scatter(own["times"], own["kept"], color=look["color"], label=look["label"], **marker)
    if look["label"] in (show.RULE_LABELS[Rule.COHEN], show.RULE_LABELS[Rule.AUDIT]):
        name = own["method"].astype(str).str.replace("MDEQ-", "")
        near = [np.log(own["times"]).round(1), (own["kept"] / 3).round()]  # one label where points all but coincide
        for names, x, y in zip(name.groupby(near).agg(", ".join), *(own.groupby(near)[c].mean() for c in ("times", "kept"))):
            ax.annotate(names, (x, y), xytext=(2, 2), textcoords="offset points", fontsize=5, rotation=25)
    ax.margins(y=0.12)  # room for the names
    ax.set_xscale("log")
    ax.set_xticks([1, 2, 5, 10, 20, 30], ["1", "2", "5", "10", "20", "30"])
    ax.minorticks_off()


def distance(counted: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The paper's entries, ours minus theirs in points, and that difference's interval; none for other data."""
    if profile.data.name not in ("cifar10", "imagenet"):  # CIFAR-10's stand beside other small images, but at no distance
        return pd.DataFrame()
    known, names = certified_accuracy.published(profile.data.name).sort_index(), [f"r={r:.2f}" for r in profile.radii]
    ours_for = {profile.reference: PAPER_REFERENCE, best_of_the_paper(counted): best_of_the_paper(counted)}
    certified, rows = measures.holding(counted[counted["method"].isin(ours_for)], alpha=profile.alpha), []
    ours, sure = measures.certified_accuracy(certified, profile.radii), measures.confidence(certified, profile.radii)
    images = certified.groupby(measures.ROW, observed=True)["idx"].nunique()  # runs may differ in them
    for key in ours.index:
        model, _, sigma, method, _ = key
        entry = (model, sigma, ours_for[method])
        if entry in known.index and known.loc[entry].filter(like="r=").notna().all():
            theirs = known.loc[entry, names]
            low, high = (100 * sure.loc[key].xs(end, level=1).to_numpy() - theirs for end in ("low", "high"))
            spans = pd.Series(map(_span, low, high), names)
            cells = {"as published": theirs, "distance": ours.loc[key, names] - theirs, "its 95 % interval": spans}
            named = dict(zip(measures.ROW, key)) | {"images": images[key]}
            rows += [named | {"statement": statement} | dict(own) for statement, own in cells.items()]
    return pd.DataFrame(rows)


def _span(low: float, high: float, form: str = "{:+.1f} to {:+.1f}") -> str:
    """An interval in points, its ends rounded away from each other."""
    return form.format(math.floor(10 * low) / 10, math.ceil(10 * high) / 10)


def paper_distance(counted: pd.DataFrame, profile: Profile) -> list[show.Shown]:
    """The table of distances to the paper's certified accuracy; none where it has other data or models."""
    if (frame := distance(counted, profile)).empty:
        return []
    constant = [name for name in measures.RUN if frame[name].nunique() == 1]
    where = ", ".join([profile.data.name, *(f"{name} {frame[name].iloc[0]}" for name in constant)])
    return [show.table(profile, "paper_distance", frame.drop(columns=constant), (
        f"{where}: certified accuracy on so many images beside the paper's on 500, its entries in "
        f"percent, ours minus them in points, and the {100 * measures.CONFIDENCE:g} % interval of that difference over our "
        "images." + " SRS stands under 'audit'; the paper does not say by which formula." * bool(counted["needs_audit"].any())
        + f" {profile.reference} stands beside the paper's {PAPER_REFERENCE}." * (profile.reference != PAPER_REFERENCE)
    ))]  # fmt: skip


def ways(run: Run) -> pd.DataFrame:
    """Six ways to certify, the last the cheapest with votes nearly the full solve's; cost is against the authors' MDEQ-30A."""
    profile, counted = run.profile, store.read_run(run)
    srs, cost = best_of_the_paper(counted), measures.cost(counted[~counted["needs_audit"]], ["method"])
    cheap = cost.loc[cost["disagreement %"] < 5, "NFE/image"].idxmin()
    audited = [(srs, rule) for rule in (Rule.RELEASED, Rule.THEOREM31, Rule.AUDIT)]
    chosen = [(profile.reference, Rule.COHEN), (STOP.name, Rule.COHEN), *audited, (cheap, Rule.COHEN)]
    accuracy = measures.certified_accuracy(measures.certificates(counted, alpha=profile.alpha), RADII, ["method", "rule"])
    faster = speed.read(run)["nfe"][0] * (profile.n0 + profile.n) / measures.cost(counted, ["method"])["NFE/image"]
    return pd.DataFrame([
        {"votes drawn by": method, "certified by": CERTIFIED_BY[rule], "holds": "yes" if rule.sound else "**no**",
         **accuracy.loc[(method, str(rule))].drop("ACR").to_dict(), "times fewer evaluations": faster[method]}
        for method, rule in dict.fromkeys(chosen)
    ])  # fmt: skip


def beside(profile: Profile) -> pd.DataFrame:
    """Certified accuracy in percent of the ways of a profile's main run, with intervals, below the paper's full solve.

    Last the reference on that level's best model without a loss that the paper has not.
    """
    run, names = main_run(every := store.read_counts(profile), profile), ["recipe", "method"]
    there = every[(every["sigma"] == run.sigma) & (every["model"] == run.model.name)]
    certified = measures.holding(there, alpha=profile.alpha)
    ours, sure = (of(certified, profile.radii, names) for of in (measures.certified_accuracy, measures.confidence))
    own, cells = ours.loc[run.train.recipe], lambda row: [show.round_half_up(share, 1) for share in row.drop("ACR")]
    theirs = certified_accuracy.published(profile.data.name).loc[(run.model.name, run.sigma, PAPER_REFERENCE), own.columns[:-1]]
    rows = [[f"the paper's {PAPER_REFERENCE}", *map("{:.0f}".format, theirs)]]
    for method in own.index:
        ends = (_span(*(100 * sure.loc[(run.train.recipe, method), r]), "{:.1f}-{:.1f}") for r in profile.radii)
        rows += [[f"our {method}", *cells(own.loc[method])], [f"{100 * measures.CONFIDENCE:g} % interval", *ends]]
    plain = ours.xs(profile.reference, level="method").drop({r.train.recipe for r in profile.runs if r.train.consistency})
    if run.train.consistency and len(plain):
        rows.append([f"our {profile.reference}, no consistency loss", *cells(plain.loc[plain["ACR"].idxmax()])])
    return pd.DataFrame(rows, columns=[f"{certified_accuracy.of_run(there, run)['idx'].nunique()} images", *own.columns[:-1]])


def filled(text: str) -> str:
    """The text with its blocks made anew: `<!-- rows: PROFILE MODEL SIGMA RECIPE --> ... <!-- end -->`, `beside`, `scaling`."""
    def fill(found: re.Match) -> str:
        kind, (profile, *run), left, told = found[2], found[3].split(), 1, ""
        if kind == "beside":
            table = beside(profiles.get_profile(profile))
        else:
            run = profiles.get_run(profile, run[0], float(run[1]), run[2])
            table = scaling.projection(scaling.read(run)) if kind == "scaling" else ways(run)
        if kind == "rows":
            table, left, images = show.cells(table, {"times fewer evaluations": 1}), 3, store.read_run(run)["idx"].nunique()
            low, high = bounds.proportion_interval(images // 2, images, measures.CONFIDENCE)  # of an entry of about a half
            told = f"\n\n{images} images: an entry can be off by {50 * (high - low):.0f} points."
        aligned = ["left"] * left + ["right"] * (table.shape[1] - left)
        return found[1] + table.to_markdown(index=False, disable_numparse=True, colalign=aligned) + told + found[4]

    return BLOCK.sub(fill, text)


def refresh() -> None:
    """Fill every block of the README anew."""
    path = sealed.root() / "README.md"
    path.write_text(filled(path.read_text()))
