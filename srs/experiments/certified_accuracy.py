"""Notebook 30: certified accuracy of every run under every rule, beside the paper's rows; how sure it is; what it costs."""

import pandas as pd

from srs.analysis import measures, plots, show
from srs.analysis.measures import METHOD, ROW, RUN
from srs.analysis.show import Shown
from srs.settings import Profile, Run
from srs.smoothing import bounds
from srs.smoothing.bounds import Rule
from srs import store

PUBLISHED = "as published"
PUBLISHED_SETTINGS = {"n": 10_000, "k": 400, "alpha": 0.001}  # of the paper's tables: N, K, alpha


def quality(profile: Profile) -> Shown:
    """What each model card says of accuracy, convergence and cost; empty cells where there is no card or field."""
    rows, full, nan = [], profile.method(profile.reference).steps, float("nan")
    for run in profile.runs:
        card = store.card(run)
        residual, agreement = card.get("residual", {}), card.get("agreement", {})
        rows.append(identity(run) | {
            "parameters": card.get("parameters"),
            **{f"{kind} accuracy %": 100 * card.get(f"{kind}_accuracy", nan) for kind in ("clean", "noisy")},
            "residual after 1 step": residual.get("1"), f"residual after {full} steps": residual.get(str(full)),
            **{f"votes as after {full} steps, {told} %": 100 * agreement.get(told[0], nan) for told in ("1 step", "5 steps")},
            "training steps": card.get("steps"), "training seconds": card.get("seconds"),
        })  # fmt: skip
    return show.table(profile, "model_quality", pd.DataFrame(rows), (
        f"The trained models of profile '{profile.name}': accuracy on test images, mean relative residual on noisy ones, and "
        "how many votes of a solver stopped early are those of the full solve. Empty cells: no model card was found."
    ))  # fmt: skip


def published(data: str) -> pd.DataFrame:
    """The paper's own rows, CIFAR-10's beside any other small images: a row per model, sigma, method."""
    rows = pd.read_csv(store.published("certified_accuracy"))
    rows = rows[rows["data"] == ("imagenet" if data.startswith("imagenet") else "cifar10")]
    wide = rows.pivot(index=["model", "sigma", "method"], columns="measure", values="value")
    return wide if data != "imagenet-sample" else wide.iloc[:0]


def accuracy(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Certified accuracy at the profile's radii and ACR of every run, method and rule, the paper's row below each method."""
    ours = measures.certified_accuracy(measures.certificates(counts, alpha=profile.alpha), profile.radii).reset_index()
    known = published(profile.data.name).reindex(columns=ours.columns.drop(ROW))
    known = known.map(lambda v: "" if pd.isna(v) else f"{v:g}")  # text: a value that the paper prints whole stays so
    theirs = ours[METHOD].drop_duplicates().merge(known.reset_index(), on=["model", "sigma", "method"]).assign(rule=PUBLISHED)
    rules = pd.CategoricalDtype([*map(str, measures.RULES), PUBLISHED], ordered=True)
    both = pd.concat([ours.astype(object), theirs.astype(object)])
    both = both.astype({name: ours[name].dtype for name in METHOD} | {"rule": rules})
    return both.sort_values(ROW, kind="stable").reset_index(drop=True)


def confidence(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """How sure the main table is, sound rules only: certified accuracy, its interval, and what holds for g itself."""
    certified = measures.certificates(counts, alpha=profile.alpha)
    certified = certified[certified["rule"] != Rule.RELEASED]
    sure = measures.confidence(certified, profile.radii, profile.alpha)
    measured = measures.certified_accuracy(certified, profile.radii)
    statements = {
        "measured": lambda r, row: measured.loc[row.name, f"r={r:.2f}"],
        f"{100 * measures.CONFIDENCE:g} % interval": lambda r, row: show.outward(row[r, "low"], row[r, "high"]),
        f"holds with {100 * (1 - measures.RHO):g} %": lambda r, row: f">= {show.outward(row[r, 'sure'], 1).split('-')[0]}",
    }
    return pd.DataFrame([
        dict(zip(ROW, key)) | {"statement": name} | {f"r={r:.2f}": cell(r, row) for r in profile.radii}
        for key, row in sure.iterrows() for name, cell in statements.items()
    ])  # fmt: skip


def cost(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """What every method of every run spends, and how many times less than the reference."""
    spent = measures.speed_up(measures.cost(counts), profile.reference)
    if profile.adaptive:
        spent.insert(0, "votes/image", counts.groupby(METHOD, observed=True)["n"].mean())
    return spent.reset_index()


def tables(counts: pd.DataFrame, profile: Profile) -> list[Shown]:
    """Three tables for each run: certified accuracy, what it costs, how sure it is."""
    n, k, alpha = PUBLISHED_SETTINGS.values()
    reach = show.round_down(bounds.largest_radius(Rule.THEOREM31, n, k, 1.0, alpha))
    parts = {
        "certified_accuracy": (accuracy(counts, profile), (
            f"Certified accuracy in percent at l2 radius r. ACR is the average certified radius. {show.UNSOUND_NOTE} Rows "
            f"'{PUBLISHED}' are the paper's own ({'ImageNet' if 'imagenet' in profile.data.name else 'CIFAR-10'}, N = {n}, "
            f"K = {k}), with which Theorem 3.1 certifies no radius above {reach} sigma."
        )),
        "cost": (cost(counts, profile), (
            f"What a certificate costs. 'disagreement' and speed-ups: beside {profile.reference} on the same noise. NFE are "
            "evaluations of f on one noisy copy; 'NFE/image' holds selection, warm-up and audit, 'NFE/vote' the estimation."
        )),
        "confidence": (confidence(counts, profile), (
            "How sure the certified accuracy is. The Clopper-Pearson interval is over the images' draw. The last statement is "
            "about these very images: a certificate may fail with probability alpha (Cohen et al. 2019)."
        )),
    }  # fmt: skip
    return [
        show.table(profile, name_of(kind, run), of_run(frame, run).drop(columns=RUN), f"{caption} {setting(run)}.")
        for run in certified_runs(counts, profile) for kind, (frame, caption) in parts.items()
    ]  # fmt: skip


def kept_finding(counts: pd.DataFrame, profile: Profile) -> str:
    """How much of standard RS's ACR the best SRS row keeps under each rule, over all models."""
    if not counts["needs_audit"].any():
        return "This profile has no SRS rows."
    acr = measures.certified_accuracy(measures.certificates(counts, alpha=profile.alpha), [0.0])["ACR"].reset_index()
    standard = acr[acr["method"] == profile.reference].set_index(RUN)["ACR"]
    srs = acr[acr["method"].isin(counts.loc[counts["needs_audit"], "method"])]
    best = srs.groupby([*RUN, "rule"], observed=True)["ACR"].max().unstack("rule")
    kept = best.mean() / standard.reindex(best.index).mean()  # a mean of ratios would hang on the smallest radius
    told = ", ".join(f"{100 * kept[rule]:.0f} % under {show.RULE_LABELS[rule]}" for rule in map(Rule, best.columns))
    return f"Averaged over the models, {profile.reference} has an ACR of {standard.mean():.3f}; the best SRS has {told} of it."


def curves(counts: pd.DataFrame, profile: Profile) -> list[Shown]:
    """Curves of certified accuracy of every model size and recipe: all methods, and one set of SRS votes under all rules."""
    certified, shown = measures.certificates(counts, alpha=profile.alpha), []
    for (model, recipe), own in certified.groupby(["model", "recipe"], observed=True):
        family, srs = family_name(model, recipe), best_of_the_paper(own)
        where = f"MDEQ-{family} on {profile.data.name}, {images_of(own)}. Grey: 95 % interval of a black line of few images."
        for i, names in enumerate(plots.in_sixes(m for m in own["method"].cat.categories if (own["method"] == m).any())):
            drawn = plots.accuracy_curves(measures.under_its_rule(own[own["method"].isin(names)]), hue="method")
            shown.append(show.figure(profile, f"curves_{family}" + f"_{i + 1}" * bool(i), drawn, (
                f"Certified accuracy against l2 radius. Solid: standard RS under 'cohen'; broken: SRS under 'audit'. {where}"
            )))  # fmt: skip
        if srs:
            some = own[own["method"].isin([profile.reference, srs])].sort_values(["method", "rule", "sigma", "idx"])
            line = some["method"].astype(str).str.replace("-MDEQ", "") + ", " + some["rule"].map(show.RULE_LABELS).astype(str)
            drawn = plots.accuracy_curves(some.assign(line=measures.in_order(line)), hue="line")
            told = f"What the certification rule makes of the same SRS votes. {show.UNSOUND_NOTE} {where}"
            shown.append(show.figure(profile, f"curves_rules_{family}", drawn, told))
    return shown


def best_of_the_paper(counts: pd.DataFrame) -> str | None:
    """SRS-MDEQ-3A where it was drawn, else the last SRS method; None without any."""
    srs = list(dict.fromkeys(counts.loc[counts["needs_audit"], "method"]))
    return "SRS-MDEQ-3A" if "SRS-MDEQ-3A" in srs else srs[-1] if srs else None


def identity(run: Run) -> dict[str, object]:
    """The cells that say which run a line is about."""
    return {"model": run.model.name, "recipe": run.train.recipe, "sigma": run.sigma}


def of_run(frame: pd.DataFrame, run: Run) -> pd.DataFrame:
    """The rows of one run."""
    return frame[(frame[RUN].astype(object) == list(identity(run).values())).all(axis=1)]


def certified_runs(counts: pd.DataFrame, profile: Profile) -> list[Run]:
    """The runs of the profile that have counts."""
    return [run for run in profile.runs if len(of_run(counts, run))]


def family_name(model: str, recipe: str) -> str:
    """A model size and its recipe as in names of files; the paper's recipe goes without saying."""
    return model if recipe == "paper" else f"{model}_{recipe}"


def name_of(kind: str, run: Run) -> str:
    """The stable name of a run's table."""
    return family_name(f"{kind}_{run.model.name}_s{run.sigma:.2f}", run.train.recipe)


def images_of(counts: pd.DataFrame) -> str:
    """How many images were certified at a noise level."""
    images = counts.groupby("sigma", observed=True)["idx"].nunique()
    return f"{images.min()} to {images.max()} images" if images.nunique() > 1 else f"{images.min()} images"


def source_note(run: Run) -> str:
    """What a caption must say of the images that a run was trained on."""
    return " (JPEG copies of the images)" if "JPEG" in store.card(run).get("data", "") else ""


def model_of(run: Run, images: int) -> str:
    """The words in which a caption names a run's model and how many test images it was asked of."""
    named = f"MDEQ-{run.model.name}, recipe '{run.train.recipe}', {run.profile.data.name}{source_note(run)}"
    return f"{named}, sigma = {run.sigma:.2f}, {images} test images"


def setting(run: Run) -> str:
    """The words in which a caption names a run."""
    p = run.profile
    return f"{model_of(run, p.images)}, {'at most ' * p.adaptive}N = {p.n} votes, alpha = {p.alpha:g}"
