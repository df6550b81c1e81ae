"""What can be set: frozen dataclasses that refuse what makes no sense, in one sentence. Standard library only."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, replace
from numbers import Integral


class ConfigError(ValueError):
    """A setting was refused; the message names the value and what would be right."""


ABSTAIN = -1  # the class of a vote or a certificate that names none
SOLVERS = ("naive", "anderson", "safe_anderson", "broyden", "anderson_as_released")
FIXED_STARTS = ("clean", "pilot_mean", "corrected_pilot_mean", "train_mean")  # one state for every copy of an image
STARTS = ("zero", "previous", *FIXED_STARTS)


def check(ok: bool, what: str, value: object, right: str) -> None:
    """Raise ConfigError in one sentence unless `ok`."""
    if not ok:
        raise ConfigError(f"{what} = {value!r} is refused: want {right}")


def plain(value: object) -> object:
    """Python's own number for numpy's, with the digits that it shows: np.float32(0.12) is 0.12."""
    if type(value).__module__ != "numpy" or getattr(value, "ndim", 1):
        return value
    return float(str(value)) if isinstance(value.item(), float) else value.item()


def check_count(value: object, least: int, what: str) -> None:
    """Refuse what is not a whole number of at least `least`."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    check(whole and value >= least, what, value, f"a whole number, at least {least}")


def check_sigma(sigma: object) -> float:
    """The noise level as a plain number; refuses what is none."""
    sigma = plain(sigma)
    number = isinstance(sigma, (int, float)) and not isinstance(sigma, bool)
    check(number and 0 < sigma < float("inf"), "sigma", sigma, "a positive noise level in units of [0, 1] pixels")
    return float(sigma)


def one_of(names) -> str:
    """The phrase that lists what would have been right."""
    return "one of " + ", ".join(map(str, names))


def pick(name: str, table: dict, what: str):
    """The entry of that name; ConfigError lists what there is."""
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

    name: str
    depth: int  # 6 n + 2: a convolution, three stages of n blocks of two, a linear layer
    widths: tuple[int, int, int] = (16, 32, 64)


@dataclass(frozen=True)
class PathIndependence:
    """How a DEQ learns path independence (Anil et al. 2022): any start, any number of evaluations, then two that must agree."""

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
    init_from: "Train | None" = None  # the recipe whose weights this one begins with; None: random weights
    init_sigma: float | None = None  # the noise level of those weights; None: this one's own
    batch: int = 96
    pretrain_layers: int = 8
    optimiser: str = "adam"
    lr: float = 1e-3
    lr_end: float = 0.0  # the learning rate falls to this by a cosine
    weight_decay: float = 0.0
    clip: float = 0.0  # largest norm of a gradient; 0: as it comes
    forward_steps: int = 8  # Broyden
    backward_steps: int = 7
    gradient: str = "implicit"  # or "path_independent": see `path_independence`
    path_independence: PathIndependence = PathIndependence()
    jacobian_weight: float = 0.5
    jacobian_frequency: float = 0.05
    jacobian_until: float = 0.75  # share of the epochs after which the penalty stops (90 of 120)
    augment: str = "crops"  # flips and padded crops, "flips" alone, or "none" for digits, which have a handedness
    dropout: float | None = None  # instead of the model's own
    consistency: float = 0.0  # weight of `losses.disagreement` of two noisy copies of each image; 0: one copy, without it
    ema: float = 0.0  # the weights kept are their running mean, which this much of is left after a step; 0: the last ones


@dataclass(frozen=True)
class Method:
    """How votes are drawn: standard RS (start `zero`) or SRS (a start from an earlier solution)."""

    name: str
    solver: str
    steps: int  # evaluations of f per vote; the released code spends two more for the same answer
    start: str = "zero"
    batch: int = 400  # noisy copies solved together; with start `previous` it is the number of chains
    warmup: int = 0  # solver steps of the first batch of `previous`, or of the pilot of `pilot_mean` and `corrected_pilot_mean`
    audit: int = 0  # K: votes that are solved again by the standard DEQ
    tol: float = 0.0  # a sample is solved when its relative residual is at most this; 0: after `steps`
    margin: float = 0.0  # ... or when its class is unchanged and leads by this much in probability; 0: never
    pilot: int = 16  # noisy copies whose mean solution is the start `pilot_mean` or `corrected_pilot_mean`
    head: str | None = None  # what the head's products are rounded to, "bfloat16"; None: as its weights are
    auditor: "Method | None" = None  # solves audited votes again; its classifier is certified; None: the sampling's reference

    def __post_init__(self):
        check(self.solver in SOLVERS, "solver", self.solver, one_of(SOLVERS))
        check(self.start in STARTS, "start", self.start, one_of(STARTS))
        check(self.head in (None, "bfloat16"), f"head of {self.name}", self.head, "bfloat16 or None")
        warmup = 1 if self.start in ("pilot_mean", "corrected_pilot_mean") else 0
        for what, least in (("steps", 1), ("batch", 1), ("warmup", warmup), ("audit", 0), ("pilot", 1)):
            check_count(getattr(self, what), least, f"{what} of {self.name}")
        for what in ("tol", "margin"):
            check(0 <= getattr(self, what) < 1, f"{what} of {self.name}", getattr(self, what), "a number from 0 to below 1")
        if self.auditor is not None:
            check_standard(self.auditor, f"auditor of {self.name}")

    @property
    def needs_audit(self) -> bool:
        """Whether the start depends on the image, so that a certificate needs an audit."""
        return self.start not in ("zero", "train_mean")

    @property
    def pilot_nfe(self) -> int:
        """Evaluations of f that the pilot of one image costs."""
        return self.pilot * {"pilot_mean": self.warmup, "corrected_pilot_mean": self.warmup + self.steps}.get(self.start, 0)


def check_standard(method: Method, what: str) -> None:
    """Refuse what votes are not audited by: a solve whose answer depends on anything but the copy, or needs an audit itself."""
    # The model's owner chooses its training mean: audited from there, votes that start there always agree.
    check(method.start == "zero" and method.auditor is None, what, method.name, "one that starts from zero, without an auditor")


STOP = Method("RS-tol", "safe_anderson", 30, tol=0.003)  # each sample stops at its own residual: the usual auditor


@dataclass(frozen=True)
class Stop:
    """When an image has votes enough: once each of these radii is decided, and the radius is nearly that of all N votes."""

    radii: tuple[float, ...]  # in units of [0, 1] pixels
    alpha: float = 0.001  # failure probability of the certificate, whenever it stops
    missed: float = 0.001  # a radius is given up once all N votes would certify it with at most this probability
    keep: float = 0.0  # share of the radius of N votes, of which as many are for c_A as now, at which to stop; 0: any


@dataclass(frozen=True)
class Sampling:
    """How much is sampled of each image, and what serialized votes are audited by."""

    classes: int
    n0: int = 100  # samples that select c_A
    n: int = 10_000  # samples that estimate p_A, at most
    seed: int = 0
    reference: Method = STOP  # solves audited votes again, unless their method has an auditor of its own
    noise: str = "gaussian"  # floating point; "grid": exact on the pixels' own grid, see smoothing.exact
    levels: int = 255  # of the grid
    stop: Stop | None = None  # of votes that need no audit; None: n of them for every image

    def __post_init__(self):
        for what, least in (("n0", 1), ("n", 1), ("classes", 2)):
            check_count(getattr(self, what), least, what)
        check(self.classes <= 2**15, "classes", self.classes, "at most 32,768: votes are stored in 16 bits")
        check_standard(self.reference, "reference method")
        check(self.noise in ("gaussian", "grid"), "noise", self.noise, "gaussian or grid")

    def n_max(self, method: Method) -> int:
        """The most votes of an image that stops once its radii are decided; 0 where all images have n votes."""
        return self.n if self.stop and not method.needs_audit else 0

    def check_method(self, method: Method) -> None:
        """Refuse an audit that is larger than the sample, and votes or an audit by a solve that stops a batch at once."""
        check(method.audit <= self.n, "K", method.audit, f"at most n = {self.n} audited samples ({method.name})")
        for m in (method, method.auditor or self.reference):
            right = "0: this solver stops a batch at its worst sample, so votes would depend"
            check(m.solver != "anderson_as_released" or m.tol == 0, f"tol of {m.name}", m.tol, right)


EXPLICIT = Method("RS", "naive", 1)  # how an explicit network votes: one pass solves it from any start; see deq.resnet


@dataclass(frozen=True)
class Run:
    """One trained model of a profile, and what is drawn of it where that is not what the profile says."""

    model: Model | ResNet
    train: Train
    sigma: float
    methods: tuple[Method, ...] = ()  # empty: the profile's
    images: int = 0  # so many of the profile's, evenly spread, as test images may lie sorted by class; 0: all of them
    profile: "Profile | None" = None  # as this run draws it: with its methods and images; `Profile.runs` sets it

    @property
    def id(self) -> str:
        """The name under which this run's artefacts lie."""
        return f"{self.model.name}-s{self.sigma:.2f}-{self.train.recipe}"

    @property
    def parent(self) -> "Run | None":
        """The run whose weights this one begins with; None if they are random."""
        return self.train.init_from and replace(self, train=self.train.init_from, sigma=self.train.init_sigma or self.sigma)


@dataclass(frozen=True)
class Profile:
    """A whole experiment: data, trained models, methods and sample sizes."""

    name: str
    data: Data
    plan: tuple[Run, ...]  # what is trained and certified; see `runs`
    methods: tuple[Method, ...]
    reference: str  # the method whose votes all others are compared with
    images: int  # evaluated test images
    stride: int  # every stride-th test image
    n0: int
    n: int
    alpha: float = 0.001
    seed: int = 0
    radii: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    noise: str = "gaussian"
    adaptive: bool = False  # whether an image without an audit stops as soon as each of the radii is decided
    attacks: object = None  # an attacks.settings.Suite: what notebook 33 tries; None: nothing
    published: bool = False  # whether these are the paper's own settings
    trains_more: bool = True  # whether ablations and white-box attacks train models of their own; a CPU may take hours
    ablation_images: int | None = None  # that ablations draw votes for, with models trained short; None: all; 0: none are drawn
    card_images: int | None = None  # that model card and training mean are measured on, instead of training.train's own numbers
    note: str = ""  # opens every caption

    def __post_init__(self):
        check(0 < self.alpha < 1, "alpha", self.alpha, "a failure probability strictly between 0 and 1")
        check(self.images >= 1, "images", self.images, "at least 1 image")
        self.method(self.reference)
        for m in self.methods:
            self.sampling.check_method(m)
            own = m.auditor in (None, *self.methods)  # its votes on all copies say how many of the method's are wrong
            check(own, f"auditor of {m.name}", m.auditor and m.auditor.name, "a method of the profile")

    @property
    def sampling(self) -> Sampling:
        """What is sampled of each image."""
        stop, reference = Stop(self.radii, self.alpha) if self.adaptive else None, self.method(self.reference)
        return Sampling(self.data.classes, self.n0, self.n, self.seed, reference, self.noise, self.data.levels, stop)

    @property
    def evaluated(self) -> tuple[int, ...]:
        """Positions in the test split of the images that are certified."""
        return tuple(range(0, self.images * self.stride, self.stride))

    @property
    def every_run(self) -> tuple[Run, ...]:
        """Every trained model of the profile, explicit networks last."""
        return self.runs + self.explicit

    @property
    def runs(self) -> tuple[Run, ...]:
        """The DEQs, small models first."""
        return tuple(self._with(run) for run in self.plan if isinstance(run.model, Model))

    @property
    def explicit(self) -> tuple[Run, ...]:
        """The explicit networks, for comparison."""
        return tuple(self._with(run) for run in self.plan if isinstance(run.model, ResNet))

    def _with(self, run: Run) -> Run:
        own = {"methods": run.methods} if run.methods else {}
        if run.images:
            check(self.images % run.images == 0, f"images of {run.id}", run.images, f"a divisor of {self.images}")
            own |= {"images": run.images, "stride": self.stride * self.images // run.images}
        if isinstance(run.model, ResNet) and self.reference != EXPLICIT.name:
            own = {"methods": (replace(EXPLICIT, batch=self.method(self.reference).batch),), "reference": EXPLICIT.name}
        bare = replace(run, methods=(), images=0)
        return replace(bare, profile=replace(self, plan=(bare,), **own) if own else self)

    def method(self, name: str) -> Method:
        """The method of that name; ConfigError if there is none."""
        return pick(name, {m.name: m for m in self.methods}, "method")


def fingerprint(*settings: object) -> str:
    """Eight hex digits that change with any field of the settings (dataclasses or plain values)."""
    values = [dataclasses.asdict(s) if dataclasses.is_dataclass(s) else s for s in settings]
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=plain).encode()).hexdigest()[:8]
