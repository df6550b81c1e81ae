"""Notebook 32: what each choice of the method is worth, one varied at a time, from one long table of counts.

What a stored vote can tell is not drawn again. The first n of N stored votes are those that n votes would have been, and the full
solve's stored votes on the same noise tell what an audit of any size finds. `variants` says what is varied.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from srs import sealed, settings, store
from srs.analysis import measures, plots, show
from srs.analysis.show import Shown
from srs.deq import inference
from srs.experiments import few_steps, variants
from srs.experiments.certified_accuracy import model_quality, setting
from srs.experiments.variants import Line
from srs.settings import Method, Profile, Run
from srs.smoothing import audit_size, bounds, certify, engine, noise, votes
from srs.smoothing.bounds import Rule
from srs.training import train

NAME = "ablations.csv"  # of the file of counts
KEY = ["recipe", "method", "n", "K"]
KINDS = {"model": str, "recipe": str, "sigma": float, "method": str, "reference": str, "needs_audit": bool}
KINDS |= store.KINDS | {"K": np.int64}
NOTHING = "none (unsound): cohen on SRS votes"
STORED, FAR = "stored votes", "extrapolated"
DRAWS = 40  # simulated samples of each image, over which what is extrapolated is averaged
PAPER_K = 400
VARIED = {"solver": "solver", "start": "start", "batch": "chains", "warmup": "warm-up steps"}  # by table: what it varies
SWEPT = {"n": "N", "k": "K", "alpha": "alpha"}
COST = ["disagreement %", "NFE/vote", "NFE/image"]
WAYS = list(product(("zero", "previous", "centroid"), (1, 2, 4)))  # start and steps, in the table of the parts of `contractive`
SIZE = {"images": 10, "copies": 40, "chains": 10}  # of the votes by which they are


# ------------------------------------------------------------------------------------------------ measured


def measure(
    profile: Profile, *, training: bool = True, device: str = "cpu", workers: int = 1, scheduler: str = "", progress: bool = True
) -> None:
    """Draw what votes are missing, train what models are missing, and store all counts that the ablations show.

    Nothing is done for a profile without the run that is ablated. Warns of what has to be left out.

    Args:
        profile: whose run of model SMALL at sigma 0.5, recipe `paper`, is ablated.
        training: train the models of other recipes; if not, only those take part whose weights are there.
        device: a torch device.
        workers: processes that share images and methods, and the training of models.
        scheduler: tcp://host:port of a running Dask scheduler, or a YAML file of dask-jobqueue.
        progress: whether to show progress bars.
    """
    run = variants.base(profile)
    if run is None:
        return
    there = _has_votes(run)
    if there or store.read_run(run) is None:
        draw = partial(certify.certify, device=device, workers=workers, scheduler=scheduler, progress=progress)
        if not there:
            train.train(run, device=device, progress=progress)
            draw(run)
        if training:  # side by side on this machine, on whose disk the weights are to lie
            learn = partial(train.train, device=device, progress=progress and workers == 1)
            others = [(replace(run, train=recipe),) for recipe in variants.further_recipes(run).values()]
            list(engine.compute(lambda: learn, others, workers=workers, deadline=engine.WEEK))
        _measure_counts(run, device, draw)
    else:
        warnings.warn(f"the votes of {run.id} are not here, only their counts: none are drawn", stacklevel=2)
    compared = tuple(m for m in few_steps.ways(SIZE["chains"]) if _is_compared(m))
    for recipe in variants.contractive_parts(run).values():
        other = replace(run, train=recipe)
        if training:
            train.train(other, device=device, progress=progress)
        if not store.find(other, "agreement-test.csv") and sealed.present(store.own(other, store.WEIGHTS)):
            few_steps.measure(other, "test", **SIZE, chosen=compared, device=device, progress=progress)


def _has_votes(run: Run) -> bool:
    if not sealed.present(store.own(run, store.WEIGHTS)):
        return False
    key = certify.vote_key(run)
    return all(sealed.present(certify.vote_file(run, m, key, idx)) for m in run.profile.methods for idx in run.profile.evaluated)


def _is_compared(way) -> bool:
    """Whether the table of the parts of `contractive` shows a way to vote of `few_steps`."""
    return way.solver == "anderson" and not (way.tol or way.margin) and (way.start, way.steps) in WAYS


def _measure_counts(run: Run, device: str, draw: partial) -> None:
    lines, found = variants.lines(run), []
    for recipe in dict.fromkeys(line.train for line in lines):
        other, own = replace(run, train=recipe), [line for line in lines if line.train == recipe]
        if other == run or store.own(other, store.WEIGHTS).is_file():
            found += _count(other, own, draw, stored=run.profile.methods if other == run else ())
    path = store.measured(run, NAME)
    store.save_frame(path, pd.concat(found))
    sealed.write_json(path.with_suffix(".json"), store.provenance(
        run=run.id, profile=run.profile.name, device=inference.device_name(device), votes=certify.vote_key(run, device).shared,
    ))  # fmt: skip


def _count(run: Run, lines: Sequence[Line], draw: partial, stored: Sequence[Method]) -> list[pd.DataFrame]:
    """The rows of a model: missing votes of each method are drawn, on as many images as some table wants, then counted."""
    profile, rows, images = run.profile, [], {}
    for line in lines:
        images[line.method] = max(line.images, images.get(line.method, 0))
    for size in dict.fromkeys(images.values()):
        drawn = {m: variants.drawn(m, stored) for m in images if images[m] == size}
        every = tuple(dict.fromkeys((*profile.methods, *drawn.values())))
        part = replace(run, profile=replace(profile, images=size, methods=every, plan=()))
        if missing := tuple(m.name for m in drawn.values() if m not in stored):
            draw(part, methods=missing, count=False)
        key, reference = certify.vote_key(part), profile.method(profile.reference)
        for method, own in drawn.items():
            ways = (own, reference, method.auditor or reference)
            each = [[votes.read(certify.vote_file(part, way, key, idx)) for way in ways] for idx in part.profile.evaluated]
            for n, k in dict.fromkeys((line.n, line.k) for line in lines if line.method == method):
                tallies = [first_n(mine, method, profile.sampling, standard, audit, n=n, k=k) for mine, standard, audit in each]
                rows.append(store.label(run, method, tallies).assign(K=k))
    return rows


def first_n(
    drawn: votes.ImageVotes, method: Method, sampling: settings.Sampling, standard: votes.ImageVotes, auditor: votes.ImageVotes,
    *, n: int, k: int,
) -> store.Tally:
    """The tally that the first n votes with K = k give, as if no more had been drawn; their seconds are not known: nan.

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
    first = replace(
        drawn, estimate=estimate, audited=audited.astype(np.int32), standard=auditor.estimate[audited],
        seconds=np.full(3, np.nan), nfe=np.array((int(drawn.nfe[0]), spent, round(len(audited) * int(auditor.nfe[1]) / stored))),
    )  # fmt: skip
    others = (replace(v, estimate=v.estimate[:n]) for v in (standard, auditor))
    return certify.count_votes(first, replace(method, audit=k), sampling, *others)


# ------------------------------------------------------------------------------------------------ read and swept


def read(profile: Profile) -> pd.DataFrame:
    """The long table of counts of the run that is ablated and of its further models, with `K`; empty if nothing is stored."""
    parts, run = [], variants.base(profile)
    if run is not None and (main := store.read_run(run)) is not None:
        parts.append(main.assign(K=main["method"].map({m.name: m.audit if m.serialized else 0 for m in profile.methods})))
    if run is not None and (path := store.find(run, NAME)):
        parts.append(store.read_frame(path, KINDS, "table of recounts", by=""))
    if not parts:
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in KINDS.items()})
    return pd.concat(parts, ignore_index=True).drop_duplicates([*KEY, "idx"])  # the main tables' own come first


def lines_of(table: str, counted: pd.DataFrame, run: Run) -> pd.DataFrame | None:
    """The counts that a table shows, in its order, with the `value` of what it varies; None if some are not stored."""
    lines = [line for line in variants.lines(run) if line.table == table]
    keys = [(line.value, line.train.recipe, line.method.name, line.n, line.k) for line in lines]
    keys = pd.DataFrame(keys, columns=["value", *KEY])
    counted = counted[counted["idx"].isin(run.profile.evaluated[: lines[0].images])]
    if len(keys.merge(counted[KEY].drop_duplicates())) < len(keys):
        return None
    own = keys.merge(counted, on=KEY)
    return own.assign(**{name: measures.in_order(own[name]) for name in ("value", "recipe", "method")})


def sweep(certified: pd.DataFrame, by: Sequence[str], profile: Profile, cost: Sequence[str] = COST) -> pd.DataFrame:
    """Certified accuracy, ACR and cost of each value of what is varied: a row per group."""
    return measures.certified_accuracy(certified, profile.radii, by).join(measures.cost(certified, by)[cost]).reset_index()


def sweeps(counted: pd.DataFrame, profile: Profile) -> dict[str, pd.DataFrame]:
    """The numbers of every table whose counts are stored, by its name; warns of those left out.

    Beside them `models`, what the cards say of models of further recipes, and `curves`, the certificates of the figure of N.
    """
    run, found = variants.base(profile), {}
    if run is None:
        return {}
    tables, recipes = dict.fromkeys(line.table for line in variants.lines(run)), variants.further_recipes(run)
    own = {table: rows for table in tables if (rows := lines_of(table, counted, run)) is not None}
    if "main" in own:
        found["elimination"] = elimination(own["main"], profile)
        alphas = [measures.certificates(own["main"], alpha=alpha).assign(alpha=alpha) for alpha in variants.ALPHAS]
        found["alpha"] = sweep(pd.concat(alphas), ["method", "rule", "alpha"], profile, [])
    if "k" in own:
        found["k"] = sweep(measures.certificates(own["k"], alpha=profile.alpha), ["method", "rule", "K"], profile, COST[2:])
    if "n" in own:
        found["curves"] = measures.holding(of_n(own["n"], run), alpha=profile.alpha)
        found["n"] = sweep(found["curves"], ["method", "rule", "from", "K", "N"], profile, COST[2:])
    for table in (table for table in (*VARIED, *recipes) if table in own):
        what = VARIED.get(table, "recipe")
        rows = own[table] if what == "recipe" else own[table].rename(columns={"value": what})
        swept = sweep(measures.holding(rows, alpha=profile.alpha), [what, "method", "rule"], profile)
        found[table] = swept if what == "recipe" else swept.sort_values("method", kind="stable")
    if models := [_model(replace(run, train=recipe)) for table, recipe in recipes.items() if table in own]:
        found["models"] = pd.DataFrame([_model(run), *models])
    parts, left_out = contraction(run), [f"ablation_{table}" for table in tables if table not in own]
    if len(parts) > 2:
        found["parts"] = parts
        lacking = [name for name in variants.contractive_parts(run) if name not in set(parts["recipe"])]
        left_out += [f"'{name}' in contraction_parts" for name in lacking]
    if left_out:
        warnings.warn(f"nothing is stored for {', '.join(left_out)}: notebook 32_ablations measures it", stacklevel=2)
    return found


def elimination(own: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Certified accuracy of the same SRS votes with correlation elimination (three rules) and without any."""
    by = ["method", "rule"]
    certified = measures.certificates(own, alpha=profile.alpha, rules=measures.RULES)
    certified = certified[certified["needs_audit"] | (certified["rule"] == Rule.COHEN)].copy()
    standard = certified[certified["method"] == profile.reference].set_index("idx")["radius"]
    certified["images above RS's radius"] = certified["radius"] > certified["idx"].map(standard)
    certified["mean p_m %"] = (100 * measures.p_m(certified)).where(certified["needs_audit"])
    groups = certified.groupby(by, observed=True)
    table = sweep(certified, by, profile).drop(columns=COST).set_index(by)
    table = table.join(groups["images above RS's radius"].sum()).join(groups["mean p_m %"].mean()).reset_index()
    plain, srs = table["rule"] == Rule.COHEN, table["method"] != profile.reference
    table["rule"] = table["rule"].astype(str).map(show.RULE_LABELS).mask(plain, "not needed: cohen").mask(plain & srs, NOTHING)
    return table.rename(columns={"rule": "elimination"})


def of_n(own: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Stored counts of several N, and extrapolated ones at the profile's K and at the paper's; `from` says which."""
    n_stored, parts = run.profile.n, [own.assign(source=STORED)]
    for method in dict.fromkeys(line.method for line in variants.lines(run) if line.table == "n"):
        usual = own[(own["method"] == method.name) & (own["n"] == n_stored)]
        for k, n in product(dict.fromkeys((method.audit, PAPER_K) if method.serialized else (0,)), variants.NS):
            if n > max(n_stored, 999):
                cost = {"nfe_select": audit_size.nfe(run, method, usual, n, k), "nfe_estimate": 0, "nfe_audit": 0}
                parts.append(extrapolated(usual, n, k).assign(source=FAR, **cost))
    found = pd.concat(parts, ignore_index=True)
    return found.assign(N=found["n"], **{"from": measures.in_order(found["source"])})


def extrapolated(own: pd.DataFrame, n: int, k: int) -> pd.DataFrame:
    """Counts of n votes at each image's measured shares, DRAWS simulated ones per image, with K = k audited (0: none)."""
    rng, tiled = np.random.default_rng(0), pd.concat([own] * DRAWS, ignore_index=True)
    n_a = rng.binomial(n, tiled["n_a"] / tiled["n"])
    agreeing = rng.binomial(n_a, 1 - measures.p_m(tiled).fillna(0))
    drawn = audit_size.audited_counts(rng, n, n_a, agreeing, k)
    audited = {name: getattr(drawn, name) for name in ("n", "n_a", "k", "m", "n_2", "n_1")}
    return tiled.assign(K=k, **audited, n_wrong=n_a - agreeing, n_differ=-1)  # only the votes for c_A are simulated


def _model(run: Run) -> dict[str, object]:
    """What a card says of a model of another recipe, and how many training batches the Jacobian penalty is expected on."""
    quality, steps, recipe = model_quality(run), store.card(run).get("steps"), run.train
    share = recipe.jacobian_frequency * math.ceil(recipe.jacobian_until * recipe.epochs) / recipe.epochs
    batches = None if steps is None else show.round_half_up(share * steps if recipe.jacobian_weight else 0, 0)
    shown = ("noisy accuracy %", *(name for name in quality if name.startswith("residual")))
    return {"recipe": recipe.recipe, "penalised batches": batches} | {name: quality[name] for name in shown}


def contraction(run: Run) -> pd.DataFrame:
    """The recipe `contractive` and its parts: noisy accuracy, votes unlike the full solve's (%) by start and steps."""
    rows = []
    for name, recipe in variants.contractive_parts(run).items():
        other = replace(run, train=recipe)
        path, card = store.find(other, "agreement-test.csv"), store.card(other)
        if path and card:
            ways = filter(_is_compared, few_steps.read(path).itertuples())
            share = {(way.start, way.steps): 100 * way.differing / way.votes for way in ways}
            differ = {f"{start}, k = {k}": share.get((start, k)) for start, k in WAYS}
            rows.append({"recipe": name, "noisy accuracy %": 100 * card["noisy_accuracy"], **differ})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ shown

CAPTIONS = {  # what a table or figure says beyond its title in the notebook
    "elimination": "With and without correlation elimination. 'images above RS's radius': above {reference}'s on the same noise",
    "alpha": "Failure probability alpha, from the same stored votes",
    "k": "Audited votes K: the full solve's stored votes on the same noise tell what an audit of any size finds",
    "n": "Votes N: the first of the stored ones, or 'extrapolated', a simulation at measured shares, at two K",
    "curves": "Certified accuracy for several N at a fixed K. Broken: extrapolated at the measured shares, a simulation",
    "solver": "Naive iteration, Anderson's and Broyden's method at equal evaluations of f",
    "start": "Where a copy's solver starts: zero, the clean image's solution, the previous copy's (the paper's SRS), the mean of "
    "16 pilot copies (centroid), that with corrected logits (calibrated), one state for all images (anchor). Votes from zero and "
    "anchor need no audit",
    "batch": "Noisy copies that SRS solves side by side, its number of chains",
    "warmup": "Anderson steps of the first batch of SRS; 0: as many as all others, so that even the class c_A may be another",
    "jacobian": "With and without Jacobian regularisation in training",
    "smoothadv": "With and without SmoothAdv in training",
    "models": "Models of further recipes. 'penalised batches': expected number of training batches with the Jacobian penalty",
    "parts": "The recipe 'contractive', whole and with one part changed: accuracy of the full solve on noisy test images, and "
    "votes (%) that differ from the full solve's after k evaluations of f from three starts",
}


def caption(name: str, profile: Profile) -> str:
    """What a table or figure says below it."""
    run = variants.base(profile)
    images = {line.table: line.images for line in variants.lines(run)}.get(name, profile.images)
    where = f"{setting(replace(run, profile=replace(profile, images=images, plan=())))}, K = {variants.usual_k(profile)}"
    text = f"{CAPTIONS[name]} ({where}, but for what is varied).".format(reference=profile.reference)
    if name in (*VARIED, "jacobian", "smoothadv"):
        return f"{text} SRS stands under 'audit'; disagreement is with {profile.reference} on the same noise."
    return f"{text} {show.UNSOUND_NOTE}" if name in ("elimination", "alpha", "k") else text


def tables(found: dict[str, pd.DataFrame], profile: Profile) -> list[Shown]:
    """Every table of `sweeps`; those over N, K and alpha also with ACR alone, a column per value."""
    digits, shown = {f"{start}, k = {k}": 2 for start, k in WAYS}, []
    for name, own in ((name, own) for name, own in found.items() if name != "curves"):
        stem = "contraction_parts" if name == "parts" else f"ablation_{name}"
        shown.append(show.table(profile, stem, own, caption(name, profile), digits))
        if name in SWEPT:
            index = [column for column in ("method", "rule", "K") if column in own and column != SWEPT[name]]
            wide = own.pivot(index=index, columns=SWEPT[name], values="ACR").map(show.round_down)
            wide.columns = [f"{SWEPT[name]} = {value:,}" for value in wide]
            shown.append(show.table(profile, f"{stem}_acr", wide, f"ACR, rounded down. {caption(name, profile)}"))
    return shown


def figures(found: dict[str, pd.DataFrame], profile: Profile) -> list[Shown]:
    """ACR against K and alpha, a panel per rule, and certified accuracy against radius for every N, a panel per method."""
    shown = []
    for name, label in (("k", "audited votes K"), ("alpha", r"failure probability $\alpha$")):
        if name in found:
            own = found[name][(found[name]["rule"] != Rule.COHEN) | (name == "alpha")]  # standard RS has no K
            look = {"labels": (label, "ACR ([0, 1] pixels)"), "title": show.RULE_LABELS.get}
            drawn = plots.lines(own, x=SWEPT[name], y="ACR", hue="method", panel="rule", **look)
            shown.append(show.figure(profile, f"ablation_{name}_figure", drawn, caption(name, profile)))
    if "curves" in found:
        rows = found["curves"][found["curves"]["K"] <= variants.usual_k(profile)].sort_values(["from", "N"], kind="stable")
        names = [f"N = {n:,}" if source == STORED else f"{FAR}: {n:,}" for source, n in zip(rows["from"], rows["N"])]
        drawn = plots.accuracy_curves(rows.assign(line=measures.in_order(names)), hue="line", panel="method", title=str)
        shown.append(show.figure(profile, "ablation_n_figure", drawn, caption("curves", profile)))
    return shown


def finding(found: dict[str, pd.DataFrame], name: str, profile: Profile) -> str:
    """What the numbers of one table of `sweeps` say: the ends of what is varied, by method."""
    if name not in found:
        return "Nothing is stored for this."
    own, what, value = found[name], SWEPT.get(name, VARIED.get(name, "recipe")), COST[0] if name in VARIED else "ACR"
    if name == "elimination":
        what, value, own = "elimination", "images above RS's radius", own[own["method"] != profile.reference]
        own = own.groupby(what, sort=False)[[value]].sum().reset_index().assign(method="all SRS methods")
    elif name == "parts":
        what, value, own = "recipe", "previous, k = 1", own.assign(method="one evaluation from another copy's solution")
    elif name not in VARIED:
        own = own[own["method"].isin((profile.reference, "SRS-MDEQ-3A")) & own["rule"].isin((Rule.COHEN, Rule.AUDIT))]
    else:
        own = own.assign(method="votes that differ (%), k = " + own["method"].astype(str).str.extract(r"-(\d+)[NAB]")[0])
    number = show.round_down if value == "ACR" else str if name == "elimination" else partial(show.round_half_up, digits=2)
    told = []
    for method, rows in own.groupby("method", observed=True, sort=False):
        ends = rows.sort_values(what if name in SWEPT else value, kind="stable").iloc[[0, -1]]
        told.append(f"{method}: " + " to ".join(f"{number(end[value])} ({what} {end[what]})" for _, end in ends.iterrows()))
    return f"{'; '.join(told)}." if value != "ACR" else f"ACR: {'; '.join(told)}."
