"""What is run: models, training recipes, sampling methods and profiles. Standard library only.

Everything a run depends on is a frozen dataclass here, above the code that it configures. Names from outside
(notebook parameters, command lines, make) enter through `get_profile`, `get_run` and `read_parameters`, which
refuse what they do not know before any work starts.
"""

import argparse
import dataclasses
import hashlib
import json
from dataclasses import dataclass, replace

from srs.checks import ConfigError, check, check_count, check_sigma, one_of, pick, read_parameters  # noqa: F401, for all

SOLVERS = ("naive", "anderson", "broyden")
STARTS = ("zero", "clean", "previous")
NOISES = ("gaussian", "grid")
GRADIENTS = ("implicit", "phantom", "contractive")
AUGMENTS = ("none", "flips", "crops")


@dataclass(frozen=True)
class Data:
    """A data set: where its images come from and how they are normalised inside the model."""

    name: str
    shape: tuple[int, int, int]  # (channels, height, width) of one image, pixels in [0, 1]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    levels: int = 255  # pixels are multiples of 1/levels; what grid noise needs
    resize: int = 0  # image files: the shorter side is brought to this and the centre cut out; 0: they have the shape


DIGITS = Data("digits", (1, 8, 8), 10, (0.3053,), (0.3763,), levels=16)
CIFAR10 = Data("cifar10", (3, 32, 32), 10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))  # as released
IMAGENET = Data("imagenet", (3, 224, 224), 1000, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resize=256)
IMAGENET_SAMPLE = replace(IMAGENET, name="imagenet-sample", classes=100)  # an image of each of 100 classes
DATASETS = {d.name: d for d in (DIGITS, CIFAR10, IMAGENET, IMAGENET_SAMPLE)}


@dataclass(frozen=True)
class Model:
    """The size of an MDEQ: one entry of `channels` per resolution, each half the one before."""

    name: str
    channels: tuple[int, ...]
    head_channels: tuple[int, ...]
    final_channels: int
    dropout: float
    groups: int = 8
    expansion: int = 5
    downsamples: int = 0  # times the input is halved before the first branch


@dataclass(frozen=True)
class ResNet:
    """The size of an explicit residual network for small images (He et al. 2016; depth 110 in Cohen et al. 2019)."""

    name: str  # without a dash, for run ids
    depth: int  # 6 n + 2: a convolution, three stages of n blocks of two, a linear layer
    widths: tuple[int, int, int] = (16, 32, 64)

    def __post_init__(self):
        check(self.depth >= 8 and self.depth % 6 == 2, "depth", self.depth, "6 n + 2 layers, as in 20 or 110")


@dataclass(frozen=True)
class Contraction:
    """How a DEQ is taught to forget its start: any start, any number of evaluations, then two that must agree."""

    starts: tuple[str, ...] = ("zero", "mean", "other")  # drawn per batch; the last two from the batch before
    most_free_steps: int = 5  # 0 to this many evaluations without gradient, drawn per batch, then two with
    weight: float = 2.0  # of the relative squared change between the last two iterates
    both: bool = True  # cross-entropy on both of the last two iterates, or on the last alone


@dataclass(frozen=True)
class Train:
    """A training recipe with every number that it needs."""

    recipe: str
    epochs: int
    pretrain_steps: int  # steps of unrolled training before the recipe's own gradients begin
    begin: "Train | None" = None  # the recipe whose weights this one begins with; None: random weights
    batch: int = 96
    pretrain_layers: int = 8
    optimiser: str = "adam"
    lr: float = 1e-3
    lr_end: float = 0.0  # the learning rate falls to this by a cosine
    weight_decay: float = 0.0
    clip: float = 0.0  # largest norm of a gradient; 0: as it comes
    forward_steps: int = 8  # Broyden
    backward_steps: int = 7
    gradient: str = "implicit"  # "phantom": differentiate the last step only; "contractive": see `contraction`
    contraction: Contraction = Contraction()
    jacobian_weight: float = 0.5
    jacobian_frequency: float = 0.05
    jacobian_until: float = 0.75  # share of the epochs after which the penalty stops (90 of 120)
    augment: str = "crops"  # flips and padded crops, "flips" alone, or "none" for digits, which have a handedness
    dropout: float | None = None  # instead of the model's own
    quality_images: int | None = None  # of a split, that the model card is measured on, instead of train.QUALITY_IMAGES

    def __post_init__(self):
        check(self.gradient in GRADIENTS, "gradient", self.gradient, one_of(GRADIENTS))
        check(self.augment in AUGMENTS, "augment", self.augment, one_of(AUGMENTS))
        check("-" not in self.recipe, "recipe", self.recipe, "a name without a dash: run ids are MODEL-sSIGMA-RECIPE")


@dataclass(frozen=True)
class Method:
    """How votes are drawn: standard RS (start `zero`) or SRS (a start from an earlier solution)."""

    name: str
    solver: str
    steps: int  # evaluations of f per vote; the released code spends two more for the same answer
    start: str = "zero"
    batch: int = 400  # noisy copies solved together; with start `previous` it is the number of chains
    warmup: int = 0  # solver steps of the first batch of `previous`
    audit: int = 0  # K: votes that are solved again by the standard DEQ

    def __post_init__(self):
        check(self.solver in SOLVERS, "solver", self.solver, one_of(SOLVERS))
        check(self.start in STARTS, "start", self.start, one_of(STARTS))
        for what, least in (("steps", 1), ("batch", 1), ("warmup", 0), ("audit", 0)):
            check_count(getattr(self, what), least, f"{what} of {self.name}")

    @property
    def serialized(self) -> bool:
        """Whether votes may differ from the standard DEQ's, so that a certificate needs an audit."""
        return self.start != "zero"


@dataclass(frozen=True)
class Sampling:
    """How much is sampled of each image, and what serialized votes are audited by."""

    classes: int
    n0: int = 100  # samples that select c_A
    n: int = 10_000  # samples that estimate p_A
    seed: int = 0
    reference: Method = Method("MDEQ-30A", "anderson", 30)
    noise: str = "gaussian"  # floating point; "grid": exact on the pixels' own grid, see srs.exact
    levels: int = 255  # of the grid
    tf32: bool = False  # let a GPU round products to 10 bits: another base classifier, faster

    def __post_init__(self):
        for what, least in (("n0", 1), ("n", 1), ("classes", 2)):
            check_count(getattr(self, what), least, what)
        check(not self.reference.serialized, "reference method", self.reference.name, "one that starts from zero")
        check(self.noise in NOISES, "noise", self.noise, one_of(NOISES))
        check(self.levels >= 1, "levels", self.levels, "at least 1 step from black to white")

    def check_method(self, method: Method) -> None:
        """Refuse a method whose audit is larger than the sample."""
        check(method.audit <= self.n, "K", method.audit, f"at most n = {self.n} audited samples ({method.name})")


# How an explicit network votes: one pass of it is one evaluation, which solves it from any start; see srs.resnet.
EXPLICIT = Method("RS", "naive", 1)


@dataclass(frozen=True)
class Profile:
    """A whole experiment: data, models, noise levels, methods and sample sizes."""

    name: str
    data: Data
    models: tuple[tuple[Model, Train], ...]
    sigmas: tuple[float, ...]
    methods: tuple[Method, ...]
    reference: str  # the method whose votes all others are compared with and audited by
    images: int  # evaluated test images
    stride: int  # every stride-th test image
    n0: int
    n: int
    alpha: float = 0.001
    seed: int = 0
    radii: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    noise: str = "gaussian"
    baselines: tuple[tuple[ResNet, Train], ...] = ()  # explicit networks, for comparison; see `explicit`
    note: str = ""  # opens every caption

    def __post_init__(self):
        for sigma in self.sigmas:
            check_sigma(sigma)
        check(0 < self.alpha < 1, "alpha", self.alpha, "a failure probability strictly between 0 and 1")
        check(self.images >= 1, "images", self.images, "at least 1 image")
        self.method(self.reference)
        for m in self.methods:
            self.sampling.check_method(m)

    @property
    def sampling(self) -> Sampling:
        """What is sampled of each image."""
        reference = self.method(self.reference)
        return Sampling(self.data.classes, self.n0, self.n, self.seed, reference, self.noise, self.data.levels)

    @property
    def evaluated(self) -> tuple[int, ...]:
        """Positions in the test split of the images that are certified."""
        return tuple(range(0, self.images * self.stride, self.stride))

    @property
    def runs(self) -> tuple["Run", ...]:
        """Every trained model of the profile, small models first."""
        return tuple(Run(self, m, t, s) for m, t in self.models for s in self.sigmas)

    @property
    def explicit(self) -> "Profile":
        """The same experiment with the baselines in place of the DEQs: standard RS, one pass of a network per vote."""
        rs = replace(EXPLICIT, batch=self.method(self.reference).batch)
        return replace(self, models=self.baselines, baselines=(), methods=(rs,), reference=rs.name)

    @property
    def every_run(self) -> tuple["Run", ...]:
        """The runs of the DEQs, then those of the explicit baselines."""
        return self.runs + (self.explicit.runs if self.baselines else ())

    def method(self, name: str) -> Method:
        """The method of that name; ConfigError if there is none."""
        return pick(name, {m.name: m for m in self.methods}, "method")


@dataclass(frozen=True)
class Run:
    """One trained model: a size, a recipe and a noise level within a profile."""

    profile: Profile
    model: Model | ResNet
    train: Train
    sigma: float

    @property
    def id(self) -> str:
        """The name under which this run's artefacts lie."""
        return f"{self.model.name}-s{self.sigma:.2f}-{self.train.recipe}"


def paper_methods(*, batch: int, chains: int, warmup: int, audit: int) -> tuple[Method, ...]:
    """The six rows of the paper's CIFAR-10 tables; `batch` is a matter of speed for standard RS, `chains` is not for SRS."""
    srs = dict(start="previous", batch=chains, warmup=warmup, audit=audit)
    return (
        Method("MDEQ-1A", "anderson", 1, batch=batch),
        Method("MDEQ-5A", "anderson", 5, batch=batch),
        Method("MDEQ-30A", "anderson", 30, batch=batch),
        Method("SRS-MDEQ-1N", "naive", 1, **srs),
        Method("SRS-MDEQ-1A", "anderson", 1, **srs),
        Method("SRS-MDEQ-3A", "anderson", 3, **srs),
    )


def imagenet_methods(*, chains: int, warmup: int, audit: int) -> tuple[Method, ...]:
    """The five rows of the paper's ImageNet tables, all by Broyden's method."""
    rs = tuple(Method(f"MDEQ-{k}B", "broyden", k, batch=chains) for k in (1, 5, 14))
    srs = (Method(f"SRS-MDEQ-{k}B", "broyden", k, "previous", chains, warmup, audit) for k in (1, 3))
    return (*rs, *srs)


# The paper's sizes; parameters counted in tests: 0.25 M and 11.1 M.
SMALL = Model("SMALL", (8, 16, 32), (7, 14, 28), 200, dropout=0.20)
LARGE = Model("LARGE", (32, 64, 128, 256), (14, 28, 56, 112), 1680, dropout=0.22)
IMAGENET_SMALL = Model("SMALL", (32, 64, 128, 256), (28, 56, 112, 224), 2048, dropout=0.02, downsamples=2)
RESNET110 = ResNet("ResNet110", 110)
# 8x8 digits hold two resolutions: the same block, narrower, and a head too small to do the work of f itself.
DIGITS_SMALL = Model("SMALL", (8, 16), (4, 8), 64, dropout=0.05, expansion=2)
DIGITS_LARGE = Model("LARGE", (16, 16), (4, 8), 64, dropout=0.05, expansion=2)

PAPER_SMALL = Train("paper", epochs=120, pretrain_steps=16_000)
PAPER_LARGE = replace(PAPER_SMALL, epochs=220, jacobian_weight=0.4, jacobian_frequency=0.02, jacobian_until=90 / 220)
# The paper's phases in the same order, short enough for a laptop: f at 8x8 settles sooner, so it is
# unrolled and solved in fewer steps, and a larger learning rate makes up for fewer of them.
DIGITS_PAPER = replace(
    PAPER_SMALL, epochs=16, pretrain_steps=240, pretrain_layers=5, batch=48, lr=1e-2, forward_steps=6, backward_steps=5,
    augment="none",
)
# CIFAR-10 on two cores: a few epochs instead of 120, so nothing that fights overfitting (dropout, crops). Both recipes
# begin with the same unrolled model, which is the paper's pre-training phase made a recipe of its own.
CIFAR_UNROLLED = Train(
    "unrolled", epochs=4, pretrain_steps=100_000, batch=64, pretrain_layers=3, lr=3e-3, lr_end=2e-3, clip=1.0,
    jacobian_frequency=0.0, augment="flips", dropout=0.0,
)
CIFAR_PAPER = replace(
    CIFAR_UNROLLED, recipe="paper", begin=CIFAR_UNROLLED, epochs=2, pretrain_steps=0, forward_steps=6, backward_steps=5,
    lr=2e-3, lr_end=0.0, jacobian_frequency=0.05, jacobian_until=1.0,
)
CIFAR_CONTRACTIVE = replace(
    CIFAR_PAPER, recipe="contractive", epochs=5, gradient="contractive", contraction=Contraction(both=False),
    jacobian_weight=1.0, jacobian_frequency=0.125,
)
# Bai et al.'s own recipe; its random resized crops are padded crops here, as for CIFAR-10.
IMAGENET_PAPER = Train(
    "paper", epochs=100, pretrain_steps=510_000, batch=128, pretrain_layers=5, optimiser="sgd", lr=0.04,
    weight_decay=2e-5, forward_steps=14, backward_steps=14, jacobian_weight=2.5, jacobian_frequency=0.08,
    jacobian_until=1.0,
)
# Six steps, so that each phase of a training has run once at full size. Nothing is learned.
IMAGENET_CHECK = replace(
    IMAGENET_PAPER, epochs=1, pretrain_steps=5, pretrain_layers=1, batch=15, forward_steps=2, backward_steps=2,
    jacobian_frequency=0.0, quality_images=1,
)
# Cohen et al.'s recipe for CIFAR-10, but that the learning rate falls by a cosine, as the DEQs' does, not in steps. An
# explicit network "unrolled" for one layer is the network itself: this is cross-entropy on noisy images and no more.
RESNET_GAUSSIAN = Train(
    "gaussian", epochs=90, pretrain_steps=1_000_000, pretrain_layers=1, batch=400, optimiser="sgd", lr=0.1,
    weight_decay=1e-4, jacobian_frequency=0.0,
)
DIGITS_RESNET = (ResNet("ResNet14", 14), replace(RESNET_GAUSSIAN, epochs=10, batch=48, augment="none"))

PROFILES = {
    p.name: p
    for p in (
        Profile(
            "digits", DIGITS, ((DIGITS_SMALL, DIGITS_PAPER), (DIGITS_LARGE, DIGITS_PAPER)), (0.12, 0.25, 0.5, 1.0),
            paper_methods(batch=450, chains=50, warmup=10, audit=100), "MDEQ-30A", images=25, stride=14, n0=50, n=400,
            baselines=(DIGITS_RESNET,),
        ),
        Profile(
            "cifar10", CIFAR10, ((SMALL, CIFAR_PAPER), (SMALL, CIFAR_CONTRACTIVE)), (0.12, 0.25, 0.5, 1.0),
            paper_methods(batch=50, chains=50, warmup=10, audit=100), "MDEQ-30A", images=50, stride=100, n0=100, n=1_000,
        ),
        Profile(
            "paper", CIFAR10, ((SMALL, PAPER_SMALL), (LARGE, PAPER_LARGE)), (0.12, 0.25, 0.5, 1.0),
            paper_methods(batch=400, chains=400, warmup=10, audit=400), "MDEQ-30A", images=500, stride=20, n0=100, n=10_000,
            baselines=((RESNET110, RESNET_GAUSSIAN),),
        ),
        Profile(  # 500 of the 50,000 validation images
            "imagenet", IMAGENET, ((IMAGENET_SMALL, IMAGENET_PAPER),), (0.25, 0.5, 1.0),
            imagenet_methods(chains=400, warmup=10, audit=400), "MDEQ-14B", images=500, stride=100, n0=100, n=10_000,
            radii=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
        ),
        # Everything that `imagenet` does, at full size of model and image, but on two images with few noisy copies.
        Profile(
            "imagenet_sample", IMAGENET_SAMPLE, ((IMAGENET_SMALL, IMAGENET_CHECK),), (0.5,),
            imagenet_methods(chains=4, warmup=4, audit=2), "MDEQ-14B", images=2, stride=50, n0=2, n=12,
            radii=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0), note="A pipeline check, not a result.",
        ),
        # What the tests run: every stage of `digits`, none of its statistics.
        Profile(
            "smoke", DIGITS, ((DIGITS_SMALL, replace(DIGITS_PAPER, epochs=2, pretrain_steps=10)),), (0.5,),
            paper_methods(batch=100, chains=20, warmup=10, audit=20), "MDEQ-30A", images=4, stride=7, n0=20, n=100,
            baselines=((ResNet("ResNet8", 8), replace(DIGITS_RESNET[1], epochs=1)),),
        ),
    )
}


def get_profile(name: str) -> Profile:
    """The profile of that name; ConfigError if there is none."""
    return pick(name, PROFILES, "profile")


def get_run(profile: str, model: str, sigma: float, recipe: str = "paper") -> Run:
    """The run of a profile with that model, sigma and recipe; ConfigError names what is unknown."""
    p = get_profile(profile)
    check_sigma(sigma)
    pick(model, {r.model.name: r for r in p.every_run}, f"model of profile {profile}")
    pick(recipe, {r.train.recipe: r for r in p.every_run if r.model.name == model}, f"recipe of model {model}")
    runs = {r.sigma: r for r in p.every_run if (r.model.name, r.train.recipe) == (model, recipe)}
    check(float(sigma) in runs, "sigma", sigma, one_of(runs) + f" in profile {profile}")
    return runs[float(sigma)]


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command line the four names that choose a run, as the notebooks have them."""
    parser.add_argument("--profile", default="digits", help=one_of(PROFILES))
    parser.add_argument("--model", default="SMALL")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--recipe", default="paper")


def fingerprint(*settings: object) -> str:
    """Eight hex digits that change with any field of the settings (dataclasses or plain values)."""
    plain = [dataclasses.asdict(s) if dataclasses.is_dataclass(s) else s for s in settings]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]
