"""What a model card reports of a trained network, and the mean solution that solvers may start from."""

import torch
from torch import Tensor

from srs import data, settings
from srs.deq import inference, mdeq
from srs.deq.solvers import relative_residual, SOLVERS

QUALITY_STEPS = (1, 2, 3, 4, 5, 6, 8, 10)  # where a model card reports residual and agreement, besides the full solve's end
QUALITY_IMAGES = 1_000  # of the validation and of the test images, that all but noisy accuracy is measured on
ACCURACY_IMAGES = 5_000  # and those that noisy accuracy is: it moves by 1.4 points (two standard errors) among so many
MEAN_IMAGES = 250  # noisy training images whose mean solution is the start `train_mean`
PHASES = {"train": 0, "quality": 1, "train_mean": 2}


@torch.no_grad()
def mean_solution(model: mdeq.MDEQ, run: settings.Run, images: data.Images, device: str) -> Tensor:
    """The mean solution (D,) over noisy training images: a start that depends on no image that is certified."""
    some = _some(len(images.labels), run.profile.card_images or MEAN_IMAGES)
    generator = torch.Generator().manual_seed(seed_of(run, "train_mean", 0))
    total = 0.0
    for part in some.split(100):
        x = images.x(part)
        u = model.inject((x + run.sigma * torch.randn(x.shape, generator=generator)).to(device))
        total = total + _solve(model, u, run).sum(dim=0)
    return total.cpu() / len(some)


@torch.no_grad()
def measure_quality(model: mdeq.MDEQ, run: settings.Run, device: str) -> dict:
    """What a card reports of test and validation images: clean and noisy accuracy; residual and agreement by solver steps.

    Agreement is the share of noisy images to which so many steps from zero give the class of the full solve.
    """
    model, full, quality = inference.prepare(model), run.profile.method(run.profile.reference).steps, {}
    steps = (*(k for k in QUALITY_STEPS if k < full), full)
    for split in ("val", "test"):
        images = data.load(run.profile.data, split)
        every = _some(len(images.labels), run.profile.card_images or ACCURACY_IMAGES)
        traced = every[:: max(1, len(every) // QUALITY_IMAGES)]
        generator = torch.Generator().manual_seed(seed_of(run, "quality", 0))
        right, parts = 0, []
        for part in every.split(100):
            x, y, own = images.x(part).to(device), images.labels[part].to(device), torch.isin(part, traced).to(device)
            u = model.inject(x + run.sigma * torch.randn(x.shape, generator=generator).to(device))
            right += int((model.head(_solve(model, u, run)).argmax(dim=1) == y).sum())
            clean, u = model.head(_solve(model, model.inject(x[own]), run)).argmax(dim=1), u[own]
            states = [_solve(model, u, run, k) for k in steps]
            residuals, classes = zip(*((relative_residual(z, model.f(z, u)), model.head(z).argmax(dim=1)) for z in states))
            parts.append(torch.stack([clean == y[own], *residuals, *(given == classes[-1] for given in classes)]))
        clean, *rest = torch.cat(parts, dim=1).mean(dim=1).tolist()
        residual, agreement = (dict(zip(map(str, steps), part)) for part in (rest[: len(steps)], rest[len(steps) :]))
        quality[split] = {
            "accuracy_images": len(every), "quality_images": len(traced), "clean_accuracy": clean,
            "noisy_accuracy": right / len(every), "residual": residual, "agreement": agreement,
        }  # fmt: skip
    return quality["test"] | {"validation": quality["val"]}


def _some(count: int, most: int) -> Tensor:
    """At most so many positions of `count`, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most)).long()


def _solve(model: mdeq.DEQ, u: Tensor, run: settings.Run, steps: int | None = None) -> Tensor:
    full = run.profile.method(run.profile.reference)
    return SOLVERS[full.solver](model.f, model.initial(u), u, max_steps=steps or full.steps, tol=full.tol).z


def seed_of(run: settings.Run, phase: str, epoch: int) -> int:
    """The seed of one epoch of one of `PHASES`: the profile's seed gives no two of them the same one."""
    return (run.profile.seed * len(PHASES) + PHASES[phase]) * 100_000 + epoch
