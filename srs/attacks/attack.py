"""Attack the images of a run and store what became of them: one file per attack and group of images, then one table of all.

An attacked image is classified by fresh votes, drawn as each method draws them; the noise of attacks, of predictions and of
certificates is never the same. A killed run loses at most the images that were attacked together.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from srs import data, sealed, settings, store
from srs.analysis import measures
from srs.attacks.pgd import pgd, smoothed_gradient, solve
from srs.attacks.settings import Attack, Gradient, Suite
from srs.deq import checkpoints, inference, mdeq, memory
from srs.smoothing.engine import tqdm
from srs.smoothing import bounds, noise, votes
from srs.smoothing.bounds import ABSTAIN
from srs.store import ATTACKED, NOT_DRAWN

OWN_NOISE = 1 << 32  # added to a profile's seed: streams that no certificate has seen
EDGE = 0.999  # of a certified radius: so far inside that rounding leads nobody out
# What results depend on.
MODULES = ("deq", "smoothing/exact", "smoothing/noise", "smoothing/starts", "smoothing/votes", "attacks/pgd", "attacks/attack")


def attack_images(model: mdeq.DEQ, x: Tensor, y: Tensor, noisy: Tensor, radii: Tensor, attack: Attack) -> Tensor:
    """Attacked images (B, R, C, H, W), a radius of `radii` (B, R) after the other.

    Args:
        model: the DEQ, in eval mode.
        x, y: images (B, C, H, W), and the classes (B,) to be left.
        noisy: noise (B, m, C, H, W) of level sigma, the same in every step; one copy of 0 attacks the base classifier.
        radii, attack: how far, and how.
    """
    count = radii.shape[1]
    owner = torch.arange(len(x), device=x.device).repeat_interleave(count)

    def gradient(at: Tensor) -> Tensor:
        # Until a radius is reached, all attacks on an image walk the same way: one gradient is enough for them.
        walks, same = torch.unique(torch.cat([owner[:, None].to(at), at.flatten(1)], dim=1), dim=0, return_inverse=True)
        first = same.new_full((len(walks),), len(same)).scatter_reduce(0, same, torch.arange(len(same)).to(same), "amin")
        return smoothed_gradient(model, at[first], y[owner[first]], noisy[owner[first]], attack.gradient)[same]

    many = pgd(x[owner], gradient, radii.to(x).flatten(), steps=attack.steps, step=attack.step)
    return many.view(len(x), count, *x.shape[1:])


def vote(model: mdeq.DEQ, images: Tensor, method: settings.Method, sigma: float, e: Tensor, *, together: int) -> np.ndarray:
    """Votes (P, n) on attacked images (P, C, H, W) with noise e (P, n, C, H, W), as `votes.sample` draws them for each alone.

    With start `previous`, an image's n votes are dealt out in five batches, the first of them warmed up. About as many noisy
    copies as `together` are solved at once.
    """
    n = e.shape[1]
    batch = max(1, min(method.batch, n // 5)) if method.serialized else n
    out = np.empty((len(images), n), np.int16)
    for i in range(0, len(images), max(1, together // batch)):
        some, own = (t[i : i + max(1, together // batch)] for t in (images, e))
        width = len(some) * batch  # one batch of every image beside the other, so that each slot keeps its image

        def noisy(numbers: np.ndarray) -> Tensor:
            image, sample = numbers % width // batch, numbers // width * batch + numbers % batch
            return some[image] + sigma * own[image, sample]

        drawn, _ = votes.sample(model, noisy, replace(method, batch=width), np.arange(len(some) * n))
        out[i : i + len(some)] = drawn.reshape(-1, len(some), batch).swapaxes(0, 1).reshape(len(some), n)
    return out


def load(run: settings.Run, device: str) -> tuple[mdeq.DEQ, data.Images, tuple[str, ...]]:
    """A run's model on a device, its test images, and what results made from them depend on besides settings and code."""
    p, path = run.profile, store.own(run, store.WEIGHTS)
    settings.check(path.is_file(), "weight file", str(path), "an existing file; train first")
    inference.choose_kernels()
    memory.keep_freed()
    weights, images = checkpoints.read_tensors(path, "weight file"), data.load(p.data, "test")
    model = checkpoints.load(path, run.model, p.data, state=weights).to(device).requires_grad_(False)
    return model, images, (checkpoints.digest_of(weights), data.digest(images, p.evaluated), inference.computed_on(device))


def run_suite(run: settings.Run, suite: Suite, name: str = "attacks", *, device: str = "cpu", progress: bool = True) -> Path:
    """Do the attacks on a run that are not yet stored, and write the table `name` of all of them; returns where it is.

    The run's votes must have been drawn and counted unless `suite.n` is 0.

    Raises:
        ConfigError: weights or counts are missing, or a setting does not fit.
        sealed.DamagedFile: a stored file could not be read; it has been set aside.
    """
    inference.check_device(device)
    p = run.profile
    settings.check(p.noise == "gaussian", "noise", p.noise, "gaussian: certificates on a grid say nothing between its points")
    settings.check(suite.images <= p.images, "attacked images", suite.images, f"at most the {p.images} evaluated ones")
    settings.check(p.reference in suite.methods, "methods", suite.methods, f"{p.reference} among them")
    settings.check(suite.n % 5 == 0, "n", suite.n, "a multiple of 5, for the batches of serialized methods")
    for m in map(p.method, suite.methods):
        # A truncated solver's votes are about another classifier than the one that is attacked and audited by.
        right = m.start == "previous" or m.name == p.reference
        settings.check(right, "attacked method", m.name, f"{p.reference}, or one that starts from previous solutions")
    model, loaded, made_from = load(run, device)
    held = certificates(run, suite)
    images, tables = p.evaluated[: suite.images], []
    for attack in tqdm(suite.attacks, desc=f"attack {run.id}", unit="attack", disable=not progress):
        where = store.own(run, f"attacks/{attack.name.replace(' ', '-')}-{attack_key(run, suite, attack, held, made_from)}")
        size = max(1, suite.copies // (len(attack.radii or (0,)) * max(1, attack.vectors)))
        # Fixed groups, each a file: what is computed together rounds together.
        for group in (list(images[i : i + size]) for i in range(0, len(images), size)):
            path = where / f"{group[0]:05d}-{group[-1]:05d}.csv"
            if not sealed.present(path):
                labels = dict(zip(group, loaded.labels[group].tolist()))
                own = held[held["idx"].isin(group)]
                store.save_frame(path, _attack_group(model, run, suite, attack, loaded.x(group).to(device), labels, own))
            tables.append(store.read_frame(path, ATTACKED, "table of attacked images", by=""))
    target = store.measured(run, f"{name}.csv")
    store.save_frame(target, pd.concat(tables))
    return target


def certificates(run: settings.Run, suite: Suite) -> pd.DataFrame:
    """What the images are attacked against: every certificate by a method of the suite, the unsound rule's too, and `c_a`."""
    columns, p = ["idx", "method", "rule", "c_a", "predict", "radius"], run.profile
    if not suite.n:
        return pd.DataFrame(columns=columns)
    counted = store.read_run(run)
    settings.check(counted is not None, "result file", run.id, "counts of this run; `make` or `srs certify` makes them")
    counted = counted[counted["method"].isin(suite.methods) & counted["idx"].isin(p.evaluated[: suite.images])]
    return measures.certificates(counted, alpha=p.alpha)[columns].astype({"method": str, "rule": str})


def attack_key(run: settings.Run, suite: Suite, attack: Attack, held: pd.DataFrame, made_from: tuple[str, ...]) -> str:
    """What an attack's results depend on: weights, images, device (`made_from`), certificates, attack, measure and code."""
    measured, code = replace(suite, attacks=(), images=1, runs=()), store.code_digest(*MODULES)
    return settings.fingerprint(made_from, run.sigma, run.profile.sampling, attack, measured, held.to_csv(), code)


def _attack_group(
    model: mdeq.DEQ, run: settings.Run, suite: Suite, attack: Attack, x: Tensor, labels: dict[int, int], held: pd.DataFrame
) -> pd.DataFrame:
    """Attack some images together, then draw the votes on each: the rows of the table."""
    p, shape = run.profile, tuple(x.shape[1:])
    reference, methods = p.method(p.reference), suite.methods if suite.n else (p.reference,)
    selected = {(method, i): c_a for method, i, c_a in zip(held["method"], held["idx"], held["c_a"])}
    held = held[held["predict"] != ABSTAIN]
    sound = held[held["rule"].isin(list(map(str, measures.SOUND)))].groupby("idx")["radius"].max()
    radii = np.array([attack.radii or (EDGE * sound.get(i, 0.0),) for i in labels])  # (B, R)
    count = radii.shape[1]

    def draw(stage: str, first: int, samples: int) -> Tensor:
        numbers, seed = first + np.arange(samples), p.seed + OWN_NOISE
        return torch.stack([noise.noise(shape, seed, i, stage, numbers) for i in labels]).to(x)  # (B, samples, C, H, W)

    # Away from what the smoothed classifier says; where that is not the label, the image is lost already.
    away = [c_a if (c_a := selected.get((p.reference, i), ABSTAIN)) >= 0 else label for i, label in labels.items()]
    copies = run.sigma * draw("select", 0, attack.vectors) if attack.vectors else torch.zeros_like(x)[:, None]
    images = attack_images(model, x, torch.tensor(away, device=x.device), copies, torch.from_numpy(radii), attack)
    moved = (images.double() - x.double()[:, None]).flatten(2).norm(dim=2).cpu().numpy()  # (B, R)
    flat = images.flatten(0, 1)
    z = solve(model, model.inject(flat), Gradient(solver=reference.solver, state=reference.steps))
    base = votes.predict(model.head(z)).reshape(moved.shape)
    own = np.full((len(methods), *moved.shape), NOT_DRAWN)
    further = {}  # votes by place (b, r)
    if suite.n:
        e = draw("estimate", 0, suite.n).repeat_interleave(count, 0)
        for k, name in enumerate(methods):
            drawn = vote(model, flat, p.method(name), run.sigma, e, together=suite.copies)
            own[k] = np.apply_along_axis(bounds.top_class, -1, drawn, p.data.classes).reshape(moved.shape)
        for (b, r), answer in np.ndenumerate(own[methods.index(p.reference)]):
            certified = held[(held["idx"] == list(labels)[b]) & (held["radius"] > moved[b, r])]
            if (certified["predict"] != answer).any():
                further[b, r] = None
        if further:
            b, r = map(list, zip(*further))
            e = draw("estimate", suite.n, suite.confirm)[b]
            further = dict(zip(further, vote(model, images[b, r], reference, run.sigma, e, together=suite.copies)))
    spent, rows = attack.steps * attack.gradient.cost * max(1, attack.vectors), []
    for (b, (i, label)), r, (k, method) in product(enumerate(labels.items()), range(count), enumerate(methods)):
        c_a, confirm = selected.get((method, i), NOT_DRAWN), further.get((b, r), np.empty(0, np.int16))
        rival = bounds.top_class(confirm[confirm != c_a], p.data.classes)
        rows.append((
            i, label, attack.name, attack.steps, spent, radii[b, r], moved[b, r], base[b, r], method, suite.n, own[k, b, r], c_a,
            len(confirm), bounds.count(confirm, c_a), rival, bounds.count(confirm[confirm != c_a], rival),
        ))  # fmt: skip
    return pd.DataFrame(rows, columns=list(ATTACKED))
