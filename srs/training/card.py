"""What a model card reports of a trained network, and the mean solution that solvers may start from."""

import torch
from torch import Tensor

from srs import data, settings
from srs.deq import inference, mdeq
from srs.deq.solvers import relative_residual, SOLVERS

QUALITY_STEPS = (1, 5, 10)  # where a model card reports residual and agreement, besides the end of the full solve
QUALITY_IMAGES = 2_000  # test images that a card is measured on: accuracy moves by 2 points (two standard errors) among so many
ANCHOR_IMAGES = 250  # noisy training images whose mean solution is the start `anchor`
PHASES = {"train": 0, "quality": 1, "anchor": 2}


@torch.no_grad()
def mean_solution(model: mdeq.MDEQ, run: settings.Run, images: data.Images, device: str) -> Tensor:
    """The mean solution (D,) over noisy training images: a start that depends on no image that is certified."""
    some = _some(len(images.labels), run.profile.card_images or ANCHOR_IMAGES)
    generator = torch.Generator().manual_seed(seed_of(run, "anchor", 0))
    total = 0.0
    for part in some.split(100):
        x = images.x(part)
        u = model.inject((x + run.sigma * torch.randn(x.shape, generator=generator)).to(device))
        total = total + _solve(model, u, run).sum(dim=0)
    return total.cpu() / len(some)


@torch.no_grad()
def measure_quality(model: mdeq.MDEQ, run: settings.Run, device: str) -> dict:
    """What a card reports of test images: clean and noisy accuracy; of noisy ones, residual and agreement by solver steps.

    Agreement is the share of images to which so many steps from zero give the class of the full solve.
    """
    model, images = inference.prepare(model), data.load(run.profile.data, "test")
    full = run.profile.method(run.profile.reference).steps
    steps, parts = (*(k for k in QUALITY_STEPS if k < full), full), []
    generator = torch.Generator().manual_seed(seed_of(run, "quality", 0))
    for part in _some(len(images.labels), run.profile.card_images or QUALITY_IMAGES).split(100):
        x, y = images.x(part).to(device), images.labels[part].to(device)
        clean = model.head(_solve(model, model.inject(x), run)).argmax(dim=1)
        u = model.inject(x + run.sigma * torch.randn(x.shape, generator=generator).to(device))
        states = [_solve(model, u, run, k) for k in steps]
        noisy = [model.head(z).argmax(dim=1) for z in states]
        residuals = [relative_residual(z, model.f(z, u)) for z in states]
        parts.append(torch.stack([clean == y, noisy[-1] == y, *residuals, *(classes == noisy[-1] for classes in noisy)]))
    names = [str(k) for k in steps]
    clean, noisy, *rest = torch.cat(parts, dim=1).mean(dim=1).tolist()
    residual, agreement = (dict(zip(names, part)) for part in (rest[: len(steps)], rest[len(steps) :]))
    return {"clean_accuracy": clean, "noisy_accuracy": noisy, "residual": residual, "agreement": agreement}


def _some(count: int, most: int) -> Tensor:
    """At most so many positions of `count`, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most)).long()


def _solve(model: mdeq.DEQ, u: Tensor, run: settings.Run, steps: int | None = None) -> Tensor:
    full = run.profile.method(run.profile.reference)
    return SOLVERS[full.solver](model.f, model.initial(u), u, max_steps=steps or full.steps, tol=full.tol).z


def seed_of(run: settings.Run, phase: str, epoch: int) -> int:
    """The seed of one epoch of one of `PHASES`: the profile's seed gives no two of them the same one."""
    return (run.profile.seed * len(PHASES) + PHASES[phase]) * 100_000 + epoch
