"""What a model card reports of a trained network, and the mean solution that solvers may start from."""

import torch
from torch import Tensor

from srs import data, settings
from srs.deq import inference, mdeq
from srs.deq.solvers import relative_residual, SOLVERS

QUALITY_STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 30)  # where a model card reports residual and agreement
QUALITY_IMAGES = 1_000  # noisy images of the validation and test splits that residual and agreement are measured on
ACCURACY_IMAGES = 5_000  # and those that noisy accuracy is: it moves by 1.4 points (two standard errors) among so many
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
        noisy = x + run.sigma * torch.randn(x.shape, generator=generator)
        total = total + _solve(model, noisy.to(device), run)[0].sum(dim=0)
    return total.cpu() / len(some)


@torch.no_grad()
def measure_quality(model: mdeq.MDEQ, run: settings.Run, device: str) -> dict:
    """What a model card reports: clean and noisy accuracy, and residual and agreement against solver steps."""
    quality, steps = {}, quality_steps(run)
    model = inference.fold(model)
    for split in ("val", "test"):
        images = data.load(run.profile.data, split)
        every = _some(len(images.labels), run.profile.card_images or ACCURACY_IMAGES)
        traced = every[:: max(1, len(every) // QUALITY_IMAGES)]
        generator = torch.Generator().manual_seed(seed_of(run, "quality", 0))
        noisy_right, clean_right, residuals, same = 0, 0, [], []
        for part in every.split(100):
            x, y = images.x(part).to(device), images.labels[part].to(device)
            noisy = x + run.sigma * torch.randn(x.shape, generator=generator).to(device)
            noisy_right += int((model.head(_solve(model, noisy, run)[0]).argmax(1) == y).sum())
            own = torch.isin(part, traced).to(device)
            clean_right += int((model.head(_solve(model, x[own], run)[0]).argmax(1) == y[own]).sum())
            classes, found = _trace(model, noisy[own], run)
            residuals.append(found)
            same.append(torch.stack([c == classes[-1] for c in classes]).float().sum(1))
        residual = torch.cat(residuals, dim=1).mean(dim=1)
        agreement = torch.stack(same).sum(0) / len(traced)
        quality[split] = {
            "accuracy_images": len(every), "quality_images": len(traced),
            "clean_accuracy": clean_right / len(traced), "noisy_accuracy": noisy_right / len(every),
            "residual": dict(zip(map(str, steps), residual.tolist())),
            "agreement": dict(zip(map(str, steps), agreement.tolist())),
        }
    return {**quality["test"], "validation": quality["val"]}


def quality_steps(run: settings.Run) -> tuple[int, ...]:
    """Where the run's model card reports residual and agreement: QUALITY_STEPS as far as the full solve goes, and its end."""
    full = run.profile.method(run.profile.reference).steps
    return (*(k for k in QUALITY_STEPS if k < full), full)


def _some(count: int, most: int) -> Tensor:
    """At most so many positions of `count`, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most)).long()


def _trace(model: mdeq.DEQ, x: Tensor, run: settings.Run) -> tuple[list[Tensor], Tensor]:
    """Classes (B,) after each of `quality_steps` of one full solve from zero, and the residuals (steps, B) there."""
    u, classes, residuals, steps = model.inject(x), [], [], quality_steps(run)

    def look(step: int, active: Tensor, z: Tensor) -> Tensor:
        if step + 1 in steps:
            classes.append(model.head(z).argmax(dim=1))
            residuals.append(relative_residual(z, model.f(z, u)))
        return torch.zeros_like(active, dtype=torch.bool)

    full = run.profile.method(run.profile.reference)
    SOLVERS[full.solver](model.f, model.initial(u), u, max_steps=full.steps, decided=look)
    return classes, torch.stack(residuals)


def _solve(model: mdeq.DEQ, x: Tensor, run: settings.Run) -> tuple[Tensor, Tensor]:
    u, full = model.inject(x), run.profile.method(run.profile.reference)
    return SOLVERS[full.solver](model.f, model.initial(u), u, max_steps=full.steps, tol=full.tol).z, u


def seed_of(run: settings.Run, phase: str, epoch: int) -> int:
    """The seed of one epoch of one of `PHASES`: the profile's seed gives no two of them the same one."""
    return (run.profile.seed * len(PHASES) + PHASES[phase]) * 100_000 + epoch
