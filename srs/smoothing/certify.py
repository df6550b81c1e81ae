"""Certify the images of a profile: draw votes that are missing, then count them. One file of votes per image.

A killed run loses at most the images that were at work; `engine` shares images and methods out in any order.

`srs certify --profile digits --model SMALL --sigma 0.5 --workers 2`
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from srs import data, sealed, settings, store
from srs.deq import checkpoints, inference, mdeq, memory
from srs.smoothing import adaptive, bounds, engine, noise, votes

VOTES_DEPEND_ON = (  # modules, below srs/
    "deq/inference", "deq/mdeq", "deq/released", "deq/resnet", "deq/solvers",
    "smoothing/exact", "smoothing/noise", "smoothing/starts", "smoothing/votes",
)  # fmt: skip


class Inputs(NamedTuple):
    """What a run's votes are drawn from, read once, so that what they are filed under is what was loaded."""

    weights: dict[str, torch.Tensor]
    train_mean: torch.Tensor | None
    images: dict[int, str]  # digests of the evaluated images
    source: str  # of the images, in words


class Key(NamedTuple):
    """What votes are filed under."""

    shared: str  # digest of everything that all images share
    images: dict[int, str]  # and of each image


class Certificate(NamedTuple):
    """One image's certificate: within `radius` the smoothed classifier answers `predict`, but for a chance alpha."""

    predict: int  # ABSTAIN where nothing is certified
    radius: float  # l2, in units of [0, 1] pixels
    p_lower: float
    nfe: int  # evaluations of f that were spent, audit included
    votes: votes.ImageVotes

    def __repr__(self) -> str:
        """The certificate in one line, without its votes."""
        radius, p_lower = (f"{bounds.round_down(value, 3):.3f}" for value in (self.radius, self.p_lower))
        held = "abstains" if self.predict == bounds.ABSTAIN else f"class {self.predict} within l2 radius {radius}"
        return f"{held} (p_A >= {p_lower}, {self.nfe:,} evaluations of f)"


def certify_image(
    model: mdeq.DEQ, x: torch.Tensor, method: settings.Method, sampling: settings.Sampling, *, sigma: float,
    alpha: float = 0.001, rule: str | None = None, idx: int = 0,
) -> Certificate:
    """Certify one image with any DEQ: Cohen et al.'s rule for standard votes, the rule `audit` for serialized ones.

    Args:
        model: anything with the methods of `mdeq.DEQ`, in eval mode.
        x: image (C, H, W) or (1, C, H, W) in [0, 1], floating point.
        method, sampling: how votes are drawn; sample sizes, seed, and the standard solve that audits.
        sigma, alpha: noise level in units of [0, 1] pixels; failure probability.
        rule: another rule of `bounds.Rule`; ConfigError for `cohen` where votes need an audit.
        idx: names the noise streams: give every image its own.
    """
    sigma, alpha = settings.check_sigma(sigma), settings.plain(alpha)
    settings.check(0 < alpha < 1, "alpha", alpha, "a failure probability strictly between 0 and 1")
    rule = bounds.Rule(rule or bounds.rules_for(method.needs_audit)[0])
    believed = rule is bounds.Rule.COHEN and method.needs_audit
    settings.check(not believed, "rule", rule.value, f"audit for {method.name}, whose votes are not the standard solve's")
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
    """Draw the votes of a run's images under its methods and count those of what is complete.

    Args:
        run: which trained model.
        methods: names of methods; empty means all of the profile.
        device: a torch device; `cuda` with several workers is a GPU for each.
        workers: processes that share images and methods, one thread each.
        scheduler: tcp://host:port of a running Dask scheduler, or a YAML file of dask-jobqueue, whose workers do.
        deadline: seconds for an image under a method, after which its worker is ended and another one tries.
        count: whether to count; not for further votes on some images, which would stand in the place of the run's counts.
        progress: whether to show a line of progress.

    Returns:
        The names of the methods whose images are all there and counted.
    """
    chosen = tuple(run.profile.method(name) for name in methods) or run.profile.methods
    engine.check(workers, scheduler, deadline)
    inference.check_device(device)
    inputs = read_inputs(run)  # refuses missing or damaged weights before anything is made
    with sealed.alone(store.own(run, "certify.lock"), f"certifying {run.id}"):
        key = vote_key(run, device, inputs)
        for method in chosen:
            _record_provenance(run, method, key, device, inputs)
        todo = [(i, m) for i in run.profile.evaluated for m in chosen if not vote_file(run, m, key, i).is_file()]
        if todo:
            given, prepare = _arguments(run, todo, key), prepared(partial(voter, run, inputs), device, VOTES_DEPEND_ON)
            costs, workers = [most_nfe(method, run.profile.sampling) for _, method in todo], min(workers, len(todo))
            with closing(engine.compute(prepare, given, workers=workers, scheduler=scheduler, deadline=deadline)) as found:
                for i, drawn in engine.shown(found, f"certify {run.id}", costs, progress=progress):
                    idx, method = todo[i]
                    votes.write(vote_file(run, method, key, idx), drawn)
        return count_run(run, chosen, key) if count else []


def _arguments(run: settings.Run, todo: Sequence[tuple[int, settings.Method]], key: Key) -> Iterator[tuple]:
    """What a worker needs of each image and method; images are sent along, so that only the driver reads data."""
    images = data.load(run.profile.data, "test")
    for idx, method in todo:
        same = data.digest(images, [idx]) == key.images[idx]
        settings.check(same, f"image {idx}", "another one than a moment ago", "the same data set throughout a call")
        yield images.x(idx), int(images.labels[idx]), idx, method


def prepared(make: Callable[[str], Callable], device: str, modules: tuple[str, ...]) -> Callable[[str], Callable]:
    """`make(device)` for `engine.compute`; a worker of another kind of device, torch or code of `modules` is refused."""
    driver = inference.computed_on(device), store.code_digest(*modules)

    def prepare(worker: str) -> Callable:
        if worker:
            torch.set_num_threads(1)
            here = inference.computed_on(device), store.code_digest(*modules)
            settings.check(here == driver, "worker", here[0], "the driver's kind of device, torch and srs")
        several = device == "cuda" and worker.isdigit()
        return make(f"cuda:{int(worker) % torch.cuda.device_count()}" if several else device)

    return prepare


def voter(run: settings.Run, inputs: Inputs, device: str) -> Callable[..., votes.ImageVotes]:
    """A run's model as a function that draws votes."""
    memory.keep_freed()
    model = load_model(run, device, inputs)

    def draw(x: torch.Tensor, label: int, idx: int, method: settings.Method) -> votes.ImageVotes:
        return votes.draw_votes(model, x.to(device), method, run.profile.sampling, run.sigma, idx=idx, label=label)

    return draw


def count_run(run: settings.Run, methods: tuple[settings.Method, ...] = (), key: Key | None = None) -> list[str]:
    """Count the stored votes of every method whose images are all there into the run's counts. Needs no network.

    The names of those of `methods` that are counted; none stands for all of the profile. `key` None is the `vote_key` of the
    weights and images that are there now, for votes drawn by this CPU.
    """
    profile, images, key = run.profile, run.profile.evaluated, key or vote_key(run)
    drawn = {m: found for m in profile.methods if (found := _read_all(run, m, key, images))}
    standard, missing, counted, made_by = drawn.get(profile.method(profile.reference)), [None] * len(images), {}, {}
    for method, own in drawn.items():
        beside = zip(standard or missing, drawn.get(method.auditor) or missing)
        counted[method.name] = [count_votes(v, method, profile.sampling, *pair) for v, pair in zip(own, beside)]
        told = vote_file(run, method, key, images[0]).with_name("provenance.json")
        made_by[method.name] = sealed.read_json(told, "provenance", by="certify") if told.is_file() else {}
    if counted:
        store.write_counts(run, counted, made_by)
    return [m.name for m in methods or profile.methods if m in drawn]


def count_votes(
    drawn: votes.ImageVotes, method: settings.Method, sampling: settings.Sampling, standard: votes.ImageVotes | None = None,
    auditor: votes.ImageVotes | None = None,
) -> store.ImageCounts:
    """Reduce one image's votes to the integers of Theorem 3.1, of the rule `audit` and of the comparison with RS.

    `standard` are the reference method's votes on the same noise, `auditor` those of the method's own auditor, whose classifier
    is certified. No comparison is made where they were not drawn or stopped before these.
    """
    c_a = bounds.top_class(drawn.select, sampling.classes)
    n = len(drawn.estimate)
    for_a = (drawn.estimate == c_a) & (c_a != bounds.ABSTAIN)
    agree = drawn.standard == c_a
    # The audit takes the votes for c_A in the order of one random permutation, so those among its first K
    # samples of any class, which Theorem 3.1 audits, are the first n_2 of them.
    order = noise.audit_order(sampling.seed, drawn.idx, n)
    n_2 = int(for_a[order[: method.audit]].sum())
    nfe = [int(v) for v in drawn.nfe]
    others = standard, standard if method.auditor is None else auditor
    standard, certified = (other if other and len(other.estimate) >= n else None for other in others)
    return store.ImageCounts(
        idx=drawn.idx, label=drawn.label, c_a=c_a, n=n, n_a=int(for_a.sum()),
        k=len(agree), m=int((~agree).sum()), n_2=n_2, n_1=int(agree[:n_2].sum()),
        n_wrong=-1 if certified is None else int((for_a & (certified.estimate[:n] != c_a)).sum()),
        n_differ=-1 if standard is None else int((standard.estimate[:n] != drawn.estimate).sum()),
        nfe_select=nfe[0], nfe_estimate=nfe[1], nfe_audit=nfe[2], seconds=float(drawn.seconds.sum()),
    )


def most_nfe(method: settings.Method, sampling: settings.Sampling) -> int:
    """Evaluations of f that an image costs under a method, if no sample stops early."""
    warmed = sum(min(method.batch, n) for n in (sampling.n0, sampling.n)) if method.start == "previous" and method.warmup else 0
    audit = method.audit * (method.auditor or sampling.reference).steps
    return (sampling.n0 + sampling.n) * method.steps + warmed * (method.warmup - method.steps) + method.pilot_nfe + audit


def read_inputs(run: settings.Run) -> Inputs:
    """The weights of a run and what its evaluated images are; refuses weights that are missing or damaged."""
    weights = checkpoints.read_tensors(store.own(run, store.WEIGHTS), "weight file")
    path = store.own(run, store.TRAIN_MEAN)
    train_mean = checkpoints.load_train_mean(path) if path.is_file() else None
    return Inputs(weights, train_mean, *data.seen(run))


def vote_key(run: settings.Run, device: str = "cpu", inputs: Inputs | None = None) -> Key:
    """What a run's votes depend on besides the method: weights, images, settings, device, torch and the code that samples."""
    inputs = inputs or read_inputs(run)
    train_mean = None if inputs.train_mean is None else checkpoints.digest_of({"train_mean": inputs.train_mean})
    made_by = inputs.source, inference.computed_on(device), store.code_digest(*VOTES_DEPEND_ON)
    model = checkpoints.digest_of(inputs.weights), train_mean
    return Key(settings.fingerprint(*model, run.sigma, run.profile.sampling, *made_by), inputs.images)


def load_model(run: settings.Run, device: str = "cpu", inputs: Inputs | None = None) -> mdeq.DEQ:
    """A run's trained model as it is certified: the inference form of `deq.inference`, with its training mean if it has one."""
    inference.check_device(device)
    inputs = inputs or read_inputs(run)
    model = checkpoints.load(store.own(run, store.WEIGHTS), run.model, run.profile.data, state=inputs.weights).to(device)
    model.train_mean = None if inputs.train_mean is None else inputs.train_mean.to(device)
    return inference.prepare(model)


def vote_file(run: settings.Run, method: settings.Method, key: Key, idx: int) -> Path:
    """Where one image's votes lie."""
    return store.own(run, f"votes/{method.name}-{settings.fingerprint(key.shared, method)}/{idx:05d}-{key.images[idx]}.npz")


def _read_all(run: settings.Run, method: settings.Method, key: Key, images: tuple[int, ...]) -> list[votes.ImageVotes] | None:
    files = {idx: vote_file(run, method, key, idx) for idx in images}
    if not all([file.is_file() for file in files.values()]):
        return None
    fit = partial(votes.fits, method=method, sampling=run.profile.sampling)
    return [votes.read(file, partial(fit, idx=idx)) for idx, file in files.items()]


def _record_provenance(run: settings.Run, method: settings.Method, key: Key, device: str, inputs: Inputs) -> None:
    p = run.profile
    path = vote_file(run, method, key, p.evaluated[0]).with_name("provenance.json")
    if not path.is_file():
        sealed.write_json(path, store.provenance(
            run=run.id, profile=p.name, sigma=run.sigma, method=asdict(method), sampling=asdict(p.sampling),
            weights=checkpoints.digest_of(inputs.weights), device=inference.device_name(device), data=inputs.source,
        ))
