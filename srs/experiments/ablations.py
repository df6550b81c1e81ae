"""Notebook 32: what each choice of the method is worth, one varied at a time, from one long table of counts.

All is about MDEQ-SMALL at sigma 0.5 trained as in the paper, on the noise of the main tables. What stored votes tell is not
drawn: the first n of N are those that n votes would have been, and the full solve's tell what an audit of any size finds.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pandas as pd

from srs import sealed, settings, store
from srs.analysis import measures, plots, show
from srs.attacks.settings import Adversarial, hardened
from srs.deq import inference
from srs.experiments.certified_accuracy import setting
from srs.settings import Method, Profile, Run, Train
from srs.smoothing import bounds, certify, noise, votes
from srs.training import train

NAME = "ablations.csv"  # of the file of counts
KINDS = {"table": str, "value": str, "model": str, "recipe": str, "sigma": float, "method": str, "reference": str}
KINDS |= {"needs_audit": bool} | store.KINDS | {"K": np.int64}
SUFFIX = {"N": "naive", "A": "anderson", "B": "broyden"}  # of a method's name, as in the paper, and its solver
STARTS = {"zero": "MDEQ", "clean": "SRS-clean", "previous": "SRS-MDEQ", "pilot_mean": "SRS-pilot"}  # and the methods' names
STARTS |= {"corrected_pilot_mean": "SRS-corrected", "train_mean": "RS-mean"}
KS = (10, 25, 50, 100, 200, 400, 1_000, 2_000, 5_000, 10_000)
NS = (100, 200, 400, 1_000, 10_000, 100_000)  # as far as votes are stored; the last three are the paper's
ALPHAS = (0.0001, 0.001, 0.01, 0.1)
RECOUNTED = {"alpha": "alpha", "k": "K", "n": "N"}  # what a table varies: of all images, from the main tables' votes
VARIED = {"solver": "solver", "start": "start", "batch": "chains", "warmup": "warm-up steps"}  # on the first images
VARIED |= {"jacobian": "recipe", "smoothadv": "recipe"}
COST = ["disagreement %", "NFE/vote", "NFE/image"]
ABOVE = "images above RS's radius"
NOTHING = "none (unsound): cohen on SRS votes"
CAPTIONS = {  # what a table or figure says beyond what it varies
    "elimination": f"With and without correlation elimination. '{ABOVE}': above {{reference}}'s on the same noise",
    "k": "Audited votes K: the full solve's stored votes on the same noise tell what an audit of any size finds",
    "start": "Where a copy's solver starts. Votes from zero and the training mean need no audit",
    "warmup": "Anderson steps of the first batch of SRS; 0: as many as all others, so that even the class c_A may be another",
}


class Line(NamedTuple):
    """One line of a table: the first n votes of a method on a model, k of those for c_A audited."""

    table: str
    value: str  # of what is varied
    train: Train
    method: Method
    n: int
    k: int


def base(profile: Profile) -> Run | None:
    """The run that is ablated; None if the profile has it not, or not with the paper's methods for CIFAR-10."""
    if not {"SRS-MDEQ-1A", "SRS-MDEQ-3A"} <= {method.name for method in profile.methods}:
        return None
    runs = [run for run in profile.runs if (run.model.name, run.sigma) == ("SMALL", 0.5)]
    return next((run for run in runs if run.train.recipe == "paper" or profile.ablation_images == 0), None)


def lines(run: Run) -> list[Line]:
    """Every line of every table, in their order, but of those of the main tables' own counts."""
    profile, own, n, drawn = run.profile, run.train, run.profile.n, run.profile.ablation_images != 0
    reference, usual = profile.method(profile.reference), profile.method("SRS-MDEQ-3A").audit
    main = (reference, *(m for m in profile.methods if m.needs_audit))
    three = [m for m in (_variant(profile, f"SRS-MDEQ-3{letter}") for letter in "AN") if drawn or m in profile.methods]
    ks, ns = (sorted({most, *(size for size in sizes if size <= n)}) for most, sizes in ((usual, KS), (n, NS)))
    found = [Line("k", "", own, m, n, size) for m in main for size in ks]
    found += [Line("n", "", own, m, size, min(usual, size)) for m in (reference, *three) for size in ns]
    if drawn:
        found += [Line(table, value, own, m, n, usual) for table, value, m in varied(profile)]
        for table, other in further_recipes(run).items():
            found += [Line(table, train.recipe, train, m, n, usual) for train in (own, other) for m in profile.methods]
    return list(dict.fromkeys(line if line.method.needs_audit else line._replace(k=0) for line in found))


def images_of(table: str, profile: Profile) -> int:
    """How many images a table is about."""
    return min(profile.images, profile.ablation_images or profile.images) if table in VARIED else profile.images


def varied(profile: Profile) -> Iterator[tuple[str, str, Method]]:
    """By table, the values of what is varied and how votes are drawn with each; solvers at equal evaluations of f."""
    for name in ("MDEQ-5", "MDEQ-30", "SRS-MDEQ-3"):
        yield from (("solver", solver, _variant(profile, name + letter)) for letter, solver in SUFFIX.items())
    chains = [size for size in (10, 25, 50, 100, 400) if 2 * size <= profile.n]  # two batches or more: a chain has a link
    for k in (1, 3):
        for start, kind in STARTS.items():
            yield "start", start, _variant(profile, f"{kind}-{k}A", start=start, **({"warmup": 10} if "pilot" in start else {}))
        yield from (("batch", str(size), _variant(profile, f"SRS-MDEQ-{k}A-B{size}", batch=size)) for size in chains)
        others = (steps for steps in (0, 1, 5, 10, 30) if steps != k)
        yield from (("warmup", str(steps), _variant(profile, f"SRS-MDEQ-{k}A-W{steps}", warmup=steps)) for steps in others)


def _variant(profile: Profile, name: str, **changes: object) -> Method:
    """Standard RS or SRS with the name's steps and solver; the profile's own method where it votes alike: its are stored."""
    steps, letter = re.search(r"-(\d+)([NAB])", name).groups()
    parent = "SRS-MDEQ-3A" if name.startswith("SRS-MDEQ") else profile.reference
    method = replace(profile.method(parent), name=name, audit=0, solver=SUFFIX[letter], steps=int(steps), **changes)
    return next((m for m in profile.methods if replace(m, name=name, audit=0) == method), method)


def further_recipes(run: Run) -> dict[str, Train]:
    """By table: the run's recipe without the Jacobian penalty, and SmoothAdv, from the run's weights if it is to be short."""
    hard = hardened(run.train, "smoothadv", Adversarial())
    if run.profile.ablation_images is not None:
        short = dict(pretrain_steps=0, epochs=1, lr=run.train.lr / 2, adversarial=Adversarial(vectors=1))  # Salman's m = 1
        hard = replace(hard, init_from=run.train, **short)
    return {"jacobian": replace(run.train, recipe="nojacobian", jacobian_weight=0.0, jacobian_frequency=0.0), "smoothadv": hard}


def measure(
    profile: Profile, *, training: bool = True, device: str = "cpu", workers: int = 1, scheduler: str = "",
    progress: bool = True,
) -> None:
    """Draw the votes and train the models that are missing, and store all counts that the ablations show.

    Args:
        training: train the models of other recipes; if not, only those take part whose weights are there.
    """
    if (run := base(profile)) is None:
        return
    if store.read_run(run) is not None and not store.own(run, "votes").is_dir():
        told = f"the votes of {run.id} are not here, only their counts: none are drawn; `make` or `srs certify` draws them"
        return warnings.warn(told, stacklevel=2)
    draw = partial(certify.certify, device=device, workers=workers, scheduler=scheduler, progress=progress)
    every, found = lines(run), []
    models = {recipe: replace(run, train=recipe) for recipe in dict.fromkeys((run.train, *(line.train for line in every)))}
    for model in models.values() if training else (run,):
        train.train(model, device=device, progress=progress)
    draw(run)  # nothing, where the votes are here
    without = {line.table for line in every if not store.own(models[line.train], store.WEIGHTS).is_file()}
    every = [line for line in every if line.table not in without]
    for (recipe, images), own in groupby(every, lambda line: (line.train, images_of(line.table, profile))):
        found += _count(models[recipe], images, list(own), draw, device)
    store.save_frame(store.own(run, NAME), pd.concat(found))
    sealed.write_json(store.own(run, NAME).with_suffix(".json"), store.provenance(device=inference.device_name(device)))


def _count(run: Run, images: int, own: Sequence[Line], draw: Callable, device: str) -> Iterator[pd.DataFrame]:
    """The rows of lines of a model: the votes that are missing are drawn, then all are counted."""
    profile, reference = run.profile, run.profile.method(run.profile.reference)
    methods = tuple(dict.fromkeys((*profile.methods, *(line.method for line in own))))
    part = replace(run, profile=replace(profile, images=images, methods=methods, plan=()))
    draw(part, count=False)
    inputs, sampling = certify.read_inputs(part, device), profile.sampling
    read = cache(lambda method, idx: votes.read(certify.vote_file(part, method, inputs, idx), method, sampling))
    for table, value, _, method, n, k in own:
        drawn = ([read(m, idx) for m in (method, reference, method.auditor or reference)] for idx in part.profile.evaluated)
        found = [first_n(method, sampling, *three, n=n, k=k) for three in drawn]
        yield store.label(run, method, found).assign(table=table, value=value, K=k)


def first_n(
    method: Method, sampling: settings.Sampling, drawn: votes.ImageVotes, standard: votes.ImageVotes, auditor: votes.ImageVotes,
    *, n: int, k: int,
) -> store.ImageCounts:
    """The counts of the first n votes with K = k; `standard`: the reference's votes on that noise, `auditor`: what audits'."""
    stored = len(drawn.estimate)
    estimate, order = drawn.estimate[:n], noise.audit_order(sampling.seed, drawn.idx, n)
    c_a = bounds.top_class(drawn.select, sampling.classes)
    audited = order[estimate[order] == c_a][:k] if c_a != bounds.ABSTAIN else order[:0]
    longer = method.warmup - method.steps if method.start == "previous" and method.warmup else 0
    per_vote = (int(drawn.nfe[1]) - min(method.batch, stored) * longer) / stored  # what the stored ones cost on average
    spent = round(n * per_vote + min(method.batch, n) * longer)
    nfe = np.array([int(drawn.nfe[0]), spent, round(len(audited) * int(auditor.nfe[1]) / stored)])
    unknown = np.full(3, np.nan)  # the seconds that so many would have taken
    first = replace(drawn, estimate=estimate, standard=auditor.estimate[audited], seconds=unknown, nfe=nfe)
    others = (replace(v, estimate=v.estimate[:n]) for v in (standard, auditor))
    return certify.count_votes(first, replace(method, audit=k), sampling, *others)


def read(profile: Profile) -> dict[str, pd.DataFrame]:
    """The counts of every table that is stored, in its order, `main` those of the run itself."""
    run, found = base(profile), {}
    if run is not None and (main := store.read_run(run)) is not None:
        found["main"] = main[main["needs_audit"] | (main["method"] == profile.reference)].assign(value="")
    if run is not None and (path := store.find(run, NAME)):
        found |= dict(list(store.read_frame(path, KINDS, "table of recounts", by="").groupby("table", sort=False)))
    ordered = ("value", "recipe", "method")
    return {table: rows.assign(**{name: measures.in_order(rows[name]) for name in ordered}) for table, rows in found.items()}


def sweep(certified: pd.DataFrame, by: Sequence[str], profile: Profile, cost: Sequence[str] = ()) -> pd.DataFrame:
    """Certified accuracy, ACR and cost of each value of what is varied: a row per group."""
    table = measures.certified_accuracy(certified, profile.radii, by)
    return table.join(measures.cost(certified, by)[list(cost)]).reset_index()


def sweeps(counted: dict[str, pd.DataFrame], profile: Profile) -> dict[str, pd.DataFrame]:
    """The numbers of every table whose counts are stored, and the certificates of the figure of N."""
    found = {}
    for table, rows in counted.items():
        if table == "main":
            found["elimination"] = elimination(rows, profile)
            alphas = [measures.certificates(rows, alpha=alpha).assign(alpha=alpha) for alpha in ALPHAS]
            found["alpha"] = sweep(pd.concat(alphas), ["method", "rule", "alpha"], profile)
        elif table == "k":
            found["k"] = sweep(measures.certificates(rows, alpha=profile.alpha), ["method", "rule", "K"], profile, COST[2:])
        elif table == "n":
            found["curves"] = measures.holding(rows.assign(N=rows["n"]), alpha=profile.alpha)
            found["n"] = sweep(found["curves"], ["method", "rule", "N"], profile, COST[2:])
        else:
            what = VARIED[table]
            certified = measures.holding(rows.drop(columns="recipe").rename(columns={"value": what}), alpha=profile.alpha)
            swept = sweep(certified, [what, "method", "rule"], profile, COST)
            found[table] = swept if what == "recipe" else swept.sort_values("method", kind="stable")
    return found


def elimination(own: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Certified accuracy of the same SRS votes with correlation elimination (three rules) and without any."""
    by = ["method", "rule"]
    certified = measures.certificates(own, alpha=profile.alpha, rules=measures.RULES)
    certified = certified[certified["needs_audit"] | (certified["rule"] == bounds.Rule.COHEN)].copy()
    standard = certified[certified["method"] == profile.reference].set_index("idx")["radius"]
    certified[ABOVE] = certified["radius"] > certified["idx"].map(standard)
    certified["mean p_m %"] = (100 * measures.p_m(certified)).where(certified["needs_audit"])
    more = certified.groupby(by, observed=True).agg({ABOVE: "sum", "mean p_m %": "mean"})
    table = sweep(certified, by, profile).join(more, on=by)
    plain, srs = table["rule"] == bounds.Rule.COHEN, table["method"] != profile.reference
    table["rule"] = table["rule"].astype(str).map(show.RULE_LABELS).mask(plain, "not needed: cohen").mask(plain & srs, NOTHING)
    return table.rename(columns={"rule": "elimination"})


def caption(name: str, profile: Profile) -> str:
    """What a table or figure says below it."""
    part = replace(base(profile), profile=replace(profile, images=images_of(name, profile), plan=()))
    audited = {profile.method("SRS-MDEQ-3A").audit, *(m.audit for m in profile.methods if m.needs_audit and name not in VARIED)}
    where = f"{setting(part)}, K = {' or '.join(map(str, sorted(audited)))}"
    told = CAPTIONS.get(name) or f"What is varied: {(RECOUNTED | VARIED)[name]}"
    text = f"{told} ({where}, but for what is varied).".format(reference=profile.reference)
    if name in VARIED:
        few = " The first images: if sorted by class, of few classes." * (part.profile.images < profile.images)
        return f"{text} SRS stands under 'audit'; disagreement is with {profile.reference} on the same noise.{few}"
    return text if name == "n" else f"{text} {show.UNSOUND_NOTE}"


def shown(found: dict[str, pd.DataFrame], profile: Profile) -> list[show.Shown]:
    """Every table of `sweeps`, and figures: ACR against K and alpha, and certified accuracy against radius for every N."""
    made = [show.table(profile, f"ablation_{n}", own, caption(n, profile)) for n, own in found.items() if n != "curves"]
    drawn = {}
    for name, label in (("k", "audited votes K"), ("alpha", r"failure probability $\alpha$")):
        if name in found:
            own = found[name][(found[name]["rule"] != bounds.Rule.COHEN) | (name == "alpha")]  # standard RS has no K
            drawn[name] = plots.grid(
                own, panel="rule", hue="method", x=label, y="ACR ([0, 1] pixels)", title=show.RULE_LABELS.get,
                draw=lambda ax, of, style, _: ax.plot(of[RECOUNTED[name]], of["ACR"], marker="o", markersize=2.5, **style),
            )  # fmt: skip
            drawn[name].axes[0].set(xscale="log", ylim=(0, None))  # once all are drawn: it ends the search for limits
    if "curves" in found:
        rows = found["curves"].sort_values("N", kind="stable")
        rows = rows.assign(line=measures.in_order(rows["N"].map("N = {:,}".format)))
        drawn["n"] = plots.accuracy_curves(rows, hue="line", panel="method", title=str)
    return made + [show.figure(profile, f"ablation_{n}_figure", figure, caption(n, profile)) for n, figure in drawn.items()]


def finding(found: dict[str, pd.DataFrame], name: str, profile: Profile) -> str:
    """What the numbers of one table of `sweeps` say: the ends of what is varied, by method."""
    if name not in found:
        return "Nothing is stored for this."
    own, what = found[name], (RECOUNTED | VARIED).get(name)
    if name == "elimination":
        above = own[own["method"] != profile.reference].groupby("elimination", sort=False)[ABOVE].sum()
        return f"Over all SRS methods, {ABOVE}: {', '.join(f'{count} ({rule})' for rule, count in above.items())}."
    if what in ("recipe", *RECOUNTED.values()):
        value, number, sort = "ACR", show.round_down, what if name in RECOUNTED else "ACR"
        own = measures.under_its_rule(own[own["method"].isin(["SRS-MDEQ-3A"] + [profile.reference] * (name != "k"))])
        about = "ACR of " + own["method"].astype(str)
    else:
        value, number, sort = COST[0], partial(show.round_half_up, digits=2), COST[0]
        about = "votes that differ (%), k = " + own["method"].astype(str).str.extract(r"-(\d+)[NAB]")[0]
    told = []
    for group, rows in own.groupby(about, sort=False):
        ends = rows.sort_values(sort, kind="stable").iloc[[0, -1]]
        told.append(f"{group}: " + " to ".join(f"{number(at)} ({what} {of})" for at, of in zip(ends[value], ends[what])))
    return f"{'; '.join(told)}."
