"""Training a DEQ on noisy images so that it can be smoothed (Cohen et al. 2019), with the paper's recipe.

First f is unrolled a few times from zero; then z* comes from Broyden's method without gradient, and the gradient
from the implicit function theorem, solved the same way. A Jacobian penalty (Bai et al. 2021) keeps f easy to solve.

`python -m srs.train --profile digits --model SMALL --sigma 0.5`
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from srs import config, data, models, paths, results
from srs.solvers import SOLVERS, broyden, relative_residual

QUALITY_STEPS = (1, 3, 5, 10, 30)  # where a model card reports residual and agreement
QUALITY_IMAGES = 400  # noisy images of the validation and test splits that a card is measured on
PHASES = {"train": 0, "quality": 1}


def train(run: config.Run, *, device: str = "cpu", progress: bool = True, stop_after: int | None = None) -> Path:
    """Train a run's model and write weights and model card; resumes where an earlier call was killed.

    A training that is done is not repeated unless its settings or the code that it runs have changed since.

    Every epoch draws its order, noise and dropout from a seed of its own, so a resumed training ends with the
    same weights as an unbroken one.

    Args:
        run: what to train.
        device: a torch device.
        progress: whether to show a progress bar.
        stop_after: end after this many epochs of this call, with a checkpoint and no weights (for long runs).

    Returns:
        The path of the weights (not yet there after `stop_after`).
    """
    recipe, target = run.train, paths.weights(run)
    if _is_done(run):
        return target
    models.choose_kernels(tf32=False)
    images = data.load(run.profile.data, "train")
    model = models.build(run.model, run.profile.data, run.profile.seed).to(device)
    optimiser = _optimiser(model, recipe)
    done, seconds = _resume(run, model, optimiser, device)
    epochs = range(done, recipe.epochs)
    for epoch in tqdm(epochs, desc=f"train {run.id}", unit="epoch", disable=not progress):
        began = time.perf_counter()
        _train_epoch(run, model, optimiser, images, epoch, device)
        seconds += time.perf_counter() - began
        _checkpoint(run, model, optimiser, epoch + 1, seconds)
        if stop_after is not None and epoch + 1 - done >= stop_after and epoch + 1 < recipe.epochs:
            return target
    model.eval()
    card = {
        "run": run.id, "recipe": recipe.recipe, "sigma": run.sigma, "seconds": seconds, "data": images.source,
        "images": len(images.labels), "settings": _settings(run), "steps": recipe.epochs * _steps_per_epoch(recipe, len(images.labels)),
        "parameters": sum(p.numel() for p in model.parameters()), **measure_quality(model, run, device),
    }
    models.save(model, target)
    results.write_json(paths.card(run), results.provenance(**card, device=device, seed=run.profile.seed))
    paths.checkpoint(run).unlink(missing_ok=True)
    return target


def implicit(model: models.MDEQ, z: Tensor, u: Tensor, *, steps: int) -> Tensor:
    """f(z*, u) with the implicit gradient: the adjoint g = grad + g J is solved by Broyden's method.

    Args:
        model: the DEQ.
        z: a solution, (B, D), without gradient.
        u: injection, with gradient.
        steps: evaluations of the vector-Jacobian product.
    """
    z = z.detach().requires_grad_()
    fz = model.f(z, u)

    def adjoint(grad: Tensor) -> Tensor:
        hook.remove()  # or the products below would come here again

        def step(g: Tensor, grad: Tensor) -> Tensor:
            return torch.autograd.grad(fz, z, g, retain_graph=True)[0] + grad

        return broyden(step, torch.zeros_like(grad), grad, max_steps=steps).z

    hook = fz.register_hook(adjoint)
    return fz


def jacobian_penalty(model: models.MDEQ, z: Tensor, u: Tensor) -> Tensor:
    """Hutchinson's estimate of |df/dz|_F^2 / D at z with one probe per sample (Bai et al. 2021, equation 9)."""
    z = z.detach().requires_grad_()
    fz = model.f(z, u)
    probe = torch.randn_like(fz)
    product = torch.autograd.grad(fz, z, probe, create_graph=True)[0]
    return product.square().sum() / z.numel()


def loss(model: models.MDEQ, x: Tensor, y: Tensor, recipe: config.Train, *, pretrain: bool, penalise: bool) -> Tensor:
    """Cross-entropy of noisy images x (B, C, H, W) under a recipe's gradient, with the Jacobian penalty or without."""
    u = model.inject(x)
    z = model.initial(u)
    if pretrain:
        for _ in range(recipe.pretrain_layers):
            z = model.f(z, u)
    else:
        with torch.no_grad():
            z = broyden(model.f, z, u, max_steps=recipe.forward_steps).z
        z = implicit(model, z, u, steps=recipe.backward_steps) if recipe.gradient == "implicit" else model.f(z, u)
    total = F.cross_entropy(model.head(z), y)
    if penalise:
        total = total + recipe.jacobian_weight * jacobian_penalty(model, z, u)
    return total


@torch.no_grad()
def measure_quality(model: models.MDEQ, run: config.Run, device: str) -> dict:
    """What a model card reports: clean and noisy accuracy, and residual and agreement against solver steps."""
    quality = {}
    for split in ("val", "test"):
        images = data.load(run.profile.data, split)
        count = len(images.labels)
        some = torch.linspace(0, count - 1, min(count, QUALITY_IMAGES)).long()
        x, y = images.x(some).to(device), images.labels[some].to(device)
        generator = torch.Generator().manual_seed(_seed(run, "quality", 0))
        noisy = x + run.sigma * torch.randn(x.shape, generator=generator).to(device)
        classes, residuals = {}, {}
        for k in QUALITY_STEPS:
            z, u = _solve(model, noisy, k)
            classes[k] = model.head(z).argmax(1)
            residuals[k] = float(relative_residual(z, model.f(z, u)).mean())
        last = QUALITY_STEPS[-1]
        quality[split] = {
            "quality_images": len(some),
            "clean_accuracy": float((model.head(_solve(model, x, last)[0]).argmax(1) == y).float().mean()),
            "noisy_accuracy": float((classes[last] == y).float().mean()),
            "residual": {str(k): residuals[k] for k in QUALITY_STEPS},
            "agreement": {str(k): float((classes[k] == classes[last]).float().mean()) for k in QUALITY_STEPS},
        }
    return {**quality["test"], "validation": quality["val"]}


def _solve(model: models.MDEQ, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    u = model.inject(x)
    return SOLVERS["anderson"](model.f, model.initial(u), u, max_steps=steps).z, u


def _train_epoch(run, model, optimiser, images, epoch, device) -> None:
    recipe = run.train
    torch.manual_seed(_seed(run, "train", epoch))
    order = torch.randperm(len(images.labels))
    per_epoch = _steps_per_epoch(recipe, len(order))
    total = recipe.epochs * per_epoch
    penalised = epoch < recipe.jacobian_until * recipe.epochs
    model.train()
    for i in range(per_epoch):
        step = epoch * per_epoch + i
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr * 0.5 * (1 + math.cos(math.pi * step / total))
        picked = order[i * recipe.batch : (i + 1) * recipe.batch]
        x, y = images.x(picked), images.labels[picked]
        if recipe.augment:
            x = _augment(x)
        x = (x + run.sigma * torch.randn(x.shape)).to(device)
        penalise = penalised and float(torch.rand(())) < recipe.jacobian_frequency
        optimiser.zero_grad(set_to_none=True)
        loss(model, x, y.to(device), recipe, pretrain=step < recipe.pretrain_steps, penalise=penalise).backward()
        optimiser.step()


def _steps_per_epoch(recipe: config.Train, count: int) -> int:
    return max(1, count // recipe.batch)


def _augment(x: Tensor) -> Tensor:
    """Random flips and random crops of the image padded by an eighth, each image its own."""
    b, _, height, width = x.shape
    pad = height // 8
    x = torch.where((torch.rand(b) < 0.5)[:, None, None, None], x.flip(3), x)
    padded = F.pad(x, (pad,) * 4)
    rows = torch.randint(0, 2 * pad + 1, (b, 1)) + torch.arange(height)
    columns = torch.randint(0, 2 * pad + 1, (b, 1)) + torch.arange(width)
    return padded[torch.arange(b)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _optimiser(model: models.MDEQ, recipe: config.Train) -> torch.optim.Optimizer:
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(model.parameters(), recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay)
    return torch.optim.Adam(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay)


def _seed(run: config.Run, phase: str, epoch: int) -> int:
    return (run.profile.seed * 2 + PHASES[phase]) * 100_000 + epoch


def _checkpoint(run, model, optimiser, epochs, seconds) -> None:
    path = paths.checkpoint(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "epochs": epochs, "seconds": seconds,
             "settings": _settings(run)}
    torch.save(state, part)
    part.replace(path)


def _resume(run, model, optimiser, device) -> tuple[int, float]:
    path = paths.checkpoint(run)
    if not path.is_file():
        return 0, 0.0
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state["settings"] != _settings(run):
            return 0, 0.0  # the recipe was changed since: begin anew
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        return state["epochs"], state["seconds"]
    except models.UNREADABLE:
        raise paths.set_aside(path, "a training checkpoint") from None


def _is_done(run: config.Run) -> bool:
    card = paths.card(run)
    if not (card.is_file() and paths.weights(run).is_file()):
        return False
    try:
        return json.loads(card.read_text())["settings"] == _settings(run)
    except (ValueError, KeyError, TypeError):
        raise paths.set_aside(card, "a model card") from None


def _settings(run: config.Run) -> str:
    code = results.code_digest("data", "models", "solvers", "train")
    return config.fingerprint(run.profile.data, run.model, run.train, run.sigma, run.profile.seed, code)


def main(argv: list[str] | None = None) -> None:
    """Train one model of a profile."""
    parser = argparse.ArgumentParser(prog="python -m srs.train", description=main.__doc__)
    config.add_run_arguments(parser)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--stop-after", type=int, help="end after this many epochs, to be resumed later")
    args = parser.parse_args(argv)
    try:
        run = config.get_run(args.profile, args.model, args.sigma, args.recipe)
        print(train(run, device=args.device, stop_after=args.stop_after))
    except (config.ConfigError, paths.DamagedFile) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
