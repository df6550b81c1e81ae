"""What the ablations vary, as settings: methods beside the profile's own, recipes beside the paper's. Standard library only.

Everything is about one run, MDEQ-SMALL at sigma 0.5 trained as in the paper. Sampling stays that of the profile, so a
variant sees the same noise as the methods of the main tables, and what these have stored is used again.
"""

from dataclasses import dataclass, replace

from srs.attacks.settings import Adversarial, AdversarialTrain, smoothadv
from srs.settings import Method, Profile, Run, Train

MODEL, SIGMA, RECIPE = "SMALL", 0.5, "paper"
# Images that new votes are drawn for, where the profile's own number would take too long; see `images`.
IMAGES = {"digits": 5, "cifar10": 5, "smoke": 1}

SUFFIX = {"naive": "N", "anderson": "A", "broyden": "B"}  # of a method's name, as in the paper
RS_STEPS, SRS_STEPS, FEW_STEPS = (5, 30), (3,), (1, 3)
CHAINS = (10, 25, 50, 100, 400)
WARMUPS = (0, 1, 5, 10, 30)
KS = (10, 25, 50, 100, 200, 400, 1_000, 2_000, 5_000, 10_000)
NS = (100, 200, 400, 1_000, 10_000, 100_000)  # of which the last three are the paper's
ALPHAS = (0.1, 0.01, 0.001, 0.0001)

NO_AUDIT = "-K0"  # ends the name of serialized votes that were drawn without an audit


@dataclass(frozen=True)
class Variant:
    """One line of a table: what is varied, its value, and how the votes are drawn."""

    value: str
    method: Method


def base(profile: Profile) -> Run | None:
    """The run that is ablated; None if the profile has it not, or not with the paper's methods for CIFAR-10."""
    named = {method.name for method in profile.methods}
    if profile.reference != "MDEQ-30A" or not {"SRS-MDEQ-1A", "SRS-MDEQ-3A"} <= named:
        return None
    wanted = (MODEL, SIGMA, RECIPE)
    return next((run for run in profile.runs if (run.model.name, run.sigma, run.train.recipe) == wanted), None)


def images(profile: Profile) -> int:
    """How many of the evaluated images, from the first on, new votes are drawn for."""
    return min(profile.images, IMAGES.get(profile.name, profile.images))


# ------------------------------------------------------------------------------------------------ methods


def _known(profile: Profile, method: Method) -> Method:
    """The profile's own method where it votes in the same way, since its votes are stored."""
    same = (m for m in profile.methods if replace(m, name=method.name, audit=method.audit) == method)
    return next(same, method)


def _rs(profile: Profile, solver: str, steps: int) -> Method:
    """Standard RS with another solver."""
    name = f"MDEQ-{steps}{SUFFIX[solver]}"
    return _known(profile, replace(profile.method(profile.reference), name=name, solver=solver, steps=steps))


def _srs(profile: Profile, solver: str, steps: int, **changes: object) -> Method:
    """SRS with another solver, or with other changed fields."""
    name = f"SRS-MDEQ-{steps}{SUFFIX[solver]}"
    changed = {"name": name, "solver": solver, "steps": steps} | changes
    return _known(profile, replace(profile.method("SRS-MDEQ-3A"), **changed))


def solvers(profile: Profile) -> tuple[Variant, ...]:
    """Naive iteration, Anderson's and Broyden's method at equal evaluations of f: standard RS, then SRS."""
    rs = [Variant(name, _rs(profile, name, k)) for k in RS_STEPS for name in SUFFIX]
    return (*rs, *(Variant(name, _srs(profile, name, k)) for k in SRS_STEPS for name in SUFFIX))


def starts(profile: Profile) -> tuple[Variant, ...]:
    """Where a copy's solver starts, at one and at three Anderson steps."""
    rs, srs, found = profile.method(profile.reference), profile.method("SRS-MDEQ-3A"), []
    for k in FEW_STEPS:
        few = replace(rs, steps=k)
        clean = replace(few, name=f"SRS-CLEAN-{k}A", start="clean", audit=srs.audit)
        centroid = replace(clean, name=f"SRS-CENTROID-{k}A", start="centroid", warmup=10)
        calibrated = replace(centroid, name=f"SRS-CALIBRATED-{k}A", start="calibrated")
        anchor = replace(few, name=f"MDEQ-ANCHOR-{k}A", start="anchor")
        found += [_rs(profile, "anderson", k), clean, _srs(profile, "anderson", k), centroid, calibrated, anchor]
    return tuple(Variant(method.start, _known(profile, method)) for method in found)


def chains(profile: Profile) -> tuple[Variant, ...]:
    """How many copies are solved side by side: the batch size, and the number of chains, of SRS."""
    sizes = [size for size in CHAINS if size <= profile.n // 2]  # with fewer than two batches nothing is serialized
    return tuple(
        Variant(str(size), _srs(profile, "anderson", k, name=f"SRS-MDEQ-{k}A-B{size}", batch=size))
        for k in FEW_STEPS
        for size in sizes
    )


def warmups(profile: Profile) -> tuple[Variant, ...]:
    """How many steps the first batch of SRS gets; 0: as many as all others, so that number is not shown twice."""
    return tuple(
        Variant(str(steps), _srs(profile, "anderson", k, name=f"SRS-MDEQ-{k}A-W{steps}", warmup=steps))
        for k in FEW_STEPS
        for steps in WARMUPS
        if steps != k
    )


def three_steps(profile: Profile) -> tuple[Method, Method]:
    """The two methods that the paper varies N with: three steps of SRS, Anderson's and naive."""
    return _srs(profile, "anderson", 3), _srs(profile, "naive", 3)


def every(profile: Profile) -> tuple[Method, ...]:
    """All methods of the tables for which votes may have to be drawn, each once."""
    made = (*solvers(profile), *starts(profile), *chains(profile), *warmups(profile))
    return tuple(dict.fromkeys(variant.method for variant in made))


def drawn(profile: Profile, method: Method) -> Method:
    """How the votes of a variant are drawn: as the profile's own are, else without an audit.

    An audit asks what the full solve says of some copies, and the full solve's votes on all of them are stored.
    """
    if method in profile.methods or not method.serialized:
        return method
    return replace(method, name=method.name + NO_AUDIT, audit=0)


def unaudited(profile: Profile) -> tuple[Method, ...]:
    """The profile's own methods as they are drawn for a model of another recipe: without audits."""
    return tuple(replace(m, name=m.name + NO_AUDIT, audit=0) if m.serialized else m for m in profile.methods)


# ------------------------------------------------------------------------------------------------ recipes


def nojacobian_recipe(run: Run) -> Train:
    """The run's recipe without the Jacobian penalty."""
    return replace(run.train, recipe="nojacobian", jacobian_weight=0.0, jacobian_frequency=0.0)


def smoothadv_recipe(run: Run) -> AdversarialTrain:
    """SmoothAdv with the paper's PGD: from random weights, or from the run's own where that would take too long."""
    recipe = smoothadv(run.train)
    if run.profile.name not in IMAGES:
        return recipe
    recipe = replace(recipe, begin=run.train, pretrain_steps=0, epochs=1, lr=run.train.lr / 2)
    return replace(recipe, adversarial=Adversarial(steps=1, vectors=1)) if run.profile.name == "smoke" else recipe


def further(run: Run) -> tuple[Run, ...]:
    """The runs that the ablations train besides, certified on the same images by the profile's methods."""
    small = replace(run.profile, images=images(run.profile), methods=unaudited(run.profile))
    return tuple(replace(run, profile=small, train=recipe) for recipe in (nojacobian_recipe(run), smoothadv_recipe(run)))


# ------------------------------------------------------------------------------------------------ N, K and alpha


def usual_k(profile: Profile) -> int:
    """K of the profile's SRS methods."""
    return profile.method("SRS-MDEQ-3A").audit


def ks(profile: Profile) -> tuple[int, ...]:
    """The audit sizes that are shown: up to all votes, the usual one among them."""
    return tuple(sorted({k for k in KS if k <= profile.n} | {usual_k(profile)}))


def stored_ns(profile: Profile) -> tuple[int, ...]:
    """The numbers of votes that are shown and are there; the profile's own among them."""
    return tuple(sorted({n for n in NS if n <= profile.n} | {profile.n}))


def far_ns(profile: Profile) -> tuple[int, ...]:
    """The numbers of votes that are shown and are extrapolated to: those of the paper that the profile does not reach."""
    return tuple(n for n in NS if n > profile.n and n >= 1_000)
