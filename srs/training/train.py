"""Training a DEQ on noisy images so that it can be smoothed (Cohen et al. 2019); `losses` says what is made small.

`srs train --profile digits --model SMALL --sigma 0.5`
"""

import contextlib
import io
import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from srs import data, sealed, settings, store
from srs.attacks import pgd
from srs.attacks.settings import AdversarialTrain
from srs.deq import checkpoints, inference, mdeq, memory
from srs.smoothing.engine import tqdm
from srs.training import card, losses


def train(
    run: settings.Run, *, device: str = "cpu", progress: bool = True, stop_after: int | None = None, retrain: bool = False,
    threads: int = 1,
) -> Path:
    """Train a run's model and write weights, training mean and model card; resumes where an earlier call was killed.

    A training that is done is repeated only if its settings, its images or the code that it runs have changed since. Shipped
    weights of the same recipe are taken instead. Every epoch draws its order, noise and dropout from a seed of its own, so a
    resumed training ends with the same weights as an unbroken one.

    Args:
        run: what to train.
        device: a torch device.
        progress: whether to show a progress bar.
        stop_after: end after this many epochs of this call, with a checkpoint and no weights (for long runs).
        retrain: train even where weights are shipped.
        threads: of the CPU; sums are rounded in another order, so weights are others, with another number.

    Returns:
        The path of the weights (not yet there after `stop_after`).
    """
    inference.check_device(device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with sealed.alone(store.own(run, "training.lock"), f"training of {run.id}"):
            if _is_done(run):
                _remake_train_mean(run, device)
            elif retrain or not checkpoints.take_from_zoo(run):
                if run.parent is not None:
                    train(run.parent, device=device, progress=progress, stop_after=stop_after, retrain=retrain, threads=threads)
                if run.parent is None or store.own(run.parent, store.WEIGHTS).is_file():
                    _train(run, device, progress, stop_after)
    finally:
        torch.set_num_threads(before)
    return store.own(run, store.WEIGHTS)


def _train(run: settings.Run, device: str, progress: bool, stop_after: int | None) -> None:
    recipe, target = run.train, store.own(run, store.WEIGHTS)
    inference.choose_kernels()
    memory.keep_freed()
    images = data.load(run.profile.data, "train")
    trained_on, count = data.digest(images), len(images.labels)
    network = run.model if recipe.dropout is None else replace(run.model, dropout=recipe.dropout)
    if run.parent is None:
        model = mdeq.build(network, run.profile.data, run.profile.seed)
    else:
        model = checkpoints.load(store.own(run.parent, store.WEIGHTS), network, run.profile.data)
    optimiser = _optimiser(model.to(device), recipe)
    # Batch norms' running means are averaged, too: their own follow the last few batches.
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
    done, seconds = _resume(run, model, mean, optimiser, device, trained_on)
    for epoch in tqdm(range(done, recipe.epochs), desc=f"train {run.id}", unit="epoch", disable=not progress):
        began = time.perf_counter()
        _train_epoch(run, model, mean, optimiser, images, epoch, device)
        seconds += time.perf_counter() - began
        _checkpoint(run, model, mean, optimiser, epoch + 1, seconds, trained_on)
        if stop_after is not None and epoch + 1 - done >= stop_after and epoch + 1 < recipe.epochs:
            return
    model = mean.module.eval()
    told = {
        "run": run.id, "recipe": recipe.recipe, "sigma": run.sigma, "seconds": seconds, "data": images.source,
        "images": count, "trained_on": trained_on, "settings": _settings(run), "recipe_key": store.recipe_key(run),
        "steps": recipe.epochs * max(1, count // recipe.batch), "parameters": sum(p.numel() for p in model.parameters()),
        **card.measure_quality(model, run, device),
    }
    checkpoints.save(model, target)
    checkpoints.save_train_mean(card.mean_solution(model, run, images, device), store.own(run, store.TRAIN_MEAN))
    told |= {"weights": checkpoints.digest(target), "train_mean": checkpoints.digest(store.own(run, store.TRAIN_MEAN))}
    sealed.write_json(store.own(run, store.CARD), store.provenance(**told, device=device, seed=run.profile.seed))
    store.own(run, store.CHECKPOINT).unlink(missing_ok=True)


def _train_epoch(run, model, mean, optimiser, images, epoch, device) -> None:
    recipe = run.train
    torch.manual_seed(card.seed_of(run, "train", epoch))
    order = torch.randperm(len(images.labels))
    per_epoch = max(1, len(order) // recipe.batch)
    total = recipe.epochs * per_epoch
    penalised = epoch < recipe.jacobian_until * recipe.epochs
    earlier = None  # the batch before's solutions; not across epochs, so that a resumed training sees the same
    model.train()
    for i in range(per_epoch):
        step = epoch * per_epoch + i
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr_end + (recipe.lr - recipe.lr_end) * 0.5 * (1 + math.cos(math.pi * step / total))
        picked = order[i * recipe.batch : (i + 1) * recipe.batch]
        pretrain = step < recipe.pretrain_steps
        x, y = _augment(images.x(picked), recipe.augment), images.labels[picked].to(device)
        if isinstance(recipe, AdversarialTrain) and not pretrain:
            x, y = pgd.harden(model, x.to(device), y, run.sigma, recipe.adversarial)
        else:
            x = (x + run.sigma * torch.randn(x.shape)).to(device)
        penalise = penalised and float(torch.rand(())) < recipe.jacobian_frequency
        optimiser.zero_grad(set_to_none=True)
        total_loss, earlier = losses.loss(model, x, y, recipe, pretrain=pretrain, penalise=penalise, earlier=earlier)
        total_loss.backward()
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        mean.update_parameters(model)


def _augment(x: Tensor, kind: str) -> Tensor:
    """Random flips, and random crops of the image padded by an eighth, each image its own."""
    if kind == "none":
        return x
    b, _, height, width = x.shape
    x = torch.where((torch.rand(b) < 0.5)[:, None, None, None], x.flip(3), x)
    if kind == "flips":
        return x
    pad = height // 8
    padded = F.pad(x, (pad,) * 4)
    rows = torch.randint(0, 2 * pad + 1, (b, 1)) + torch.arange(height)
    columns = torch.randint(0, 2 * pad + 1, (b, 1)) + torch.arange(width)
    return padded[torch.arange(b)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _optimiser(model: mdeq.MDEQ, recipe: settings.Train) -> torch.optim.Optimizer:
    kind = partial(torch.optim.SGD, momentum=0.9) if recipe.optimiser == "sgd" else torch.optim.Adam
    return kind(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay)


def _checkpoint(run, model, mean, optimiser, epochs, seconds, trained_on) -> None:
    content, state = io.BytesIO(), {
        "model": model.state_dict(), "mean": mean.state_dict(), "optimiser": optimiser.state_dict(), "epochs": epochs,
        "seconds": seconds, "settings": _settings(run), "trained_on": trained_on,
    }  # fmt: skip
    torch.save(state, content)
    sealed.save(store.own(run, store.CHECKPOINT), content.getvalue())


def _resume(run, model, mean, optimiser, device, trained_on) -> tuple[int, float]:
    path = store.own(run, store.CHECKPOINT)
    if not path.is_file():
        return 0, 0.0
    load = partial(torch.load, map_location=device, weights_only=True)
    state = sealed.read(path, "training checkpoint", lambda body: load(io.BytesIO(body)), by="train")
    if (state["settings"], state["trained_on"]) != (_settings(run), trained_on):
        return 0, 0.0  # the recipe or the images were changed since: begin anew
    model.load_state_dict(state["model"])
    mean.load_state_dict(state["mean"])
    optimiser.load_state_dict(state["optimiser"])
    return state["epochs"], state["seconds"]


def _is_done(run: settings.Run) -> bool:
    """Whether weights of these settings are there and whole; what is damaged is told."""
    if not all([store.own(run, name).is_file() for name in (store.CARD, store.WEIGHTS)]):
        return False
    told, of = sealed.read_json(store.own(run, store.CARD), "model card", by="train"), run.profile.data
    if told.get("settings") != _settings(run) or told.get("shipped"):
        return False
    if data.at_hand(of, "train") and data.digest(data.load(of, "train")) != told.get("trained_on"):  # others are not missed
        return False
    return bool(checkpoints.load(store.own(run, store.WEIGHTS), run.model, of))


def _remake_train_mean(run: settings.Run, device: str) -> None:
    """Compute the training mean of weights that are done, where it is missing or damaged."""
    path = store.own(run, store.TRAIN_MEAN)
    with contextlib.suppress(sealed.DamagedFile):
        if path.is_file():
            checkpoints.load_train_mean(path)
            return
    model = checkpoints.load(store.own(run, store.WEIGHTS), run.model, run.profile.data).to(device)
    checkpoints.save_train_mean(card.mean_solution(model, run, data.load(run.profile.data, "train"), device), path)


def _settings(run: settings.Run) -> str:
    attacked = ("attacks/pgd",) if isinstance(run.train, AdversarialTrain) else ()
    deq = ("deq/gradients", "deq/mdeq", "deq/resnet", "deq/solvers")
    code = store.code_digest("data", *deq, "training/losses", "training/train", *attacked)
    return settings.fingerprint(run.profile.data, run.model, run.train, run.sigma, run.profile.seed, code)
