"""What attacks a model and what hardens it, as settings: gradients, attacks, adversarial training. Standard library only.

A DEQ's answer comes from a solver, so how its loss is differentiated is a choice, and a bad choice makes a model look
robust that is not (Yang, Pang, Liu 2022). Distances are l2, in units of [0, 1] pixels. Attacked images are not clipped
to [0, 1]: a certificate speaks of all of R^d, so the attacker may go anywhere within the radius.
"""

import dataclasses
from dataclasses import dataclass

from srs import config
from srs.config import replace
from srs.settings import SOLVERS, Profile, Run, Train, check, check_count, one_of

KINDS = ("implicit", "phantom", "unrolled", "adjoint")
RADII = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # of the paper's attack tables


@dataclass(frozen=True)
class Gradient:
    """How the loss is differentiated through the solver, at the state z_n that n = `state` evaluations of f lead to.

    `implicit`: the implicit function theorem at z_n, its linear system solved by Broyden's method. `phantom`: one more
    step of f, differentiated. `unrolled`: `unroll` more steps z <- (1 - beta) z + beta f(z), differentiated. `adjoint`:
    u_{t+1} = (1 - beta) u_t + beta (dL/dz_t + u_t df/dz_t) runs alongside z_0, ..., z_n (Yang, Pang, Liu 2022).
    """

    kind: str = "implicit"
    state: int = 30
    solver: str = "anderson"
    backward: int = 30  # `implicit`: vector-Jacobian products
    unroll: int = 1
    beta: float = 1.0

    def __post_init__(self):
        check(self.kind in KINDS, "gradient", self.kind, one_of(KINDS))
        check(self.solver in SOLVERS, "solver", self.solver, one_of(SOLVERS))
        for what in ("state", "backward", "unroll"):
            check_count(getattr(self, what), 1, what)
        check(0 < self.beta <= 1, "beta", self.beta, "a share of the new, above 0 and at most 1")

    @property
    def cost(self) -> int:
        """Evaluations of f and vector-Jacobian products that one gradient takes."""
        last = {"implicit": 2 + self.backward, "phantom": 2, "unrolled": 2 * self.unroll, "adjoint": 2 + self.state}
        return self.state + last[self.kind]


@dataclass(frozen=True)
class Attack:
    """PGD-l2 away from a class: on the base classifier, or on the mean softmax of noisy copies (Salman et al. 2019)."""

    name: str
    vectors: int = 0  # m noisy copies, the same in all steps; 0: the base classifier, without noise
    gradient: Gradient = Gradient()
    steps: int = 20  # 0: the image as it is
    step: float = 0.1
    radii: tuple[float, ...] = RADII  # none: just inside each image's own largest certified radius

    def __post_init__(self):
        check_count(self.vectors, 0, f"vectors of {self.name}")
        check_count(self.steps, 0, f"steps of {self.name}")
        check(self.step > 0, f"step of {self.name}", self.step, "a positive length")
        check(all(r >= 0 for r in self.radii), f"radii of {self.name}", self.radii, "radii of 0 or more")


@dataclass(frozen=True)
class Adversarial:
    """Training on attacked images (SmoothAdv, Salman et al. 2019): PGD-l2 on m noisy copies, which are then trained on."""

    radius: float = 0.5
    steps: int = 2
    vectors: int = 4
    gradient: Gradient = Gradient("unrolled", state=3, unroll=3)

    def __post_init__(self):
        check(self.radius > 0, "radius", self.radius, "a positive l2 radius")
        check_count(self.steps, 1, "steps")
        check_count(self.vectors, 1, "noise vectors")

    @property
    def step(self) -> float:
        """The length of a step: twice what would reach the radius, as Salman et al. set it."""
        return 2 * self.radius / self.steps


@dataclass(frozen=True)
class AdversarialTrain(Train):
    """A training recipe whose noisy images are attacked first, from the end of its unrolled phase on."""

    adversarial: Adversarial = Adversarial()


def hardened(recipe: Train, name: str, adversarial: Adversarial, **changes: object) -> AdversarialTrain:
    """A recipe with adversarial training, under another name and with other changed fields."""
    plain = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(Train)}
    return AdversarialTrain(**plain | {"recipe": name} | changes, adversarial=adversarial)


def smoothadv(recipe: Train) -> AdversarialTrain:
    """The paper's SmoothAdv recipe: PGD-l2 0.5, 2 steps, 4 noise vectors, from random weights."""
    return hardened(recipe, "smoothadv", Adversarial())


# ------------------------------------------------------------------------------------------------ what a profile attacks


@dataclass(frozen=True)
class Battery:
    """The attacks on a run and how their success is measured."""

    attacks: tuple[Attack, ...]
    images: int  # the first of the profile's evaluated images
    n: int  # votes that predict an attacked image; 0: the base classifier alone is attacked, away from the label
    methods: tuple[str, ...] = ("MDEQ-30A", "SRS-MDEQ-1A", "SRS-MDEQ-3A")  # how those votes are drawn
    confirm: int = 400  # further votes of the reference method wherever the first contradict a certificate
    copies: int = 384  # noisy copies that are attacked together

    def __post_init__(self):
        check_count(self.images, 1, "images")
        check_count(self.n, 0, "n")
        check_count(self.confirm, 1, "confirming votes")


def smoothed_attacks(radii: tuple[float, ...] = RADII, vectors: tuple[int, ...] = (1, 4, 8, 16), steps: int = 20) -> tuple[Attack, ...]:
    """The paper's attacks (none, PGD on the base classifier, Smooth-PGD with m copies), and one at the certificates' edge."""
    exact = Gradient("implicit", state=10, backward=10)
    cheap = Gradient("unrolled", state=3, unroll=3)  # how near it comes to the exact one is measured in notebook 34
    return (
        Attack("none", steps=0, radii=(0.0,)),
        Attack("PGD", gradient=exact, steps=steps, radii=radii),
        *(Attack(f"Smooth-PGD m={m}", m, cheap, steps, radii=radii) for m in vectors),
        Attack(f"at the edge m={vectors[-1]}", vectors[-1], cheap, steps, radii=()),
    )


BATTERIES = {
    "digits": Battery(smoothed_attacks(), images=5, n=25),
    "cifar10": Battery(smoothed_attacks(), images=5, n=50),
    "cifar10_gpu": Battery(smoothed_attacks(), images=100, n=100),
    "paper": Battery(smoothed_attacks(), images=500, n=100),
    "smoke": Battery(smoothed_attacks((0.25, 0.5), (1, 2), steps=2), images=2, n=10, confirm=20),
}
# Digits: three of the eight models, so that all attacks take about a minute.
ATTACKED = {"digits": (("SMALL", 0.25), ("SMALL", 0.5), ("LARGE", 0.5)), "cifar10": (("SMALL", 0.5),), "cifar10_gpu": (("SMALL", 0.5), ("LARGE", 0.5)),
    "smoke": (("SMALL", 0.5),)}


def attacked_runs(profile: Profile) -> tuple[Run, ...]:
    """The runs of a profile that its battery attacks: all of recipe `paper` unless ATTACKED names some."""
    named = ATTACKED.get(profile.name)
    runs = (run for run in profile.runs if run.train.recipe == "paper")
    return tuple(run for run in runs if named is None or (run.model.name, run.sigma) in named)


# ------------------------------------------------------------------------------------------------ white-box attacks


@dataclass(frozen=True)
class WhiteBox:
    """How intermediate-state gradients are compared with the exact one, on a DEQ and on the same DEQ hardened by them."""

    battery: Battery
    states: tuple[int, ...]  # z_n at which gradients are compared
    gradients: tuple[tuple[str, Gradient], ...]  # compared there; `state` is put in
    exact: Gradient  # solved to convergence
    hardening: AdversarialTrain


READY, CONVERGED = "exact, ready-made", "exact, converged"


def ready_made(recipe: Train) -> Gradient:
    """The exact gradient as the recipe trains with it: Broyden's method for both passes, as many steps as there."""
    return Gradient("implicit", recipe.forward_steps, "broyden", recipe.backward_steps)


def white_box_attacks(ready: Gradient, radii: tuple[float, ...], steps: int = 20) -> tuple[Attack, ...]:
    """PGD with one gradient or another, each as long as `steps` steps of the ready-made one cost (converged: as many steps)."""
    unrolled, adjoint = Gradient("unrolled", unroll=3), Gradient("adjoint", beta=0.5)
    chosen = {
        READY: ready,
        CONVERGED: Gradient("implicit", 30, "anderson", 30),
        "unrolled from z_2": replace(unrolled, state=2),
        "unrolled from z_5": replace(unrolled, state=5),
        "adjoint to z_8": replace(adjoint, state=8),
    }
    budget = steps * ready.cost
    counts = {name: steps if name == CONVERGED else max(1, round(budget / g.cost)) for name, g in chosen.items()}
    return tuple(Attack(name, 0, g, counts[name], radii=radii) for name, g in chosen.items())


def white_box(run: Run) -> WhiteBox:
    """The comparison for a run, sized for its profile."""
    recipe, small = run.train, run.profile.name == "smoke"
    adversarial = Adversarial(vectors=1, gradient=Gradient("unrolled", state=3, unroll=3))
    again = dict(begin=recipe, epochs=max(1, recipe.epochs // 4), pretrain_steps=0, lr=recipe.lr / 2)
    hardening = hardened(recipe, "adversarial", adversarial, **again)
    radii = (0.5,) if small else (0.25, 0.5, 0.75, 1.0)
    attacks = (Attack("none", steps=0, radii=(0.0,)), *white_box_attacks(ready_made(recipe), radii, 2 if small else 20))
    images = min(run.profile.images, 25)
    compared = {
        "exact, Broyden": Gradient("implicit", solver="broyden"),  # n steps of each pass
        "unrolled, 1 step": Gradient("unrolled"),
        "unrolled, 3 steps": Gradient("unrolled", unroll=3),
        "adjoint, beta 1": Gradient("adjoint"),
        "adjoint, beta 0.5": Gradient("adjoint", beta=0.5),
    }
    states = (1, 4) if small else (1, 2, 3, 4, 6, 8, 12, 16)
    exact = Gradient("implicit", *((20, "anderson", 20) if small else (100, "anderson", 100)))
    return WhiteBox(Battery(attacks, images, n=0), states, tuple(compared.items()), exact, hardening)
