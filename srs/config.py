"""What is run: models, training recipes, sampling methods and profiles. Standard library only.

Everything a run depends on is a frozen dataclass here, above the code that it configures. Names from outside
(notebook parameters, command lines, make) enter through `get_profile`, `get_run` and `read_parameters`, which
refuse what they do not know before any work starts.

`python -m srs.config runs digits` prints the ids that make uses as targets.
"""

import argparse
import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path


class ConfigError(ValueError):
    """A setting was refused; the message names the value and what would be right."""


SOLVERS = ("naive", "anderson", "broyden")
STARTS = ("zero", "clean", "previous")
NOISES = ("gaussian", "grid")
GRADIENTS = ("implicit", "phantom", "contractive")
AUGMENTS = ("none", "flips", "crops")


def check(ok: bool, what: str, value: object, right: str) -> None:
    """Raise ConfigError in one sentence unless `ok`."""
    if not ok:
        raise ConfigError(f"{what} = {value!r} is refused: want {right}")


def check_count(value: object, least: int, what: str) -> None:
    """Refuse what is not a whole number of at least `least`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    check(whole and value >= least, what, value, f"a whole number, at least {least}")


def check_sigma(sigma: object) -> None:
    """Refuse what is not a noise level."""
    number = isinstance(sigma, (int, float)) and not isinstance(sigma, bool)
    check(number and 0 < sigma < float("inf"), "sigma", sigma, "a positive noise level in units of [0, 1] pixels")


def one_of(names) -> str:
    """The phrase that lists what would have been right."""
    return "one of " + ", ".join(map(str, names))


def _pick(name: str, table: dict, what: str):
    check(isinstance(name, str) and name in table, what, name, one_of(table))
    return table[name]


@dataclass(frozen=True)
class Data:
    """A data set: where its images come from and how they are normalised inside the model."""

    name: str
    shape: tuple[int, int, int]  # (channels, height, width) of one image, pixels in [0, 1]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    levels: int = 255  # pixels are multiples of 1/levels; what grid noise needs


DIGITS = Data("digits", (1, 8, 8), 10, (0.3053,), (0.3763,), levels=16)
CIFAR10 = Data("cifar10", (3, 32, 32), 10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))  # as released
IMAGENET = Data("imagenet", (3, 224, 224), 1000, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DATASETS = {d.name: d for d in (DIGITS, CIFAR10, IMAGENET)}


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

    def method(self, name: str) -> Method:
        """The method of that name; ConfigError if there is none."""
        return _pick(name, {m.name: m for m in self.methods}, "method")


@dataclass(frozen=True)
class Run:
    """One trained model: a size, a recipe and a noise level within a profile."""

    profile: Profile
    model: Model
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


# The paper's sizes; parameters counted in tests: 0.25 M and 11.1 M.
SMALL = Model("SMALL", (8, 16, 32), (7, 14, 28), 200, dropout=0.20)
LARGE = Model("LARGE", (32, 64, 128, 256), (14, 28, 56, 112), 1680, dropout=0.22)
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

PROFILES = {
    p.name: p
    for p in (
        Profile(
            "digits", DIGITS, ((DIGITS_SMALL, DIGITS_PAPER), (DIGITS_LARGE, DIGITS_PAPER)), (0.12, 0.25, 0.5, 1.0),
            paper_methods(batch=450, chains=50, warmup=10, audit=100), "MDEQ-30A", images=25, stride=14, n0=50, n=400,
        ),
        Profile(
            "cifar10", CIFAR10, ((SMALL, CIFAR_PAPER), (SMALL, CIFAR_CONTRACTIVE)), (0.12, 0.25, 0.5, 1.0),
            paper_methods(batch=50, chains=50, warmup=10, audit=100), "MDEQ-30A", images=50, stride=100, n0=100, n=1_000,
        ),
        Profile(
            "paper", CIFAR10, ((SMALL, PAPER_SMALL), (LARGE, PAPER_LARGE)), (0.12, 0.25, 0.5, 1.0),
            paper_methods(batch=400, chains=400, warmup=10, audit=400), "MDEQ-30A", images=500, stride=20, n0=100, n=10_000,
        ),
        # What the tests run: every stage of `digits`, none of its statistics.
        Profile(
            "smoke", DIGITS, ((DIGITS_SMALL, replace(DIGITS_PAPER, epochs=2, pretrain_steps=10)),), (0.5,),
            paper_methods(batch=100, chains=20, warmup=10, audit=20), "MDEQ-30A", images=4, stride=7, n0=20, n=100,
        ),
    )
}


def get_profile(name: str) -> Profile:
    """The profile of that name; ConfigError if there is none."""
    return _pick(name, PROFILES, "profile")


def get_run(profile: str, model: str, sigma: float, recipe: str = "paper") -> Run:
    """The run of a profile with that model, sigma and recipe; ConfigError names what is unknown."""
    p = get_profile(profile)
    check_sigma(sigma)
    _pick(model, {r.model.name: r for r in p.runs}, f"model of profile {profile}")
    _pick(recipe, {r.train.recipe: r for r in p.runs if r.model.name == model}, f"recipe of model {model}")
    runs = {r.sigma: r for r in p.runs if (r.model.name, r.train.recipe) == (model, recipe)}
    check(float(sigma) in runs, "sigma", sigma, one_of(runs) + f" in profile {profile}")
    return runs[float(sigma)]


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command line the four names that choose a run, as the notebooks have them."""
    parser.add_argument("--profile", default="digits", help=one_of(PROFILES))
    parser.add_argument("--model", default="SMALL")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--recipe", default="paper")


def read_parameters(namespace: dict, **types: type) -> None:
    """Check a notebook's parameters: papermill only warns of an unknown name and never looks at types.

    Args:
        namespace: the notebook's `globals()`, in its first code cell after the parameters.
        types: the type of each parameter that the notebook has; int passes for float.

    Raises:
        ConfigError: a plain value under another name, a missing parameter or one of another type.
    """
    ipython = {"In", "Out", "exit", "quit", "get_ipython", "open"}
    plain = (str, int, float, bool, list, tuple, dict, type(None))
    given = {k: v for k, v in namespace.items() if not k.startswith("_") and k not in ipython and isinstance(v, plain)}
    for name, value in given.items():
        check(name in types, "parameter", name, one_of(types))
        want = (int, float) if types[name] is float else types[name]
        right = isinstance(value, want) and (types[name] is bool or not isinstance(value, bool))
        check(right, name, value, f"a {types[name].__name__}")
    for name in types:
        check(name in given, "parameters", sorted(given), f"{name} among them")


def fingerprint(*settings: object) -> str:
    """Eight hex digits that change with any field of the settings (dataclasses or plain values)."""
    plain = [dataclasses.asdict(s) if dataclasses.is_dataclass(s) else s for s in settings]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]


def write_stamps(profile: Profile) -> None:
    """Write what a run is trained and certified with to files for make, touching only those whose content changed."""
    root = Path(os.environ.get("SRS_ROOT") or Path(__file__).resolve().parents[1])
    folder = root / "data" / profile.name / "settings"
    folder.mkdir(parents=True, exist_ok=True)
    for run in profile.runs:
        settings = dataclasses.asdict(run)
        certify = settings.pop("profile")
        training = settings | {"data": certify["data"], "seed": certify["seed"]}
        sampling = {k: v for k, v in certify.items() if k not in ("models", "sigmas", "radii")}
        for kind, content in (("train", training), ("certify", sampling)):
            path, text = folder / f"{run.id}.{kind}.json", json.dumps(content, indent=1) + "\n"
            if not path.is_file() or path.read_text() != text:
                path.write_text(text)


def main() -> None:
    """Print what make needs to know of a profile."""
    parser = argparse.ArgumentParser(prog="python -m srs.config", description=main.__doc__)
    parser.add_argument("what", choices=["profiles", "runs", "stamps"])
    parser.add_argument("profile", nargs="?", default="digits")
    args = parser.parse_args()
    try:
        profile = get_profile(args.profile)
    except ConfigError as error:
        parser.error(str(error))
    if args.what == "profiles":
        print(*PROFILES)
    elif args.what == "runs":
        print(*(run.id for run in profile.runs))
    else:
        write_stamps(profile)


if __name__ == "__main__":
    main()
