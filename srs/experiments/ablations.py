"""Notebook 32: what each choice of the method is worth, one varied at a time, from one long table of counts.

All is about one run, MDEQ-SMALL at sigma 0.5 trained as in the paper, on the noise of the main tables. What a stored vote can
tell is not drawn again: the first n of N stored votes are those that n votes would have been, and the full solve's stored votes
on the same noise tell what an audit of any size finds.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from srs import sealed, settings, store
from srs.analysis import measures, plots, show
from srs.analysis.show import Shown
from srs.attacks.settings import Adversarial, smoothadv
from srs.deq import inference
from srs.experiments.certified_accuracy import setting
from srs.settings import Method, Profile, Run, Train
from srs.smoothing import bounds, certify, noise, votes
from srs.smoothing.bounds import Rule
from srs.training import train

NAME = "ablations.csv"  # of the file of counts
KEY = ["recipe", "method", "n", "K"]
KINDS = {"model": str, "recipe": str, "sigma": float, "method": str, "reference": str, "needs_audit": bool}
KINDS |= store.KINDS | {"K": np.int64}
SUFFIX = {"naive": "N", "anderson": "A", "broyden": "B"}  # of a method's name, as in the paper
STARTS = {  # and the methods' names
    "zero": "MDEQ", "clean": "SRS-clean", "previous": "SRS-MDEQ", "pilot_mean": "SRS-pilot",
    "corrected_pilot_mean": "SRS-corrected", "train_mean": "RS-mean",
}  # fmt: skip
KS = (10, 25, 50, 100, 200, 400, 1_000, 2_000, 5_000, 10_000)
NS = (100, 200, 400, 1_000, 10_000, 100_000)  # as far as votes are stored; the last three are the paper's
ALPHAS = (0.0001, 0.001, 0.01, 0.1)
SWEPT = {"n": "N", "k": "K", "alpha": "alpha"}  # by table: what it varies
VARIED = {"solver": "solver", "start": "start", "batch": "chains", "warmup": "warm-up steps"}
VARIED |= {"jacobian": "recipe", "smoothadv": "recipe"}
COST = ["disagreement %", "NFE/vote", "NFE/image"]
ABOVE = "images above RS's radius"
NOTHING = "none (unsound): cohen on SRS votes"

# ------------------------------------------------------------------------------------------------ what is varied


class Line(NamedTuple):
    """One line of a table: the first n votes of a method on a model, k of those for c_A audited, on the first images."""

    table: str
    value: str  # of what is varied
    train: Train
    method: Method
    n: int
    k: int
    images: int


def base(profile: Profile) -> Run | None:
    """The run that is ablated; None if the profile has it not, or not with the paper's methods for CIFAR-10."""
    if not {"SRS-MDEQ-1A", "SRS-MDEQ-3A"} <= {method.name for method in profile.methods}:
        return None
    runs = [run for run in profile.runs if (run.model.name, run.sigma) == ("SMALL", 0.5)]
    return next((run for run in runs if run.train.recipe == "paper" or profile.ablation_images == 0), None)


def lines(run: Run) -> list[Line]:
    """Every line of every table, in their order; "main" stands for the tables of the rules and of alpha."""
    profile, own, n, k = run.profile, run.train, run.profile.n, usual_k(run.profile)
    drawn = profile.ablation_images != 0
    main = (profile.method(profile.reference), *(m for m in profile.methods if m.needs_audit))
    three = [_variant(profile, f"SRS-MDEQ-3{SUFFIX[name]}", srs=True, solver=name) for name in ("anderson", "naive")]
    three = three if drawn else [m for m in three if m in profile.methods]
    ks, ns = (sorted({usual, *(size for size in sizes if size <= n)}) for usual, sizes in ((k, KS), (n, NS)))
    found = [("main", "", own, m, n, m.audit) for m in main]
    found += [("k", "", own, m, n, size) for m in main for size in ks]
    found += [("n", "", own, m, size, min(k, size)) for m in (main[0], *three) for size in ns]
    everywhere = len(found)
    found += [(table, value, own, m, n, k) for table, methods in varied(profile).items() for value, m in methods if drawn]
    for table, recipe in further_recipes(run).items() if drawn else ():
        found += [(table, train.recipe, train, m, n, k) for train in (own, recipe) for m in profile.methods]
    few = min(profile.images, profile.ablation_images or profile.images)
    made = [Line(*line, profile.images if i < everywhere else few) for i, line in enumerate(found)]
    return list(dict.fromkeys(line if line.method.needs_audit else line._replace(k=0) for line in made))


def usual_k(profile: Profile) -> int:
    """K of the profile's SRS methods."""
    return profile.method("SRS-MDEQ-3A").audit


def varied(profile: Profile) -> dict[str, list[tuple[str, Method]]]:
    """By table, the values of what is varied and how votes are drawn with each; solvers at equal evaluations of f.

    Nothing is audited of votes that are not the main tables' own: the full solve's stored votes tell what an audit finds.
    """
    found = {"solver": [], "start": [], "batch": [], "warmup": []}
    chains = [size for size in (10, 25, 50, 100, 400) if 2 * size <= profile.n]  # two batches or more: a chain has a link
    for k, kind in ((5, "MDEQ"), (30, "MDEQ"), (3, "SRS-MDEQ")):
        for name, letter in SUFFIX.items():
            found["solver"].append((name, _variant(profile, f"{kind}-{k}{letter}", srs=kind != "MDEQ", solver=name, steps=k)))
    for k in (1, 3):
        for start, kind in STARTS.items():
            pilot = {"warmup": 10} if start in ("pilot_mean", "corrected_pilot_mean") else {}
            method = _variant(profile, f"{kind}-{k}A", srs=start == "previous", start=start, steps=k, **pilot)
            found["start"].append((start, method))
        warm = [steps for steps in (0, 1, 5, 10, 30) if steps != k]
        for table, letter, values in (("batch", "B", chains), ("warmup", "W", warm)):
            for value in values:
                method = _variant(profile, f"SRS-MDEQ-{k}A-{letter}{value}", srs=True, steps=k, **{table: value})
                found[table].append((str(value), method))
    return found


def _variant(profile: Profile, name: str, *, srs: bool, **changes: object) -> Method:
    """Standard RS or SRS with changed fields; the profile's own method where it votes in the same way: its votes are stored."""
    method = replace(profile.method("SRS-MDEQ-3A" if srs else profile.reference), name=name, audit=0, **changes)
    return next((m for m in profile.methods if replace(m, name=name, audit=0) == method), method)


def further_recipes(run: Run) -> dict[str, Train]:
    """By table: the run's recipe without the Jacobian penalty, and SmoothAdv, from the run's weights if it is to be short."""
    without, hard = replace(run.train, recipe="nojacobian", jacobian_weight=0.0, jacobian_frequency=0.0), smoothadv(run.train)
    if run.profile.ablation_images is not None:
        hard = replace(hard, init_from=run.train, pretrain_steps=0, epochs=1, lr=run.train.lr / 2)
    if run.profile.ablation_images == 1:  # to see that it runs
        hard = replace(hard, adversarial=Adversarial(steps=1, vectors=1))
    return {"jacobian": without, "smoothadv": hard}


# ------------------------------------------------------------------------------------------------ measured


def measure(
    profile: Profile, *, training: bool = True, device: str = "cpu", workers: int = 1, scheduler: str = "",
    progress: bool = True,
) -> None:
    """Draw what votes are missing, train what models are missing, and store all counts that the ablations show.

    Nothing is done for a profile without the run that is ablated nor, with a warning, where its counts lie without votes.

    Args:
        profile: whose run of model SMALL at sigma 0.5, recipe `paper`, is ablated.
        training: train the models of other recipes; if not, only those take part whose weights are there.
        device: a torch device.
        workers: processes that share images and methods.
        scheduler: tcp://host:port of a running Dask scheduler, or a YAML file of dask-jobqueue.
        progress: whether to show progress bars.
    """
    run = base(profile)
    if run is None:
        return
    inference.check_device(device)
    if store.read_run(run) is not None and not _has_votes(run, device):
        told = f"the votes of {run.id} are not here, only their counts: none are drawn; `make` or `srs certify` draws them"
        warnings.warn(told, stacklevel=2)
        return
    learn = partial(train.train, device=device, progress=progress)
    draw = partial(certify.certify, device=device, workers=workers, scheduler=scheduler, progress=progress)
    learn(run)
    draw(run)  # nothing, where the votes are here
    found, every = [], lines(run)
    for recipe in dict.fromkeys(line.train for line in every):
        other = replace(run, train=recipe)
        if training and other != run:
            learn(other)
        if sealed.present(store.own(other, store.WEIGHTS)):
            own = [line for line in every if line.train == recipe]
            found += _count(other, own, draw, device, stored=run.profile.methods if other == run else ())
    path = store.own(run, NAME)
    store.save_frame(path, pd.concat(found))
    facts = {"run": run.id, "device": inference.device_name(device), "votes": certify.vote_key(run, device).shared}
    sealed.write_json(path.with_suffix(".json"), store.provenance(**facts))


def _has_votes(run: Run, device: str) -> bool:
    if not sealed.present(store.own(run, store.WEIGHTS)):
        return False
    p, key = run.profile, certify.vote_key(run, device)
    return all(sealed.present(certify.vote_file(run, m, key, idx)) for m in p.methods for idx in p.evaluated)


def _count(run: Run, own: Sequence[Line], draw: Callable, device: str, stored: Sequence[Method]) -> Iterator[pd.DataFrame]:
    """The rows of a model: the votes that are missing are drawn, then all are counted."""
    profile, reference = run.profile, run.profile.method(run.profile.reference)
    for size in sorted({line.images for line in own}):
        some = [line for line in own if line.images == size]
        methods = tuple(dict.fromkeys((*profile.methods, *(line.method for line in some))))
        part = replace(run, profile=replace(profile, images=size, methods=methods, plan=()))
        if missing := tuple(m.name for m in methods if m not in stored):
            draw(part, methods=missing, count=False)
        key = certify.vote_key(part, device)
        read = cache(lambda method, idx, part=part, key=key: votes.read(certify.vote_file(part, method, key, idx)))
        for method, n, k in dict.fromkeys((line.method, line.n, line.k) for line in some):
            asked, found = (method, reference, method.auditor or reference), []
            for idx in part.profile.evaluated:
                found.append(first_n(method, profile.sampling, *(read(m, idx) for m in asked), n=n, k=k))
            yield store.label(run, method, found).assign(K=k)


def first_n(
    method: Method, sampling: settings.Sampling, drawn: votes.ImageVotes, standard: votes.ImageVotes, auditor: votes.ImageVotes,
    *, n: int, k: int,
) -> store.ImageCounts:
    """The counts that the first n votes with K = k give, as if no more had been drawn; their seconds are not known: nan.

    `standard` are the reference method's votes on the same noise, `auditor` those of the method that audits (mostly the same).
    They tell what an audit finds, and it costs what they did on average.
    """
    stored = len(drawn.estimate)
    settings.check(1 <= n <= stored, "n", n, f"1 to the {stored} votes that are stored")
    estimate, order = drawn.estimate[:n], noise.audit_order(sampling.seed, drawn.idx, n)
    c_a = bounds.top_class(drawn.select, sampling.classes)
    audited = order[estimate[order] == c_a][:k] if c_a != bounds.ABSTAIN else order[:0]
    longer = method.warmup - method.steps if method.start == "previous" and method.warmup else 0
    per_vote = (int(drawn.nfe[1]) - min(method.batch, stored) * longer) / stored  # what the stored ones cost on average
    spent = round(n * per_vote + min(method.batch, n) * longer)
    nfe = int(drawn.nfe[0]), spent, round(len(audited) * int(auditor.nfe[1]) / stored)
    first = replace(
        drawn, estimate=estimate, audited=audited.astype(np.int32), standard=auditor.estimate[audited],
        seconds=np.full(3, np.nan), nfe=np.array(nfe),
    )  # fmt: skip
    others = (replace(v, estimate=v.estimate[:n]) for v in (standard, auditor))
    return certify.count_votes(first, replace(method, audit=k), sampling, *others)


# ------------------------------------------------------------------------------------------------ read and swept


def read(profile: Profile) -> pd.DataFrame:
    """The long table of counts of the run that is ablated and of its further models, with `K`; empty if nothing is stored."""
    parts, run = [], base(profile)
    if run is not None and (main := store.read_run(run)) is not None:
        parts.append(main.assign(K=main["method"].map({m.name: m.audit if m.needs_audit else 0 for m in profile.methods})))
    if run is not None and (path := store.find(run, NAME)):
        parts.append(store.read_frame(path, KINDS, "table of recounts", by=""))
    if not parts:
        return pd.DataFrame(columns=list(KINDS))
    return pd.concat(parts, ignore_index=True).drop_duplicates([*KEY, "idx"])  # the main tables' own come first


def lines_of(table: str, counted: pd.DataFrame, run: Run) -> pd.DataFrame | None:
    """The counts that a table shows, in its order, with the `value` of what it varies; None if some are not stored."""
    own = [line for line in lines(run) if line.table == table]
    keys = [(line.value, line.train.recipe, line.method.name, line.n, line.k) for line in own]
    keys = pd.DataFrame(keys, columns=["value", *KEY])
    counted = counted[counted["idx"].isin(run.profile.evaluated[: own[0].images])]
    if len(keys.merge(counted[KEY].drop_duplicates())) < len(keys):
        return None
    rows = keys.merge(counted, on=KEY)
    return rows.assign(**{name: measures.in_order(rows[name]) for name in ("value", "recipe", "method")})


def sweep(certified: pd.DataFrame, by: Sequence[str], profile: Profile, cost: Sequence[str] = ()) -> pd.DataFrame:
    """Certified accuracy, ACR and cost of each value of what is varied: a row per group."""
    table = measures.certified_accuracy(certified, profile.radii, by)
    return table.join(measures.cost(certified, by)[list(cost)]).reset_index()


def sweeps(counted: pd.DataFrame, profile: Profile) -> dict[str, pd.DataFrame]:
    """The numbers of every table whose counts are stored, and the certificates of the figure of N; warns of those left out."""
    run, found = base(profile), {}
    if run is None or counted.empty:
        return found
    every = {table: lines_of(table, counted, run) for table in dict.fromkeys(line.table for line in lines(run))}
    own = {table: rows for table, rows in every.items() if rows is not None}
    if "main" in own:
        found["elimination"] = elimination(own["main"], profile)
        alphas = [measures.certificates(own["main"], alpha=alpha).assign(alpha=alpha) for alpha in ALPHAS]
        found["alpha"] = sweep(pd.concat(alphas), ["method", "rule", "alpha"], profile)
    if "k" in own:
        found["k"] = sweep(measures.certificates(own["k"], alpha=profile.alpha), ["method", "rule", "K"], profile, COST[2:])
    if "n" in own:
        found["curves"] = measures.holding(own["n"].assign(N=own["n"]["n"]), alpha=profile.alpha)
        found["n"] = sweep(found["curves"], ["method", "rule", "N"], profile, COST[2:])
    for table, what in VARIED.items():
        if table in own:
            rows = own[table].drop(columns="recipe").rename(columns={"value": what})
            swept = sweep(measures.holding(rows, alpha=profile.alpha), [what, "method", "rule"], profile, COST)
            found[table] = swept if what == "recipe" else swept.sort_values("method", kind="stable")
    if left_out := [f"ablation_{table}" for table in every if table not in own]:
        warnings.warn(f"nothing is stored for {', '.join(left_out)}: notebook 32_ablations measures it", stacklevel=2)
    return found


def elimination(own: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Certified accuracy of the same SRS votes with correlation elimination (three rules) and without any."""
    by = ["method", "rule"]
    certified = measures.certificates(own, alpha=profile.alpha, rules=measures.RULES)
    certified = certified[certified["needs_audit"] | (certified["rule"] == Rule.COHEN)].copy()
    standard = certified[certified["method"] == profile.reference].set_index("idx")["radius"]
    certified[ABOVE] = certified["radius"] > certified["idx"].map(standard)
    certified["mean p_m %"] = (100 * measures.p_m(certified)).where(certified["needs_audit"])
    more = certified.groupby(by, observed=True).agg({ABOVE: "sum", "mean p_m %": "mean"})
    table = sweep(certified, by, profile).join(more, on=by)
    plain, srs = table["rule"] == Rule.COHEN, table["method"] != profile.reference
    table["rule"] = table["rule"].astype(str).map(show.RULE_LABELS).mask(plain, "not needed: cohen").mask(plain & srs, NOTHING)
    return table.rename(columns={"rule": "elimination"})


# ------------------------------------------------------------------------------------------------ shown

CAPTIONS = {  # what a table or figure says beyond its title in the notebook
    "elimination": f"With and without correlation elimination. '{ABOVE}': above {{reference}}'s on the same noise",
    "alpha": "Failure probability alpha, from the same stored votes",
    "k": "Audited votes K: the full solve's stored votes on the same noise tell what an audit of any size finds",
    "n": "Votes N: the first of the stored ones",
    "solver": "Naive iteration, Anderson's and Broyden's method at equal evaluations of f",
    "start": "Where a copy's solver starts. Votes from zero and the training mean need no audit",
    "batch": "Noisy copies that SRS solves side by side, its number of chains",
    "warmup": "Anderson steps of the first batch of SRS; 0: as many as all others, so that even the class c_A may be another",
    "jacobian": "With and without Jacobian regularisation in training",
    "smoothadv": "With and without SmoothAdv in training",
}


def caption(name: str, profile: Profile) -> str:
    """What a table or figure says below it."""
    run = base(profile)
    images = next((line.images for line in lines(run) if line.table == name), profile.images)
    where = f"{setting(replace(run, profile=replace(profile, images=images, plan=())))}, K = {usual_k(profile)}"
    text = f"{CAPTIONS[name]} ({where}, but for what is varied).".format(reference=profile.reference)
    if name in VARIED:
        return f"{text} SRS stands under 'audit'; disagreement is with {profile.reference} on the same noise."
    return text if name == "n" else f"{text} {show.UNSOUND_NOTE}"


def shown(profile: Profile) -> list[Shown]:
    """Tables and figures from what is stored."""
    found = sweeps(read(profile), profile)
    return [*tables(found, profile), *figures(found, profile)]


def tables(found: dict[str, pd.DataFrame], profile: Profile) -> list[Shown]:
    """Every table of `sweeps`."""
    named = {name: own for name, own in found.items() if name != "curves"}
    return [show.table(profile, f"ablation_{name}", own, caption(name, profile)) for name, own in named.items()]


def figures(found: dict[str, pd.DataFrame], profile: Profile) -> list[Shown]:
    """ACR against K and alpha, a panel per rule, and certified accuracy against radius for every N, a panel per method."""
    made = {}
    for name, label in (("k", "audited votes K"), ("alpha", r"failure probability $\alpha$")):
        if name in found:
            own = found[name][(found[name]["rule"] != Rule.COHEN) | (name == "alpha")]  # standard RS has no K
            look = {"labels": (label, "ACR ([0, 1] pixels)"), "title": show.RULE_LABELS.get}
            made[name] = plots.lines(own, x=SWEPT[name], y="ACR", hue="method", panel="rule", **look)
    if "curves" in found:
        rows = found["curves"].sort_values("N", kind="stable")
        rows = rows.assign(line=measures.in_order(rows["N"].map("N = {:,}".format)))
        made["n"] = plots.accuracy_curves(rows, hue="line", panel="method", title=str)
    return [show.figure(profile, f"ablation_{name}_figure", drawn, caption(name, profile)) for name, drawn in made.items()]


def finding(found: dict[str, pd.DataFrame], name: str, profile: Profile) -> str:
    """What the numbers of one table of `sweeps` say: the ends of what is varied, by method."""
    if name not in found:
        return "Nothing is stored for this."
    own, what = found[name], SWEPT.get(name) or VARIED.get(name)
    if name == "elimination":
        above = own[own["method"] != profile.reference].groupby("elimination", sort=False)[ABOVE].sum()
        return f"Of all SRS methods, {ABOVE}: {', '.join(f'{count} ({rule})' for rule, count in above.items())}."
    if what in ("recipe", *SWEPT.values()):
        value, number, sort = "ACR", show.round_down, what if name in SWEPT else "ACR"
        own = own[own["method"].isin((profile.reference, "SRS-MDEQ-3A")) & own["rule"].isin((Rule.COHEN, Rule.AUDIT))]
        about = "ACR of " + own["method"].astype(str)
    else:
        value, number, sort = COST[0], partial(show.round_half_up, digits=2), COST[0]
        about = "votes that differ (%), k = " + own["method"].astype(str).str.extract(r"-(\d+)[NAB]")[0]
    told = []
    for group, rows in own.groupby(about, sort=False):
        ends = rows.sort_values(sort, kind="stable").iloc[[0, -1]]
        told.append(f"{group}: " + " to ".join(f"{number(at)} ({what} {of})" for at, of in zip(ends[value], ends[what])))
    return f"{'; '.join(told)}."
