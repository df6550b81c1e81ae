"""Problems with known fixed points, and a DEQ so small that all it should answer is known."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from srs import data, profiles, settings, store
from srs.deq import checkpoints, mdeq
from srs.deq.solvers import fixed_point
from srs.smoothing import certify

TINY = settings.Model("SMALL", (8, 16), (2, 4), 16, dropout=0.1, expansion=1)  # an MDEQ of which nothing is asked but speed


@dataclass(frozen=True)
class Problem:
    """A fixed-point problem z = f(z, u) in float64 with its solution (B, D); solvers start from z0."""

    name: str
    f: Callable[[Tensor, Tensor], Tensor]
    u: Tensor
    solution: Tensor

    @property
    def z0(self) -> Tensor:
        return torch.zeros_like(self.solution)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def _contraction(d: int, norm: float) -> Tensor:
    a = torch.randn(d, d, dtype=torch.float64, generator=_generator())
    return norm * a / torch.linalg.matrix_norm(a, 2)


def _linear(name: str, a: Tensor, batch: int) -> Problem:
    """z = A z + u, solved in closed form."""
    u = torch.randn(batch, len(a), dtype=torch.float64, generator=_generator())
    return Problem(name, lambda z, u: z @ a.mT + u, u, torch.linalg.solve(torch.eye(len(a)) - a, u.mT).mT)


def _tanh(w: Tensor, batch: int) -> Problem:
    """z = tanh(W z + u), u an image; iterated in advance until nothing changes."""
    u = torch.randn(batch, len(w) // 2, 2, dtype=torch.float64, generator=_generator())
    z = u.flatten(1).tanh()
    for _ in range(300):
        z = torch.tanh(z @ w.mT + u.flatten(1))
    return Problem("tanh", lambda z, u: torch.tanh(z @ w.mT + u.flatten(1)), u, z)


def difficulties(rates: tuple[float, ...] = (0.0, 0.3, 0.6, 0.8, 0.9), d: int = 3) -> Problem:
    """Every sample contracts at a rate of its own: z = rate z + (1 - rate) t, solved by t."""
    rate = torch.tensor(rates, dtype=torch.float64)[:, None]
    t = torch.randn(len(rates), d, dtype=torch.float64, generator=_generator())
    return Problem("difficulties", lambda z, u: u[:, :1] * z + (1 - u[:, :1]) * u[:, 1:], torch.cat([rate, t], 1), t)


TURN = 0.9 * torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)  # no real eigenvalue: slow for the naive iteration
PROBLEMS = (_linear("linear", _contraction(12, 0.7), 5), _linear("rotation", TURN, 4), _tanh(_contraction(10, 0.8), 6))
PROBLEMS = {p.name: p for p in (*PROBLEMS, difficulties())}


class LinearDEQ:
    """f(z, u) = rate z + (1 - rate) u: the fixed point is the image itself, and logits are linear in it."""

    def __init__(self, weight: Tensor, bias: Tensor, rate: float = 0.0):
        self.weight, self.bias, self.rate = weight, bias, rate
        self.evaluations, self.calls = 0, []  # (z, u) of every evaluation of f

    def inject(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def initial(self, u: Tensor) -> Tensor:
        return torch.zeros_like(u)

    def f(self, z: Tensor, u: Tensor) -> Tensor:
        self.evaluations += len(z)
        self.calls.append((z.clone(), u.clone()))
        return self.rate * z + (1 - self.rate) * u

    def head(self, z: Tensor) -> Tensor:
        return z @ self.weight.mT + self.bias


def three_classes(rate: float = 0.0) -> LinearDEQ:
    """A LinearDEQ on 1x2x2 images with three classes that noise confuses."""
    weight = torch.tensor([[1.0, -1.0, 0.5, 0.0], [-1.0, 1.0, 0.0, 0.5], [0.3, 0.3, -1.0, -1.0]])
    return LinearDEQ(weight, torch.tensor([0.2, 0.0, 0.4]), rate)


def at_sigmas(profile: settings.Profile, *sigmas: float) -> settings.Profile:
    """A profile with its models at these noise levels, in the place of its first one's."""
    first = [run for run in profile.plan if run.sigma == profile.plan[0].sigma]
    return replace(profile, plan=tuple(replace(run, sigma=sigma) for run in first for sigma in sigmas))


def smoke_run(sigma: float = 0.5, **profile: object) -> settings.Run:
    """The run of the profile `smoke`, with some of the profile's fields changed."""
    return at_sigmas(replace(profiles.PROFILES["smoke"], **profile), sigma).runs[0]


def digits(count: int) -> tuple[Tensor, Tensor]:
    """The first training digits and their labels."""
    images = data.load(profiles.DIGITS, "train")
    return images.x(slice(0, count)), images.labels[:count]


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Train on 96 images."""
    load = functools.cache(data.load)

    def few(which: settings.Data, split: str) -> data.Images:
        images = load(which, split)
        return images._replace(pixels=images.pixels[:96], labels=images.labels[:96])

    patch.setattr(data, "load", few)


def save_untrained(run: settings.Run, seed: int = 0) -> mdeq.MDEQ:
    """Put an untrained model that gives many different votes where a run's weights belong."""
    model = mdeq.build(run.model, run.profile.data, seed).eval()
    with torch.no_grad():  # kernels start so small that all images look alike to the head
        for name, value in model.named_parameters():
            if name.endswith("weight") and value.dim() == 4:
                value.normal_(0, value[0].numel() ** -0.5, generator=_generator())
        u = model.inject(digits(64)[0])
        logits = model.head(fixed_point(model.f, model.initial(u), u, max_steps=5).z)
        model.classifier.weight /= logits.std()
        model.classifier.bias -= logits.mean(0) / logits.std()
    checkpoints.save_tensors(model.state_dict(), store.own(run, store.WEIGHTS))
    return model


@contextmanager
def untrained_root(factory: pytest.TempPathFactory, run: settings.Run, methods: tuple[str, ...] = ()) -> Iterator[Path]:
    """SRS_ROOT is a new folder that holds an untrained model of `run`, certified under some methods, until the block ends."""
    root = factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRS_ROOT", str(root))
        save_untrained(run)
        if methods:
            certify.certify(run, methods=methods, progress=False)
        yield root


def killed_after(count: int, patch: pytest.MonkeyPatch, module: object, name: str) -> list:
    """Let a function that writes a file be killed once it has written so many; gives their paths."""
    write, written = getattr(module, name), []

    def killed(path: Path, content: object) -> None:
        if len(written) == count:
            raise KeyboardInterrupt
        write(path, content)
        written.append(path)

    patch.setattr(module, name, killed)
    return written


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def comes_true(true: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether something comes true within so many seconds."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()
