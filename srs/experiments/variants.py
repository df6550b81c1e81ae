"""What notebook 32 varies, as settings: methods beside the profile's own, recipes beside the paper's, and what each table shows.

All is about one run, MDEQ-SMALL at sigma 0.5 trained as in the paper, on the noise of the main tables. Standard library only.
"""

from dataclasses import replace
from collections.abc import Collection, Sequence
from typing import NamedTuple

from srs import profiles
from srs.attacks.settings import Adversarial, smoothadv
from srs.settings import Method, Profile, Run, Train

SUFFIX = {"naive": "N", "anderson": "A", "broyden": "B"}  # of a method's name, as in the paper
FEW_STEPS = (1, 3)
CHAINS = (10, 25, 50, 100, 400)
WARMUPS = (0, 1, 5, 10, 30)
KS = (10, 25, 50, 100, 200, 400, 1_000, 2_000, 5_000, 10_000)
NS = (100, 200, 400, 1_000, 10_000, 100_000)  # of which the last three are the paper's
ALPHAS = (0.0001, 0.001, 0.01, 0.1)


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
    named = {method.name for method in profile.methods}
    if profile.reference != "MDEQ-30A" or not {"SRS-MDEQ-1A", "SRS-MDEQ-3A"} <= named:
        return None
    return next((run for run in profile.runs if (run.model.name, run.sigma, run.train.recipe) == ("SMALL", 0.5, "paper")), None)


def lines(run: Run) -> list[Line]:
    """Every line of every table, in their order; "main" stands for the tables of the rules and of alpha."""
    profile, own, n, k = run.profile, run.train, run.profile.n, usual_k(run.profile)
    reference, srs = profile.method(profile.reference), [m for m in profile.methods if m.serialized]
    three = [_changed(profile, solver, 3, srs=True) for solver in ("anderson", "naive")]  # what the paper varies N with
    found = [("main", "", own, m, n, m.audit) for m in (reference, *srs)]
    found += [("k", "", own, m, n, size) for m in (reference, *srs) for size in _up_to(n, KS, k)]
    found += [("n", "", own, m, size, min(k, size)) for m in (reference, *three) for size in _up_to(n, NS, n)]
    everywhere = len(found)
    found += [(table, value, own, m, n, k) for table, methods in varied(profile).items() for value, m in methods]
    for table, recipe in further_recipes(run).items():
        found += [(table, "", train, m, n, k) for train in (own, recipe) for m in profile.methods]
    few = min(profile.images, profile.ablation_images or profile.images)
    made = [Line(*line, profile.images if i < everywhere else few) for i, line in enumerate(found)]
    return list(dict.fromkeys(line if line.method.serialized else line._replace(k=0) for line in made))


def usual_k(profile: Profile) -> int:
    """K of the profile's SRS methods."""
    return profile.method("SRS-MDEQ-3A").audit


def _up_to(most: int, values: Sequence[int], own: int) -> list[int]:
    return sorted({value for value in values if value <= most} | {own})


# ------------------------------------------------------------------------------------------------ methods


def varied(profile: Profile) -> dict[str, list[tuple[str, Method]]]:
    """By table, the values of what is varied and how votes are drawn with each.

    `solver`: at equal evaluations of f, standard RS and SRS. `start`: of a copy's solver. `batch`: copies that are solved side by
    side, which is the number of chains of SRS. `warmup`: steps of the first batch of SRS; 0: as many as all others.
    """
    def srs(steps: int, name: str, **changes: int) -> Method:
        return _changed(profile, "anderson", steps, srs=True, name=f"SRS-MDEQ-{steps}A-{name}", **changes)

    sizes = [size for size in CHAINS if size <= profile.n // 2]  # with fewer than two batches nothing is serialized
    return {
        "solver": [
            (name, _changed(profile, name, k, srs=srs)) for k, srs in ((5, False), (30, False), (3, True)) for name in SUFFIX
        ],
        "start": [(method.start, method) for k in FEW_STEPS for method in _starts(profile, k)],
        "batch": [(str(size), srs(k, f"B{size}", batch=size)) for k in FEW_STEPS for size in sizes],
        "warmup": [(str(first), srs(k, f"W{first}", warmup=first)) for k in FEW_STEPS for first in WARMUPS if first != k],
    }


def _starts(profile: Profile, steps: int) -> list[Method]:
    zero, previous = (_changed(profile, "anderson", steps, srs=srs) for srs in (False, True))
    anchor = replace(profile.method(profile.reference), name=f"MDEQ-ANCHOR-{steps}A", steps=steps, start="anchor")
    clean = replace(anchor, name=f"SRS-CLEAN-{steps}A", start="clean", audit=usual_k(profile))
    centroid = replace(clean, name=f"SRS-CENTROID-{steps}A", start="centroid", warmup=10)
    calibrated = replace(centroid, name=f"SRS-CALIBRATED-{steps}A", start="calibrated")
    return [_stored(profile, method) for method in (zero, clean, previous, centroid, calibrated, anchor)]


def _changed(profile: Profile, solver: str, steps: int, *, srs: bool, **changes: object) -> Method:
    """Standard RS or SRS with another solver and number of steps, or with other changed fields."""
    parent, name = ("SRS-MDEQ-3A", f"SRS-MDEQ-{steps}") if srs else (profile.reference, f"MDEQ-{steps}")
    changed = {"name": name + SUFFIX[solver], "solver": solver, "steps": steps} | changes
    return _stored(profile, replace(profile.method(parent), **changed))


def _stored(profile: Profile, method: Method) -> Method:
    """The profile's own method where it votes in the same way, since its votes are stored."""
    return next((m for m in profile.methods if replace(m, name=method.name, audit=method.audit) == method), method)


def drawn(method: Method, stored: Collection[Method]) -> Method:
    """How votes are drawn: as they are stored, else without an audit, whose outcome the full solve's votes tell."""
    return replace(method, name=f"{method.name}-K0", audit=0) if method.serialized and method not in stored else method


# ------------------------------------------------------------------------------------------------ recipes


def further_recipes(run: Run) -> dict[str, Train]:
    """By table: the run's recipe without the Jacobian penalty, and SmoothAdv with the paper's PGD.

    SmoothAdv begins with random weights, or with the run's own where a profile's ablations are to be short.
    """
    without, hard = replace(run.train, recipe="nojacobian", jacobian_weight=0.0, jacobian_frequency=0.0), smoothadv(run.train)
    if run.profile.ablation_images is not None:
        hard = replace(hard, begin=run.train, pretrain_steps=0, epochs=1, lr=run.train.lr / 2)
    if run.profile.ablation_images == 1:  # to see that it runs
        hard = replace(hard, adversarial=Adversarial(steps=1, vectors=1))
    return {"jacobian": without, "smoothadv": hard}


def contractive_parts(run: Run) -> dict[str, Train]:
    """The run's recipe, `contractive`, and that with each of its parts changed; no line for what changes nothing."""
    own = (r.train for r in run.profile.runs if (r.model, r.sigma, r.train.recipe) == (run.model, run.sigma, "contractive"))
    whole = next(own, profiles.contractive(run.train, epochs=run.train.epochs))
    changed = {
        "always from zero": ("zero", {"starts": ("zero",)}),
        "two evaluations, no more": ("two", {"most_free_steps": 0}),
        "the same, and both classify": ("both", {"most_free_steps": 0, "both": True}),
        "last two iterates may differ": ("apart", {"weight": 0.0}),
    }
    parts = {
        label: replace(whole, recipe=f"contractive_{name}", contraction=rule)
        for label, (name, change) in changed.items() if (rule := replace(whole.contraction, **change)) != whole.contraction
    }  # fmt: skip
    return {run.train.recipe: run.train, "contractive": whole, **parts}
