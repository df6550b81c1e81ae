"""Certify the images of a profile: draw votes that are missing, then count them. One file of votes per image.

A killed run loses at most the images that were at work; `engine` shares images and methods out in any order.
"""

import hashlib
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from srs import data, sealed, settings, store
from srs.deq import checkpoints, inference, mdeq
from srs.smoothing import adaptive, bounds, engine, noise, votes

VOTES_DEPEND_ON = (  # modules, below srs/
    "deq/inference", "deq/mdeq", "deq/released", "deq/resnet", "deq/solvers",
    "smoothing/exact", "smoothing/noise", "smoothing/votes",
)  # fmt: skip
SEVERAL = 3  # evaluations of f by which a model is checked


class Inputs(NamedTuple):
    """What a run's votes are drawn from, read once: what they are filed under is what was loaded."""

    weights: dict[str, torch.Tensor]
    train_mean: torch.Tensor | None
    images: dict[int, str]  # digests of the evaluated images
    source: str  # of the images, in words
    device: str
    key: str  # digest of everything that the votes of all images share


class Certificate(NamedTuple):
    """One image's certificate: within `radius` the smoothed classifier answers `predict`, but for a chance alpha."""

    predict: int  # ABSTAIN where nothing is certified
    radius: float  # l2, in units of [0, 1] pixels
    p_lower: float
    nfe: int  # evaluations of f that were spent, audit included
    votes: votes.ImageVotes


@torch.inference_mode()
def check_image(model: mdeq.DEQ, x: torch.Tensor, classes: int) -> torch.Tensor:
    """The image where the model's weights lie, checked by `votes.check_inputs`.

    Refuses a model whose answer to an image depends on the images beside or before it, or on chance: its votes would not be
    independent.
    """
    device = next((weight.device for network in mdeq.networks_of(model) for weight in network.parameters()), None)
    try:
        x = votes.check_inputs(model, x.to(device) if isinstance(x, torch.Tensor) and device else x, classes)
        alone, beside, _, again = (answers(model, *some)[0] for some in ((x,), (x, 1 - x), (1 - x,), (x,)))
    except (RuntimeError, IndexError) as error:  # torch's own, of a layer within
        told = f"one that the model takes ({str(error).partition(chr(10))[0]})"
        raise settings.ConfigError(f"image shape = {tuple(x.shape)} is refused: want {told}") from error
    right = "one that gives an image the same logits alone, in a batch and after other images: batch norm with running "
    same = alike(alone, beside) and alike(alone, again)
    settings.check(same, "model", "one whose logits of an image change", f"{right}statistics, no dropout, nothing kept")
    return x


@torch.inference_mode()
def answers(model: mdeq.DEQ, *images: torch.Tensor) -> torch.Tensor:
    """Logits of images (C, H, W) after so many evaluations of f that f cannot hide behind a start of zeros."""
    u = model.inject(torch.stack(images))
    z = model.initial(u)
    for _ in range(SEVERAL):
        last, z = z, model.f(z, u)
        flat = all(isinstance(t, torch.Tensor) and t.dim() == 2 for t in (last, z)) and last.shape == z.shape
        settings.check(flat, "z and f(z, u)", f"{getattr(last, 'shape', last)} and {getattr(z, 'shape', z)}", "tensors (B, D)")
    return model.head(z)


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two answers are the same but for rounding."""
    largest = float(torch.nan_to_num(one, 0.0, 0.0, 0.0).abs().max())
    return torch.allclose(one, other, rtol=1e-3, atol=1e-3 * largest, equal_nan=True)


def digest_of(*tensors: torch.Tensor) -> str:
    """Sixteen hex digits of tensors."""
    return hashlib.sha256(b"".join(t.detach().cpu().contiguous().numpy().tobytes() for t in tensors)).hexdigest()[:16]


def certify_image(
    model: mdeq.DEQ, x: torch.Tensor, method: settings.Method, sampling: settings.Sampling, *, sigma: float,
    alpha: float = 0.001, rule: str | None = None, idx: int | None = 0,
) -> Certificate:
    """Certify one image with any DEQ: Cohen et al.'s rule for standard votes, the rule `audit` for serialized ones.

    Args:
        model, x: a DEQ in eval mode, and an image (C, H, W) or (1, C, H, W) in [0, 1], floating point.
        method, sampling: how votes are drawn; sample sizes, seed, and the standard solve that audits.
        sigma, alpha: noise level in units of [0, 1] pixels; failure probability.
        rule: another rule of `bounds.Rule`; ConfigError for `cohen` where votes need an audit.
        idx: names the noise streams: give every image its own; None: the image's own pixels do.
    """
    sigma, alpha = settings.check_sigma(sigma), settings.plain(alpha)
    settings.check(0 < alpha < 1, "alpha", alpha, "a failure probability strictly between 0 and 1")
    rule = bounds.Rule(rule or bounds.rules_for(method.needs_audit)[0])
    believed = method.needs_audit and rule not in bounds.rules_for(True)
    settings.check(not believed, "rule", rule.value, f"audit for {method.name}, whose votes are not the standard solve's")
    settings.check(method.audit or not method.needs_audit, f"audit of {method.name}", 0, "votes to be solved again, as 400")
    sampling.check_method(method)
    x = check_image(model, x, sampling.classes)
    idx = int(digest_of(x)[:8], 16) if idx is None else idx
    drawn = votes.draw_votes(model, x, method, sampling, sigma, idx=idx)
    t = count_votes(drawn, method, sampling)
    share = adaptive.spent(alpha, t.n, sampling.n_max(method))
    p_lower, radius = bounds.certify(rule, bounds.Counts(t.n, t.n_a, t.k, t.m, t.n_2, t.n_1), sigma, share)
    predict, radius = (t.c_a, float(radius)) if t.c_a != bounds.ABSTAIN and p_lower > 0.5 else (bounds.ABSTAIN, 0.0)
    return Certificate(predict, radius, float(p_lower), int(drawn.nfe.sum()), drawn)


def certify(
    run: settings.Run, *, methods: tuple[str, ...] = (), device: str = "cpu", workers: int = 1, scheduler: str = "",
    deadline: float = engine.HOUR, count: bool = True, progress: bool = True,
) -> list[str]:
    """Draw the votes of a run's images under its methods; the names of those whose images are all there and counted.

    Args:
        methods: names of methods; empty means all of the profile.
        device: a torch device; `cuda` with several workers is a GPU for each.
        workers, scheduler: whose processes share images and methods, one thread each; see `engine`.
        deadline: seconds for an image under a method, after which its worker is ended and another one tries.
        count: whether to count; not for further votes on some images, which would stand in the place of the run's counts.
    """
    chosen = tuple(run.profile.method(name) for name in methods) or run.profile.methods
    engine.check(workers, scheduler, deadline)
    inference.check_device(device)
    inputs = read_inputs(run, device)  # refuses missing or damaged weights before anything is made
    with sealed.alone(store.own(run, "certify.lock"), f"certifying {run.id}"):
        images = data.load(run.profile.data, "test")
        todo = [(i, m) for i in run.profile.evaluated for m in chosen if not vote_file(run, m, inputs, i).is_file()]
        if todo:
            # Images are sent along, so that only the driver reads data.
            given = ((images.x(idx), int(images.labels[idx]), idx, method) for idx, method in todo)
            prepare = prepared(partial(voter, run, inputs), device, VOTES_DEPEND_ON)
            costs, workers = [most_nfe(method, run.profile.sampling) for _, method in todo], min(workers, len(todo))
            with closing(engine.compute(prepare, given, workers=workers, scheduler=scheduler, deadline=deadline)) as found:
                for i, drawn in engine.shown(found, f"certify {run.id}", costs, progress=progress):
                    idx, method = todo[i]
                    votes.write(vote_file(run, method, inputs, idx), drawn)
        return count_run(run, chosen, inputs) if count else []


def prepared(make: Callable[[str], Callable], device: str, modules: tuple[str, ...]) -> Callable[[str], Callable]:
    """`make(device)` for `engine.compute`; a worker of another kind of device, torch or code of `modules` is refused."""
    driver = inference.computed_on(device), store.code_digest(*modules)

    def prepare(worker: str) -> Callable:
        if worker:
            torch.set_num_threads(1)
            here = inference.computed_on(device), store.code_digest(*modules)
            settings.check(here == driver, "worker", here[0], "the driver's kind of device, torch and srs")
        return make(f"cuda:{int(worker) % torch.cuda.device_count()}" if device == "cuda" and worker.isdigit() else device)

    return prepare


def voter(run: settings.Run, inputs: Inputs, device: str) -> Callable[..., votes.ImageVotes]:
    """A run's model as a function that draws votes: of an image, its label, its position, and a method."""
    model, sampling = load_model(run, device, inputs), run.profile.sampling
    return lambda x, label, idx, method: votes.draw_votes(
        model, x.to(device), method, sampling, run.sigma, idx=idx, label=label
    )


def count_run(run: settings.Run, methods: tuple[settings.Method, ...] = (), inputs: Inputs | None = None) -> list[str]:
    """Count the stored votes of every method whose images are all there into the run's counts. Needs no network.

    The names of those of `methods` that are counted; none stands for all of the profile. Votes are those drawn from `inputs`,
    or else by this CPU from the weights and images that are there now.
    """
    inputs, p, drawn = inputs or read_inputs(run), run.profile, {}
    for method in p.methods:
        files = [vote_file(run, method, inputs, idx) for idx in p.evaluated]
        if all([file.is_file() for file in files]):
            drawn[method] = [votes.read(file, method, p.sampling) for file in files]
    standard, missing, counted, made_by = drawn.get(p.method(p.reference)), [None] * p.images, {}, {}
    for method, own in drawn.items():
        beside = zip(standard or missing, drawn.get(method.auditor) or missing)
        counted[method.name] = [count_votes(v, method, p.sampling, *pair) for v, pair in zip(own, beside)]
        made_by[method.name] = store.provenance(
            run=run.id, profile=p.name, **store.drawn_as(run, method),
            weights=checkpoints.digest_of(inputs.weights), data=inputs.source,
            device=inference.device_name(inputs.device, rounded=bool(method.head)),
        )  # fmt: skip
    if counted:
        store.write_counts(run, counted, made_by)
    return [m.name for m in methods or p.methods if m in drawn]


def count_votes(
    drawn: votes.ImageVotes, method: settings.Method, sampling: settings.Sampling, standard: votes.ImageVotes | None = None,
    auditor: votes.ImageVotes | None = None,
) -> store.ImageCounts:
    """Reduce one image's votes to the integers of Theorem 3.1, of the rule `audit` and of the comparison with RS.

    `standard` are the reference method's votes on the same noise, `auditor` those of the method's own auditor, whose classifier
    is certified. No comparison is made where they were not drawn or stopped before these.
    """
    c_a, n = bounds.top_class(drawn.select, sampling.classes), len(drawn.estimate)
    for_a = (drawn.estimate == c_a) & (c_a != bounds.ABSTAIN)
    agree = drawn.standard == c_a
    # The audit takes the votes for c_A in the order of one random permutation, so those among its first K
    # samples of any class, which Theorem 3.1 audits, are the first n_2 of them.
    n_2 = int(for_a[noise.audit_order(sampling.seed, drawn.idx, n)[: method.audit]].sum())
    others = standard, standard if method.auditor is None else auditor
    standard, certified = (other if other and len(other.estimate) >= n else None for other in others)
    return store.ImageCounts(
        idx=drawn.idx, label=drawn.label, c_a=c_a, n=n, n_a=int(for_a.sum()),
        k=len(agree), m=int((~agree).sum()), n_2=n_2, n_1=int(agree[:n_2].sum()),
        n_wrong=-1 if certified is None else int((for_a & (certified.estimate[:n] != c_a)).sum()),
        n_differ=-1 if standard is None else int((standard.estimate[:n] != drawn.estimate).sum()),
        **dict(zip(("nfe_select", "nfe_estimate", "nfe_audit"), drawn.nfe.tolist())), seconds=float(drawn.seconds.sum()),
    )  # fmt: skip


def most_nfe(method: settings.Method, sampling: settings.Sampling) -> int:
    """Evaluations of f that an image costs under a method, if no sample stops early."""
    warmed = sum(min(method.batch, n) for n in (sampling.n0, sampling.n)) if method.start == "previous" and method.warmup else 0
    audit = method.audit * (method.auditor or sampling.reference).steps
    return (sampling.n0 + sampling.n) * method.steps + warmed * (method.warmup - method.steps) + method.pilot_nfe + audit


def read_inputs(run: settings.Run, device: str = "cpu") -> Inputs:
    """The weights of a run and what its evaluated images are; refuses missing or damaged weights, and too few images."""
    weights = checkpoints.read_tensors(store.own(run, store.WEIGHTS), "weight file")
    path, p, images = store.own(run, store.TRAIN_MEAN), run.profile, data.load(run.profile.data, "test")
    need = p.evaluated[-1] + 1
    settings.check(len(images.labels) >= need, f"{p.data.name} test images", len(images.labels), f"at least {need}")
    train_mean = checkpoints.load_train_mean(path) if path.is_file() else None
    model = checkpoints.digest_of(weights if train_mean is None else weights | {"train_mean": train_mean})
    made_by = images.source, inference.computed_on(device), store.code_digest(*VOTES_DEPEND_ON)
    key = settings.fingerprint(model, run.sigma, p.sampling, *made_by)
    return Inputs(weights, train_mean, {i: data.digest(images, [i]) for i in p.evaluated}, images.source, device, key)


def load_model(run: settings.Run, device: str = "cpu", inputs: Inputs | None = None) -> mdeq.DEQ:
    """A run's trained model as it is certified: the inference form of `deq.inference`, with its training mean if it has one."""
    inference.check_device(device)
    inputs = inputs or read_inputs(run, device)
    model = checkpoints.load(store.own(run, store.WEIGHTS), run.model, run.profile.data, state=inputs.weights).to(device)
    model.train_mean = None if inputs.train_mean is None else inputs.train_mean.to(device)
    return inference.prepare(model)


def vote_file(run: settings.Run, method: settings.Method, inputs: Inputs, idx: int) -> Path:
    """Where one image's votes lie."""
    return store.own(run, f"votes/{method.name}-{settings.fingerprint(inputs.key, method)}/{idx:05d}-{inputs.images[idx]}.npz")
