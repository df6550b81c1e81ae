"""Notebook 30: certified accuracy of every run under every rule, beside the paper's rows, and what it costs."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import norm

from srs import profiles, store
from srs.analysis import measures, plots, show
from srs.analysis.measures import METHOD, ROW, RUN
from srs.settings import Profile, Run
from srs.smoothing import bounds

PUBLISHED = "as published"
PUBLISHED_SETTINGS = {"n": 10_000, "k": 400, "alpha": 0.001}  # of the paper's tables: N, K, alpha


def quality(profile: Profile) -> list[show.Shown]:
    """What each model card says of accuracy, convergence and cost; empty cells where there is none. And `progress`."""
    full = profile.method(profile.reference).steps
    columns = {  # by field of the card
        "parameters": "parameters", "clean_accuracy": "clean accuracy %", "noisy_accuracy": "noisy accuracy %",
        "validation.noisy_accuracy": "noisy accuracy, validation images %",
        "residual.1": "residual after 1 step", f"residual.{full}": f"residual after {full} steps",
        "agreement.1": f"votes as after {full} steps, 1 step %", "agreement.5": f"votes as after {full} steps, 5 steps %",
    }  # fmt: skip
    cards = pd.json_normalize([store.card(run) | identity(run) for run in profile.runs])
    frame = cards.reindex(columns=[*RUN, *columns]).rename(columns=columns)
    frame.update(100 * frame.filter(like="%"))
    return [show.table(profile, "model_quality", frame, (
        f"The trained models of profile '{profile.name}': accuracy on test images, mean relative residual on noisy ones, and "
        "how many votes of a solver stopped early are those of the full solve. Empty cells: no model card was found."
    )), *progress(profile)]  # fmt: skip


def progress(profile: Profile) -> list[show.Shown]:
    """Noisy accuracy after each training at a run's noise level that it goes on from, by epochs: whether going on pays."""
    rows, chains = [], ([step for step in trained_by(run) if step.sigma == run.sigma] for run in reversed(profile.runs))
    for steps in {steps[-1].sigma: steps for steps in sorted(chains, key=len)}.values():  # the longest, of several the first
        for step, epochs in zip(steps, np.cumsum([step.train.epochs for step in steps])):
            card = store.card(step)
            for images, told in (("test", card), ("validation", card.get("validation", {}))):
                share, count = told.get("noisy_accuracy", np.nan), told.get("accuracy_images", np.nan)
                error = 100 * np.sqrt(share * (1 - share) / count)
                rows.append(identity(step) | {"epochs": epochs, "images": images, "accuracy": 100 * share, "error": error})
    frame = pd.DataFrame(rows)
    if (frame.groupby("sigma")["recipe"].nunique() < 2).all():
        return []
    drawn = plots.grid(
        frame, panel="sigma", hue="images", shared="", title=plots.sigma_title,
        x="epochs at this noise level", y="accuracy on noisy images (%)",
        draw=lambda ax, own, style, _: ax.errorbar(*(own[c] for c in ("epochs", "accuracy", "error")), capsize=2, **style),
    )  # fmt: skip
    for ax in drawn.axes:
        ax.xaxis.get_major_locator().set_params(integer=True)
    caption = "Accuracy on noisy images as one training goes on from another, per level the most often; bars: a standard error."
    return [show.figure(profile, "accuracy_by_epochs", drawn, caption)]


def trained_by(run: Run) -> list[Run]:
    """The trainings of a run's weights, one from another's, this run's last."""
    return [*(trained_by(run.parent) if run.parent else []), run]


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
    both = pd.concat([ours, theirs.astype({name: ours[name].dtype for name in METHOD})])
    return both.sort_values(METHOD, kind="stable", ignore_index=True)


def cost(counts: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """What every method of every run spends, and how many times less than the reference."""
    spent = measures.cost(counts)
    for unit in ("NFE", "seconds"):
        standard = spent[f"{unit}/image"].unstack("method").reindex(columns=[profile.reference])[profile.reference]
        full = standard.reindex(spent.index.droplevel("method")).to_numpy()  # nan where it was not drawn
        spent[f"speed-up ({unit})"] = full / spent[f"{unit}/image"].replace(0, np.nan)
    if profile.adaptive:
        spent.insert(0, "votes/image", counts.groupby(METHOD, observed=True)["n"].mean())
    return spent.reset_index()


def tables(counts: pd.DataFrame, profile: Profile) -> list[show.Shown]:
    """Two tables for each run: certified accuracy, and what it costs."""
    held, spent, shown = accuracy(counts, profile), cost(counts, profile), []
    theirs = "{}, N = {n}, K = {k}".format("ImageNet" if "imagenet" in profile.data.name else "CIFAR-10", **PUBLISHED_SETTINGS)
    for run in certified_runs(counts, profile):
        own, told = of_run(held, run).drop(columns=RUN), f"{setting(run)}.{reach_finding(run)}"
        note = f" Rows '{PUBLISHED}' are the paper's own ({theirs})." * (PUBLISHED in set(own["rule"]))
        caption = f"Certified accuracy in percent at l2 radius r. ACR is the average certified radius.{note} {told}"
        shown.append(show.table(profile, name_of("certified_accuracy", run), own, caption))
        shown.append(show.table(profile, name_of("cost", run), of_run(spent, run).drop(columns=RUN), (
            f"What a certificate costs. 'disagreement' and speed-ups: beside {reference_of(profile)} on the same noise"
            f"{' (disagreement: where that drew as many votes)' * profile.adaptive}. 'NFE/image': evaluations of f on a copy"
            f", the audit's, too; 'NFE/vote': those of estimation. Empty: not measured. {setting(run)}.{adaptive_finding(run)}"
        )))  # fmt: skip
    return shown


def reach_finding(run: Run) -> str:
    """What the rules make of audited votes, and how far they can reach at all at a run's N and K; nothing without any."""
    p, told = run.profile, []
    for k in sorted({method.audit for method in p.methods if method.needs_audit}):
        audited, theorem = (bounds.largest_radius(rule, p.n, k, run.sigma, p.alpha) for rule in ("audit", "theorem31"))
        told.append(f"with K = {k} 'audit' certifies no radius above {audited:.3f}, Theorem 3.1 none above {theorem:.3f}")
    return f" {show.UNSOUND_NOTE} At this N {'; '.join(told)}." if told else ""


def reference_of(profile: Profile) -> str:
    """The reference method, in words that say whether it stops early."""
    full = profile.method(profile.reference)
    return full.name if full.tol else f"{full.name}, which never stops early,"


def adaptive_finding(run: Run) -> str:
    """In how many decisions, certified rightly at r or not, a run's adaptive votes differ from all N in another profile."""
    told, radii = "", list(run.profile.radii)
    fixed_n = (own for p in profiles.PROFILES.values() if run.profile.adaptive and not p.adaptive for own in p.runs)
    for fixed in (own for own in fixed_n if replace(own, profile=run.profile) == run):
        both = [store.read_run(run), store.read_run(fixed)]
        if not any(counted is None for counted in both):
            certified = (measures.holding(counted, alpha=run.profile.alpha) for counted in both)
            ours, theirs = (measures.held(rows, radii, ["method", "idx"])[radii] for rows in certified)
            shared = ours.index.intersection(theirs.index)
            differ = (ours.loc[shared] != theirs.loc[shared]).sum(axis=1).groupby("method", observed=True).agg(["sum", "size"])
            counts = (f"{own['sum']} of {len(radii) * own['size']} ({method})" for method, own in differ.iterrows())
            told += f" Decisions that differ from those of {fixed.profile.n:,} votes: {', '.join(counts)}."
    return told


def curves(counts: pd.DataFrame, profile: Profile) -> list[show.Shown]:
    """Curves of certified accuracy of every model size and recipe: all methods, and one set of SRS votes under all rules."""
    certified, shown = measures.certificates(counts, alpha=profile.alpha), []
    for (model, recipe), own in certified.groupby(["model", "recipe"], observed=True):
        family, srs = family_name(model, recipe), best_of_the_paper(own)
        counted = own.groupby("sigma", observed=True)["idx"].nunique()
        where = f"MDEQ-{family} on {profile.data.name}, {' to '.join(map(str, sorted({counted.min(), counted.max()})))} images."
        where += " Votes stop once the table's radii are decided: curves fall past these; ACR is too low." * profile.adaptive
        grey = " Grey: 95 % interval of the black line." * bool(counted.min() < plots.FEW)
        names = own["method"].cat.remove_unused_categories().cat.categories
        for i in range(0, len(names), 6):  # a panel can show so many lines
            some = own[own["method"].isin(names[i : i + 6])]
            drawn = plots.accuracy_curves(measures.under_its_rule(some), hue="method")
            looks = " Solid: standard RS under 'cohen'; broken: SRS under 'audit'." * bool(some["needs_audit"].any())
            told = f"Certified accuracy against l2 radius.{looks} {where}{grey * (i == 0)}"
            shown.append(show.figure(profile, f"curves_{family}" + f"_{i // 6 + 1}" * bool(i), drawn, told))
        if srs:
            some = own[own["method"].isin([profile.reference, srs])].sort_values(["method", "rule", "sigma", "idx"])
            line = some["method"].astype(str).str.replace("-MDEQ", "") + ", " + some["rule"].map(show.RULE_LABELS).astype(str)
            drawn = plots.accuracy_curves(some.assign(line=measures.in_order(line)), hue="line")
            told = f"What the certification rule makes of the same SRS votes. {show.UNSOUND_NOTE} {where}{grey}"
            shown.append(show.figure(profile, f"curves_rules_{family}", drawn, told))
    return shown


def noise_finding(counts: pd.DataFrame, profile: Profile) -> str:
    """How near images of other classes are, how much noise leads past the middle, and what standard RS then certifies."""
    import torch

    from srs import data

    images = data.load(profile.data, "test")
    step = -(-len(images.labels) // 500)  # at most 500 images, evenly spread
    x, labels = images.pixels[::step].flatten(1), images.labels[::step]
    near = torch.cdist(x, x).where(labels[:, None] != labels, torch.inf).amin(dim=1).median().item()
    certified = measures.holding(counts[counts["method"] == profile.reference], alpha=profile.alpha)
    best = measures.certified_accuracy(certified, [0.0], RUN)["r=0.00"].groupby("sigma", observed=True).max()
    told = [f"{100 * norm.sf(near / 2 / float(sigma)):.0f} % at sigma {sigma} ({held:.0f} %)" for sigma, held in best.items()]
    return (
        f"The median of {len(x)} test images lies {near:.2f} from the nearest of them of another class. Share of noise that "
        "leads past the middle between the two (share of images that "
        f"{profile.reference} certifies on the best model): {', '.join(told)}."
    )


def best_of_the_paper(counts: pd.DataFrame) -> str | None:
    """SRS-MDEQ-3A where it was drawn, else the last SRS method; None without any."""
    srs = list(dict.fromkeys(counts.loc[counts["needs_audit"], "method"]))
    return "SRS-MDEQ-3A" if "SRS-MDEQ-3A" in srs else srs[-1] if srs else None


def main_certificates(runs: Sequence[Run]) -> pd.DataFrame:
    """Certificates of each run's reference and longest SRS method under the rules that hold; empty without counts.

    `run` is the run's place, `network` names a method on a model, `data` the images.
    """
    found = []
    for i, run in enumerate(runs):
        rows, srs = store.read_run(run), sorted((m for m in run.profile.methods if m.needs_audit), key=lambda m: m.steps)
        if rows is not None:
            rows = rows[rows["method"].isin([run.profile.reference, *(m.name for m in srs[-1:])])]
            network = rows["method"] + f" {run.model.name}" + f", {run.train.recipe}" * (run.train.recipe != "paper")
            images = f"{store.card(run).get('data', run.profile.data.name)}, {rows['idx'].nunique()} images"
            found.append(measures.holding(rows.assign(run=i, network=network, data=images), alpha=run.profile.alpha))
    if not found:
        return pd.DataFrame()
    every = pd.concat(found, ignore_index=True)
    return every.assign(network=measures.in_order(every["network"]))


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


def model_of(run: Run) -> str:
    """The words in which a caption names a run's model, and what it must say of the images that it was trained on."""
    images = f"{run.profile.data.name}{' (JPEG copies of the images)' * ('JPEG' in store.card(run).get('data', ''))}"
    epochs = sum(step.train.epochs for step in trained_by(run))
    return f"MDEQ-{run.model.name}, recipe '{run.train.recipe}' ({epochs} epochs), {images}, sigma = {run.sigma:.2f}"


def setting(run: Run) -> str:
    """The words in which a caption names a run."""
    p = run.profile
    return f"{model_of(run)}, {p.images} test images, {'at most ' * p.adaptive}N = {p.n} votes, alpha = {p.alpha:g}"
