"""Notebook 30: certified accuracy of every run under every rule, beside the paper's rows; how sure it is; what it costs."""

import pandas as pd

from srs.analysis import measures, plots, show
from srs.analysis.measures import ROW, RUN
from srs.analysis.show import Shown
from srs.settings import Profile, Run
from srs.smoothing import bounds
from srs.smoothing.bounds import Rule
from srs.store import paths, shipped

PUBLISHED = "as published"
PUBLISHED_SETTINGS = {"n": 10_000, "k": 400, "alpha": 0.001}  # of the paper's tables: N, K, alpha
QUALITY_STEPS = (1, 5)


def quality(profile: Profile) -> Shown:
    """What each model card says of accuracy, convergence and cost; empty cells where there is no card or field."""
    frame = pd.DataFrame([{**identity(run), **model_quality(run)} for run in profile.runs])
    caption = (
        f"The trained models of profile '{profile.name}': accuracy on clean and on noisy test images at the training "
        "sigma, mean relative residual of the solver on noisy images, and how many votes of a solver stopped early are "
        "those of the full solve, from a zero start. Empty cells: no model card was found."
    )
    return show.table(profile, "model_quality", frame, caption)


def identity(run: Run) -> dict[str, object]:
    """The cells that say which run a line is about."""
    return {"model": run.model.name, "recipe": run.train.recipe, "sigma": run.sigma}


def model_quality(run: Run) -> dict[str, object]:
    """What a run's model card says, as cells; None where it says nothing."""
    card = shipped.card(run)
    residual, agreement = card.get("residual", {}), card.get("agreement", {})
    full = run.profile.method(run.profile.reference).steps
    share = lambda value: None if value is None else 100 * value  # noqa: E731
    return {
        "parameters": card.get("parameters"),
        "clean accuracy %": share(card.get("clean_accuracy")),
        "noisy accuracy %": share(card.get("noisy_accuracy")),
        "residual after 1 step": show.scientific(residual.get("1")),
        f"residual after {full} steps": show.scientific(residual.get(str(full))),
        **{f"votes as after {full} steps, {k} step{'s' * (k > 1)} %": share(agreement.get(str(k))) for k in QUALITY_STEPS},
        "training steps": show.round_half_up(card.get("steps"), 0),
        "training seconds": show.round_half_up(card.get("seconds"), 0),
    }


def published(data: str) -> pd.DataFrame:
    """The paper's own rows of a data set (CIFAR-10's stand beside other small images, too): a row per model, sigma, method."""
    rows = pd.read_csv(paths.published("certified_accuracy"))
    rows = rows[rows["data"] == ("imagenet" if data.startswith("imagenet") else "cifar10")]
    wide = rows.pivot(index=["model", "sigma", "method"], columns="measure", values="value")
    return wide if data != "imagenet-sample" else wide.iloc[:0]


def accuracy(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Certified accuracy at the profile's radii and ACR of every run, method and rule, the paper's row below each method."""
    certified = measures.certificates(counts, alpha=profile.alpha)
    ours = measures.certified_accuracy(certified, profile.radii).reset_index()
    known = published(profile.data.name).reindex(columns=[c for c in ours.columns if c not in ROW]).reset_index()
    theirs = ours[[*RUN, "method"]].drop_duplicates().merge(known, on=["model", "sigma", "method"])
    # A value that the paper prints whole stays so: as text.
    values = theirs.columns.difference(ROW)
    theirs[values] = theirs[values].map(lambda v: "" if pd.isna(v) else f"{v:g}").astype(object)
    order = {name: i for i, name in enumerate([*map(str, measures.RULES), PUBLISHED])}
    both = pd.concat([ours.astype({"rule": str}).astype(object), theirs.assign(rule=PUBLISHED).astype(object)])
    place = {name: {v: i for i, v in enumerate(counts[name].cat.categories)} for name in measures.METHOD}
    return both.sort_values(ROW, key=lambda c: c.map(place.get(c.name, order)), kind="stable").reset_index(drop=True)


def confidence(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """How sure the main table is, sound rules only: certified accuracy, its interval, and what holds for g itself."""
    certified = measures.certificates(counts, alpha=profile.alpha)
    certified = certified[certified["rule"] != Rule.RELEASED]
    sure = measures.confidence(certified, profile.radii, profile.alpha)
    measured = measures.certified_accuracy(certified, profile.radii)
    rows = []
    for key in sure.index:
        at = {f"r={r:.2f}": sure.loc[key, r] for r in profile.radii}
        named = dict(zip(ROW, key))
        rows += [
            {**named, "statement": "measured", **measured.loc[key, list(at)]},
            {**named, "statement": f"{100 * measures.CONFIDENCE:g} % interval"} | {r: show.outward(v["low"], v["high"]) for r, v in at.items()},
            {**named, "statement": f"holds with {100 * (1 - measures.RHO):g} %"} | {r: f">= {show.outward(v['sure'], 1).split('-')[0]}" for r, v in at.items()},
        ]
    return pd.DataFrame(rows)


def cost(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """What every method of every run spends, and how many times less than the reference."""
    return measures.speed_up(measures.cost(counts), profile.reference).reset_index()


def tables(counts: pd.DataFrame, profile: Profile) -> list[Shown]:
    """Three tables for each run: certified accuracy, what it costs, how sure it is."""
    made = {"certified_accuracy": (accuracy, _accuracy_caption), "cost": (cost, _cost_caption), "confidence": (confidence, _confidence_caption)}
    frames = {kind: (build(counts, profile), caption) for kind, (build, caption) in made.items()}
    shown = []
    for run in certified_runs(counts, profile):
        for kind, (frame, caption) in frames.items():
            own = of_run(frame, run).drop(columns=RUN)
            shown.append(show.table(profile, name_of(kind, run), own, caption(run)))
    return shown


def order_finding(counts: pd.DataFrame) -> str:
    """How often a longer solve from zero is better at r = 0: the paper's order of the rows of standard RS."""
    certified = measures.certificates(counts[~counts["needs_audit"]], alpha=0.001, rules=[Rule.COHEN])
    at_zero = measures.certified_accuracy(certified, [0.0], measures.METHOD)["r=0.00"].unstack("method")
    steps = sorted((int(m.split("-")[1][:-1]), m) for m in at_zero.columns if m.split("-")[1][:-1].isdigit() and m.startswith("MDEQ-"))
    names = [name for _, name in steps]
    if len(names) < 2:
        return "This profile has no truncated solves from zero to compare."
    rising = sum(all(row[a] < row[b] for a, b in zip(names, names[1:])) for _, row in at_zero.iterrows())
    return f"Certified accuracy at r = 0 rises with every further step, {' < '.join(names)}, in {rising} of {len(at_zero)} models."


def kept_finding(counts: pd.DataFrame, profile: Profile) -> str:
    """How much of standard RS's ACR the best SRS row keeps under each rule, over all models."""
    certified = measures.certificates(counts, alpha=profile.alpha)
    acr = measures.certified_accuracy(certified, [0.0])["ACR"].reset_index()
    standard = acr[acr["method"] == profile.reference].set_index(RUN)["ACR"]
    srs = acr[acr["method"].isin(counts.loc[counts["needs_audit"], "method"].unique())]
    if srs.empty:
        return "This profile has no SRS rows."
    best = srs.groupby([*RUN, "rule"], observed=True)["ACR"].max().unstack("rule")
    kept = best.mean() / standard.reindex(best.index).mean()  # a mean of ratios would hang on the smallest radius
    told = ", ".join(f"{100 * kept[rule]:.0f} % under {show.RULE_LABELS[rule]}" for rule in map(Rule, best.columns))
    return f"Averaged over the models, {profile.reference} has an ACR of {standard.mean():.3f}; the best SRS method has {told} of it."


def curves(counts: pd.DataFrame, profile: Profile) -> list[Shown]:
    """Curves of certified accuracy of every model size and recipe: all methods, and one set of SRS votes under all rules."""
    certified = measures.certificates(counts, alpha=profile.alpha)
    holding = certified[certified["rule"].isin([Rule.COHEN, Rule.AUDIT])]
    shown = []
    for (model, recipe), own in holding.groupby(["model", "recipe"], observed=True):
        family = family_name(model, recipe)
        where = f"MDEQ-{family} on {profile.data.name}, {images_of(own)}, N = {profile.n}"
        for i, names in enumerate(plots.in_sixes(m for m in own["method"].cat.categories if (own["method"] == m).any())):
            some = own[own["method"].isin(names)]
            shown.append(show.figure(
                profile, f"curves_{family}" + f"_{i + 1}" * bool(i), plots.accuracy_curves(some, hue="method"),
                f"Certified accuracy against l2 radius, a panel per noise level ({where}). Solid: standard RS under the rule "
                "'cohen'; broken lines: SRS under the rule 'audit'.",
            ))  # fmt: skip
        rules = by_rule(certified[(certified["model"] == model) & (certified["recipe"] == recipe)], profile)
        if rules is not None:
            shown.append(show.figure(
                profile, f"curves_rules_{family}", plots.accuracy_curves(rules, hue="line"),
                f"What the certification rule makes of the same SRS votes ({where}). The curve 'released (unsound)' is "
                "what the authors' code computes; its certificates do not hold.",
            ))  # fmt: skip
    return shown


def by_rule(certified: pd.DataFrame, profile: Profile) -> pd.DataFrame | None:
    """The paper's best SRS method under every rule beside standard RS, with their names in the column `line`; None without SRS."""
    srs = best_of_the_paper(certified)
    if srs is None:
        return None
    some = certified[certified["method"].isin([profile.reference, srs])]
    labels = some["method"].astype(str).str.replace("-MDEQ", "") + ", " + some["rule"].astype(str).map(show.RULE_LABELS)
    some = some.assign(line=labels).sort_values(["method", "rule", "sigma", "idx"])
    return some.assign(line=measures.in_order(some["line"]))


def best_of_the_paper(counts: pd.DataFrame) -> str | None:
    """SRS-MDEQ-3A where it was drawn, else the last SRS method; None without any."""
    srs = list(dict.fromkeys(counts.loc[counts["needs_audit"], "method"]))
    return "SRS-MDEQ-3A" if "SRS-MDEQ-3A" in srs else srs[-1] if srs else None


# ------------------------------------------------------------------------------------------------ names and captions


def certified_runs(counts: pd.DataFrame, profile: Profile) -> list[Run]:
    """The runs of the profile that have counts."""
    there = set(counts[RUN].astype(object).itertuples(index=False, name=None))
    return [run for run in profile.runs if tuple(identity(run).values()) in there]


def of_run(frame: pd.DataFrame, run: Run) -> pd.DataFrame:
    """The rows of one run."""
    return frame[(frame[RUN].astype(object) == list(identity(run).values())).all(axis=1)]


def family_name(model: str, recipe: str) -> str:
    """A model size and its recipe as in names of files; the paper's recipe goes without saying."""
    return model if recipe == "paper" else f"{model}_{recipe}"


def name_of(kind: str, run: Run) -> str:
    """The stable name of a run's table; the paper's recipe goes without saying."""
    recipe = "" if run.train.recipe == "paper" else f"_{run.train.recipe}"
    return f"{kind}_{run.model.name}_s{run.sigma:.2f}{recipe}"


def images_of(counts: pd.DataFrame) -> str:
    """How many images were certified, per noise level where that differs."""
    sigmas: dict[int, list[str]] = {}
    for sigma, images in counts.groupby("sigma", observed=True)["idx"].nunique().items():
        sigmas.setdefault(images, []).append(f"{sigma:g}")
    if len(sigmas) == 1:
        return f"{next(iter(sigmas))} images"
    return " and ".join(f"{images} images at sigma {', '.join(which)}" for images, which in sigmas.items())


def source_note(run: Run) -> str:
    """What a caption must say of the images that a run was trained on."""
    return " (JPEG copies of the images)" if "JPEG" in shipped.card(run).get("data", "") else ""


def setting(run: Run) -> str:
    """The words in which a caption names a run."""
    p = run.profile
    return (
        f"MDEQ-{run.model.name}, recipe '{run.train.recipe}', {p.data.name}{source_note(run)}, sigma = {run.sigma:.2f}, "
        f"{p.images} test images, N = {p.n}, alpha = {p.alpha:g}"
    )


def _accuracy_caption(run: Run) -> str:
    return (
        f"Certified accuracy in percent of all images at l2 radius r ({setting(run)}). ACR is the average certified radius, "
        f"rounded down. {show.UNSOUND_NOTE}{_published_note(run)}"
    )


def _published_note(run: Run) -> str:
    known = published(run.profile.data.name)
    if not ((known.index.get_level_values("model") == run.model.name) & (known.index.get_level_values("sigma") == run.sigma)).any():
        return ""
    n, k, alpha = PUBLISHED_SETTINGS.values()
    cap = show.round_down(bounds.largest_radius(Rule.THEOREM31, n, k, run.sigma, alpha))
    images = "ImageNet" if run.profile.data.name == "imagenet" else "CIFAR-10"
    other = "" if run.profile.data.name in ("cifar10", "imagenet") else (
        f" They are of other data and larger models than these on {run.profile.data.name}: compare how rows relate to each "
        "other, not their values."
    )  # fmt: skip
    return (
        f" Rows '{PUBLISHED}' are the paper's own figures (500 {images} images, N = {n}, one A100).{other} At the paper's settings "
        f"Theorem 3.1 certifies no radius above {cap}: published SRS entries beyond it are out of the theorem's reach and within "
        "the released formula's."
    )


def _cost_caption(run: Run) -> str:
    reference = run.profile.reference
    return (
        f"What a certificate costs ({setting(run)}). 'disagreement' is the share of votes that differ from {reference}'s on the same "
        "noise; NFE are evaluations of f on one noisy copy, selection, warm-up and audit included ('NFE/vote': estimation only); "
        f"speed-ups are against {reference}."
    )


def _confidence_caption(run: Run) -> str:
    return (
        f"How sure the certified accuracy is ({setting(run)}), for the rules that hold. The interval (Clopper-Pearson, ends rounded "
        "outward) is over the draw of the images. The last statement bounds the true certified accuracy of the smoothed classifier "
        "on these very images, since each certificate may fail with probability alpha (Cohen et al. 2019, Bernstein's inequality)."
    )
