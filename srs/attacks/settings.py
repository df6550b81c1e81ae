"""What attacks a model and what hardens it, as settings: gradients, attacks, adversarial training. Standard library only.

Distances are l2, in units of [0, 1] pixels. Attacked images are not clipped to [0, 1]: a certificate speaks of all of R^d.
"""

from dataclasses import dataclass

from srs.settings import Train

RADII = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # of the paper's attack tables


@dataclass(frozen=True)
class Gradient:
    """How the loss is differentiated through the solver, at the state z_n that n = `state` evaluations of f lead to."""

    kind: str = "implicit"  # function theorem at z_n, by Broyden's method; or "unrolled": `unroll` more steps of f
    state: int = 30
    solver: str = "anderson"
    backward: int = 30  # `implicit`: vector-Jacobian products
    unroll: int = 1

    @property
    def cost(self) -> int:
        """Evaluations of f and vector-Jacobian products that one gradient takes."""
        return self.state + (2 + self.backward if self.kind == "implicit" else 2 * self.unroll)


@dataclass(frozen=True)
class Attack:
    """PGD-l2 away from a class: on the base classifier, or on the mean softmax of noisy copies (Salman et al. 2019)."""

    name: str
    vectors: int = 0  # m noisy copies, the same in all steps; 0: the base classifier, without noise
    gradient: Gradient = Gradient()
    steps: int = 20  # 0: the image as it is
    step: float = 0.1
    radii: tuple[float, ...] = RADII  # none: just inside each image's own largest certified radius

    @property
    def nfe(self) -> int:
        """Evaluations of f and vector-Jacobian products that it takes of an image at a radius."""
        return self.steps * self.gradient.cost * max(1, self.vectors)


NO_ATTACK = Attack("none", steps=0, radii=(0.0,))


@dataclass(frozen=True)
class Suite:
    """The attacks on a profile's runs and how their success is measured."""

    attacks: tuple[Attack, ...]
    images: int  # the first of the profile's evaluated images
    n: int  # votes of the reference method that predict an attacked image; 0: the base classifier alone, away from the label
    runs: tuple[tuple[str, float], ...] = ()  # model and sigma of the runs of recipe `paper` that are attacked; none: all
    methods: tuple[str, ...] = ("MDEQ-30A", "SRS-MDEQ-1A", "SRS-MDEQ-3A")  # whose certificates are tested
    confirm: int = 400  # further votes wherever the first contradict a certificate
    copies: int = 384  # noisy copies that are attacked together


def paper_attacks(
    radii: tuple[float, ...] = RADII, vectors: tuple[int, ...] = (1, 4, 8, 16), steps: int = 20
) -> tuple[Attack, ...]:
    """The paper's attacks (none, PGD on the base classifier, Smooth-PGD with m copies), and one at the certificates' edge."""
    cheap = Gradient("unrolled", state=3, unroll=3)  # notebook 34 sets such gradients against the exact one
    return (
        NO_ATTACK,
        Attack("PGD", gradient=Gradient("implicit", state=10, backward=10), steps=steps, radii=radii),
        *(Attack(f"Smooth-PGD m={m}", m, cheap, steps, radii=radii) for m in vectors),
        Attack(f"at the edge m={vectors[-1]}", vectors[-1], cheap, steps, radii=()),
    )


@dataclass(frozen=True)
class Adversarial:
    """Training on attacked noisy copies (SmoothAdv, Salman et al. 2019), as in the paper; steps of 2 `radius` / `steps`."""

    radius: float = 0.5
    steps: int = 2
    vectors: int = 4
    gradient: Gradient = Gradient("unrolled", state=3, unroll=3)


@dataclass(frozen=True)
class AdversarialTrain(Train):
    """A training recipe whose noisy images are attacked first, from the end of its unrolled phase on."""

    adversarial: Adversarial = Adversarial()


def hardened(recipe: Train, name: str, adversarial: Adversarial, **changes: object) -> AdversarialTrain:
    """A recipe with adversarial training, under another name and with other changed fields."""
    return AdversarialTrain(**vars(recipe) | {"recipe": name} | changes | {"adversarial": adversarial})
