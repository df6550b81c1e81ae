"""Training a DEQ on noisy images so that it can be smoothed (Cohen et al. 2019); `losses` says what is made small."""

import io
import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from srs import data, sealed, settings, store
from srs.attacks import pgd
from srs.attacks.settings import AdversarialTrain
from srs.deq import checkpoints, inference, mdeq, solvers
from srs.smoothing.engine import tqdm
from srs.training import losses

QUALITY_STEPS = (1, 2, 3, 4, 5, 6, 8, 10)  # where a model card reports residual and agreement, besides the full solve's end
QUALITY_IMAGES = 1_000  # of the validation and of the test images, that all but noisy accuracy is measured on
ACCURACY_IMAGES = 5_000  # and those that noisy accuracy is: it moves by 1.4 points (two standard errors) among so many
MEAN_IMAGES = 250  # noisy training images whose mean solution is the start `train_mean`
PHASES = {"train": 0, "quality": 1, "train_mean": 2}


def train(
    run: settings.Run, *, device: str = "cpu", progress: bool = True, stop_after: int | None = None, retrain: bool = False,
    threads: int = 1,
) -> Path:
    """Train a run's model and write weights (at that path), training mean and model card; resumes where a call was killed.

    It is repeated only if its settings, its images or its code have changed since; shipped weights of the same recipe are taken
    instead. Every epoch draws from a seed of its own, so a resumed training ends with the same weights as an unbroken one.

    Args:
        stop_after: end after this many epochs of this call, with a checkpoint and no weights (for long runs).
        retrain: train even where weights are shipped.
        threads: of the CPU; sums are rounded in another order, so weights are others, with another number.
    """
    inference.check_device(device)
    torch.set_num_threads(threads)
    with sealed.alone(store.own(run, "training.lock"), f"training of {run.id}"):
        if not _is_done(run) and (retrain or not checkpoints.take_from_zoo(run)):
            if run.parent is not None:
                train(run.parent, device=device, progress=progress, stop_after=stop_after, retrain=retrain, threads=threads)
            if run.parent is None or store.own(run.parent, store.WEIGHTS).is_file():
                _train(run, device, progress, stop_after)
    return store.own(run, store.WEIGHTS)


def _train(run: settings.Run, device: str, progress: bool, stop_after: int | None) -> None:
    recipe, target = run.train, store.own(run, store.WEIGHTS)
    inference.choose_kernels(tf32=True)
    images = data.load(run.profile.data, "train")
    trained_on, count = data.digest(images), len(images.labels)
    # Batches are drawn and augmented where they are computed, or a GPU would wait for them.
    near = images._replace(pixels=images.pixels.to(device)) if isinstance(images.pixels, Tensor) else images
    network = run.model if recipe.dropout is None else replace(run.model, dropout=recipe.dropout)
    begun = run.parent and checkpoints.load(store.own(run.parent, store.WEIGHTS), network, run.profile.data)
    model = (begun or mdeq.build(network, run.profile.data, run.profile.seed)).to(device)
    kind = partial(torch.optim.SGD, momentum=0.9) if recipe.optimiser == "sgd" else torch.optim.Adam
    optimiser = kind(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    # Batch norms' running means are averaged, too: their own follow the last few batches.
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
    stateful = {"model": model, "mean": mean, "optimiser": optimiser}
    of, gradients = {"settings": _settings(run), "trained_on": trained_on}, Gradients(model, recipe)
    done, seconds, trained_by = _resume(run, stateful, of, device)
    for epoch in tqdm(range(done, recipe.epochs), desc=f"train {run.id}", unit="epoch", disable=not progress):
        began = time.perf_counter()
        _train_epoch(run, model, mean, optimiser, gradients, near, epoch, device)
        seconds += time.perf_counter() - began
        content, state = io.BytesIO(), {name: part.state_dict() for name, part in stateful.items()}
        trained_by = inference.device_name(device)  # a killed training may be ended on another device
        torch.save(state | of | {"epochs": epoch + 1, "seconds": seconds, "trained_by": trained_by}, content)
        sealed.save(store.own(run, store.CHECKPOINT), content.getvalue())
        if stop_after is not None and epoch + 1 - done >= stop_after and epoch + 1 < recipe.epochs:
            return
    inference.choose_kernels()
    model = mean.module.eval()
    told = {"run": run.id, "recipe": recipe.recipe, "sigma": run.sigma, "seconds": seconds, "data": images.source}
    told |= {"images": count, **of, "recipe_key": store.recipe_key(run), "steps": recipe.epochs * max(1, count // recipe.batch)}
    told |= {"parameters": sum(p.numel() for p in model.parameters())} | measure_quality(model, run, device)
    checkpoints.save_tensors(model.state_dict(), target)
    checkpoints.save_tensors({"train_mean": mean_solution(model, run, images, device)}, store.own(run, store.TRAIN_MEAN))
    told |= {"weights": checkpoints.digest(target), "train_mean": checkpoints.digest(store.own(run, store.TRAIN_MEAN))}
    sealed.write_json(store.own(run, store.CARD), store.provenance(**told, device=trained_by, seed=run.profile.seed))
    store.own(run, store.CHECKPOINT).unlink(missing_ok=True)


class Gradients:
    """Computes the gradients of a batch; on a GPU by CUDA graphs, one for each kind of loss."""

    # A step is a thousand small kernels: started one by one from Python they take five times as long as they run.
    def __init__(self, model: mdeq.MDEQ, recipe: settings.Train):
        self.model, self.recipe, self.graphs, self.pool = model, recipe, {}, None

    def __call__(
        self, x: Tensor, y: Tensor, earlier: Tensor | None, *, pretrain: bool, penalise: bool, way: tuple[str, int]
    ) -> Tensor:
        """The solutions (B, D) of the batch, as `losses.loss`; every weight's gradient is where an optimiser looks for it."""
        how, given = dict(pretrain=pretrain, penalise=penalise, way=way), [v for v in (x, y, earlier) if v is not None]
        kind = (*how.values(), earlier is None)
        if not x.is_cuda or kind not in self.graphs:  # the first time loads what a capture may not
            self.graphs[kind] = None
            return self._compute(x, y, earlier, how)
        if self.graphs[kind] is None:
            graph, held = torch.cuda.CUDAGraph(), [v.clone() for v in given]
            with torch.cuda.graph(graph, pool=self.pool):
                z = self._compute(*held[:2], held[2] if held[2:] else None, how)
            self.pool = graph.pool()
            self.graphs[kind] = graph, held, z, [p.grad for p in self.model.parameters()]
        graph, held, z, grads = self.graphs[kind]
        for static, value in zip(held, given):
            static.copy_(value)
        graph.replay()
        for p, grad in zip(self.model.parameters(), grads):
            p.grad = grad
        return z

    def _compute(self, x: Tensor, y: Tensor, earlier: Tensor | None, how: dict) -> Tensor:
        self.model.zero_grad()
        total, z = losses.loss(self.model, x, y, self.recipe, earlier=earlier, **how)
        total.backward()
        return z


def _train_epoch(run, model, mean, optimiser, gradients, images, epoch, device) -> None:
    recipe = run.train
    torch.manual_seed(seed_of(run, "train", epoch))
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
        if recipe.consistency:
            x, y = torch.cat([x, x]), torch.cat([y, y])
        if isinstance(recipe, AdversarialTrain) and not pretrain:
            x, y = pgd.harden(model, x.to(device), y, run.sigma, recipe.adversarial)
        else:
            x = (x + run.sigma * torch.randn(x.shape, device=x.device)).to(device)
        penalise = penalised and float(torch.rand(())) < recipe.jacobian_frequency
        way = losses.draw_way(recipe) if recipe.gradient == "path_independent" and not pretrain else ("zero", 0)
        earlier = gradients(x, y, earlier, pretrain=pretrain, penalise=penalise, way=way)
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        mean.update_parameters(model)


def _augment(x: Tensor, kind: str) -> Tensor:
    """Random flips, and random crops of the image padded by an eighth, each image its own."""
    if kind == "none":
        return x
    b, _, height, width = x.shape
    x = torch.where((torch.rand(b, device=x.device) < 0.5)[:, None, None, None], x.flip(3), x)
    if kind == "flips":
        return x
    pad = height // 8
    padded = torch.nn.functional.pad(x, (pad,) * 4)
    rows, columns = (torch.randint(0, 2 * pad + 1, (b, 1)) + torch.arange(side) for side in (height, width))
    return padded[torch.arange(b)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _resume(run: settings.Run, stateful: dict, of: dict[str, str], device: str) -> tuple[int, float, str]:
    """Epochs done, their seconds and device, once the checkpoint's state is loaded; none where it is `of` something else."""
    path, load = store.own(run, store.CHECKPOINT), partial(torch.load, map_location=device, weights_only=True)
    read = partial(sealed.read, path, "training checkpoint", lambda body: load(io.BytesIO(body)), by="train")
    state = read() if path.is_file() else {}
    if any(state.get(name) != value for name, value in of.items()):
        return 0, 0.0, ""
    for name, part in stateful.items():
        part.load_state_dict(state[name])
    return state["epochs"], state["seconds"], state["trained_by"]


def _is_done(run: settings.Run) -> bool:
    """Whether a model of these settings is there and whole; what is damaged is told."""
    if not all([store.own(run, name).is_file() for name in store.MODEL]):
        return False
    told, of = sealed.read_json(store.own(run, store.CARD), "model card", by="train"), run.profile.data
    if told.get("settings") != _settings(run) or told.get("shipped"):
        return False
    if data.at_hand(of, "train") and data.digest(data.load(of, "train")) != told.get("trained_on"):  # others are not missed
        return False
    checkpoints.load_train_mean(store.own(run, store.TRAIN_MEAN))
    return bool(checkpoints.load(store.own(run, store.WEIGHTS), run.model, of))


def _settings(run: settings.Run) -> str:
    attacked = ("attacks/pgd",) if isinstance(run.train, AdversarialTrain) else ()
    code = store.code_digest("data", "deq/mdeq", "deq/resnet", "deq/solvers", "training/losses", "training/train", *attacked)
    return settings.fingerprint(run.profile.data, run.model, run.train, run.sigma, run.profile.seed, code)


@torch.no_grad()
def mean_solution(model: mdeq.MDEQ, run: settings.Run, images: data.Images, device: str) -> Tensor:
    """The mean solution (D,) over noisy training images: a start that depends on no image that is certified."""
    some = data.spread(len(images.labels), run.profile.card_images or MEAN_IMAGES)
    total, generator = 0.0, torch.Generator().manual_seed(seed_of(run, "train_mean", 0))
    for part in some.split(100):
        x = images.x(part)
        u = model.inject((x + run.sigma * torch.randn(x.shape, generator=generator)).to(device))
        total = total + _solve(model, u, run).sum(dim=0)
    return total.cpu() / len(some)


@torch.no_grad()
def measure_quality(model: mdeq.MDEQ, run: settings.Run, device: str) -> dict:
    """What a card reports of test and validation images: clean and noisy accuracy; residual and agreement by solver steps."""
    model, full, quality = inference.prepare(model), run.profile.method(run.profile.reference).steps, {}
    steps = (*(k for k in QUALITY_STEPS if k < full), full)
    for split in ("val", "test"):
        images = data.load(run.profile.data, split)
        every = data.spread(len(images.labels), run.profile.card_images or ACCURACY_IMAGES)
        traced = every[:: max(1, len(every) // QUALITY_IMAGES)]
        generator = torch.Generator().manual_seed(seed_of(run, "quality", 0))
        right, parts = 0, []
        for part in every.split(100):
            x, y, own = images.x(part).to(device), images.labels[part].to(device), torch.isin(part, traced).to(device)
            u = model.inject(x + run.sigma * torch.randn(x.shape, generator=generator).to(device))
            right += int((model.head(_solve(model, u, run)).argmax(dim=1) == y).sum())
            clean, u = model.head(_solve(model, model.inject(x[own]), run)).argmax(dim=1), u[own]
            states = [_solve(model, u, run, k) for k in steps]
            residuals, classes = zip(*((solvers.relative_residual(z, model.f(z, u)), model.head(z).argmax(1)) for z in states))
            # Agreement: to so many images this many steps from zero give the class of the full solve.
            parts.append(torch.stack([clean == y[own], *residuals, *(given == classes[-1] for given in classes)]))
        clean, *rest = torch.cat(parts, dim=1).mean(dim=1).tolist()
        residual, agreement = (dict(zip(map(str, steps), part)) for part in (rest[: len(steps)], rest[len(steps) :]))
        told = {"accuracy_images": len(every), "quality_images": len(traced), "clean_accuracy": clean}
        quality[split] = told | {"noisy_accuracy": right / len(every), "residual": residual, "agreement": agreement}
    return quality["test"] | {"validation": quality["val"]}


def _solve(model: mdeq.DEQ, u: Tensor, run: settings.Run, steps: int | None = None) -> Tensor:
    full = run.profile.method(run.profile.reference)
    return solvers.SOLVERS[full.solver](model.f, model.initial(u), u, max_steps=steps or full.steps, tol=full.tol).z


def seed_of(run: settings.Run, phase: str, epoch: int) -> int:
    """The seed of one epoch of one of `PHASES`: the profile's seed gives no two of them the same one."""
    return (run.profile.seed * len(PHASES) + PHASES[phase]) * 100_000 + epoch
