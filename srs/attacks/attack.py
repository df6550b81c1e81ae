"""Attack the images of a run and store what became of them: one file per attack and group of images, then one table of all.

Fresh votes of the reference classify an attacked image; noise of attacks, predictions and certificates is never the same.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from srs import data, settings, store
from srs.analysis import measures
from srs.attacks.pgd import pgd, smoothed_gradient, solve
from srs.attacks.settings import Attack, Gradient, Suite
from srs.deq import checkpoints, inference, mdeq
from srs.smoothing import bounds, certify, engine, noise, votes
from srs.smoothing.bounds import ABSTAIN
from srs.store import ATTACKED, NOT_DRAWN

OWN_NOISE = 1 << 32  # added to a profile's seed: streams that no certificate has seen
EDGE = 0.999  # of a certified radius: so far inside that rounding leads nobody out
MODULES = (*certify.VOTES_DEPEND_ON, "attacks/pgd", "attacks/attack")  # what results depend on


def attack_images(model: mdeq.DEQ, x: Tensor, y: Tensor, noisy: Tensor, radii: Tensor, attack: Attack) -> Tensor:
    """Attacked images (B, R, C, H, W) of x (B, C, H, W), away from classes y (B,), within each of `radii` (B, R).

    `noisy` is noise (B, m, C, H, W) of level sigma, the same in every step; one copy of 0 attacks the base classifier.
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
    """Votes (P, n) of standard RS on images (P, C, H, W) with noise e (P, n, C, H, W), `together` copies at a time."""
    n = e.shape[1]

    def noisy(numbers: np.ndarray) -> Tensor:
        return images[numbers // n] + sigma * e[numbers // n, numbers % n]

    return votes.sample(model, noisy, replace(method, batch=together), np.arange(len(images) * n))[0].reshape(len(images), n)


def run_suite(
    run: settings.Run, suite: Suite, name: str = "attacks", *, device: str = "cpu", workers: int = 1, scheduler: str = "",
    progress: bool = True,
) -> Path:
    """Do the attacks on a run that are not yet stored, and write the table `name` of all of them; returns where it is.

    ConfigError if weights or counts are missing; DamagedFile if a stored file could not be read: it has been set aside.
    """
    engine.check(workers, scheduler)
    inference.check_device(device)
    p = run.profile
    settings.check(p.noise == "gaussian", "noise", p.noise, "gaussian: attacked images are off any grid")
    full = p.method(p.reference)
    for m in map(p.method, suite.methods):  # a truncated solver's certificates are about another classifier than the full one's
        auditor = m.auditor or full
        right = m == full or (m.needs_audit and auditor.steps == full.steps and auditor.tol <= settings.STOP.tol)
        settings.check(right, "attacked method", m.name, f"{full.name}, or one that a full solve of {full.steps} steps audits")
    weights, loaded = checkpoints.read_tensors(store.own(run, store.WEIGHTS), "weight file"), data.load(p.data, "test")
    made_from = checkpoints.digest_of(weights), data.digest(loaded, p.evaluated), inference.computed_on(device)
    held, images = certificates(run, suite), p.evaluated[: suite.images]
    paths, todo = [], []
    for attack in suite.attacks:
        key = attack_key(run, suite, attack, held, made_from)
        size = max(1, suite.copies // (len(attack.radii or (0,)) * max(1, attack.vectors)))
        # Fixed groups, each a file: what is computed together rounds together.
        for group in (list(images[i : i + size]) for i in range(0, len(images), size)):
            paths.append(store.own(run, f"attacks/{attack.name.replace(' ', '-')}-{key}/{group[0]:05d}-{group[-1]:05d}.csv"))
            if not paths[-1].is_file():
                todo.append((paths[-1], attack, group))
    if todo:
        costs = [len(group) * len(a.radii or (0,)) * (a.nfe + (suite.n + 1) * full.steps) for _, a, group in todo]
        given = ((a, loaded.x(group), dict(zip(group, loaded.labels[group].tolist()))) for _, a, group in todo)
        prepare = certify.prepared(partial(attacker, run, suite, weights, held), device, MODULES)
        with closing(engine.compute(prepare, given, workers=min(workers, len(todo)), scheduler=scheduler)) as found:
            for i, rows in engine.shown(found, f"attack {run.id}", costs, progress=progress):
                store.save_frame(todo[i][0], rows)
    target = store.own(run, f"{name}.csv")
    store.save_frame(target, pd.concat(store.read_frame(path, ATTACKED, "table of attacked images", by="") for path in paths))
    return target


def attacker(run: settings.Run, suite: Suite, weights: dict[str, Tensor], held: pd.DataFrame, device: str) -> Callable:
    """A run's model as a function that attacks a group of images: of an attack, the images, and their labels by position."""
    inference.choose_kernels()
    model = checkpoints.load(store.own(run, store.WEIGHTS), run.model, run.profile.data, state=weights)
    return partial(_attack_group, model.to(device).requires_grad_(False), run, suite, held, device)


def certificates(run: settings.Run, suite: Suite) -> pd.DataFrame:
    """What the images are attacked against: every certificate by a method of the suite, the unsound rule's too, and `c_a`."""
    columns = ["idx", "method", "rule", "c_a", "predict", "radius"]
    if not suite.n:
        return pd.DataFrame(columns=columns)
    counted = store.read_run(run)
    settings.check(counted is not None, "result file", run.id, "counts of this run; `make` or `srs certify` makes them")
    counted = counted[counted["method"].isin(suite.methods) & counted["idx"].isin(run.profile.evaluated[: suite.images])]
    return measures.certificates(counted, alpha=run.profile.alpha)[columns].astype({"method": str, "rule": str})


def attack_key(run: settings.Run, suite: Suite, attack: Attack, held: pd.DataFrame, made_from: tuple[str, ...]) -> str:
    """What an attack's results depend on: weights, images, device (`made_from`), certificates, attack, measure and code."""
    measured, code = replace(suite, attacks=(), images=1, runs=()), store.code_digest(*MODULES)
    return settings.fingerprint(made_from, run.sigma, run.profile.sampling, attack, measured, held.to_csv(), code)


def _attack_group(
    model: mdeq.DEQ, run: settings.Run, suite: Suite, held: pd.DataFrame, device: str, attack: Attack, x: Tensor,
    labels: dict[int, int],
) -> pd.DataFrame:
    """Attack some images together, then draw the votes on each: the rows of the table."""
    p, images, x = run.profile, list(labels), x.to(device)
    held = held[held["idx"].isin(images)]
    reference = p.method(p.reference)
    selected = held[held["method"] == p.reference].set_index("idx")["c_a"].to_dict()
    held = held[held["predict"] != ABSTAIN]
    sound = held[held["rule"].isin(list(map(str, measures.SOUND)))].groupby("idx")["radius"].max()
    radii = np.array([attack.radii or (EDGE * sound.get(i, 0.0),) for i in images])  # (B, R)

    def draw(stage: str, first: int, samples: int, of: list[int] = images) -> Tensor:
        numbers, seed = first + np.arange(samples), p.seed + OWN_NOISE
        return torch.stack([noise.noise(tuple(x.shape[1:]), seed, i, stage, numbers) for i in of]).to(x)

    # Away from what the smoothed classifier says; where that is not the label, the image is lost already.
    away = [c_a if (c_a := selected.get(i, ABSTAIN)) >= 0 else label for i, label in labels.items()]
    copies = run.sigma * draw("select", 0, attack.vectors) if attack.vectors else torch.zeros_like(x)[:, None]
    moved = attack_images(model, x, torch.tensor(away, device=x.device), copies, torch.from_numpy(radii), attack)
    distance = (moved.double() - x.double()[:, None]).flatten(2).norm(dim=2).cpu().numpy()  # (B, R)
    flat = moved.flatten(0, 1)
    z = solve(model, model.inject(flat), Gradient(solver=reference.solver, state=reference.steps))
    base, own = votes.predict(model.head(z)).reshape(radii.shape), np.full(radii.shape, NOT_DRAWN)
    if suite.n:
        e = draw("estimate", 0, suite.n).repeat_interleave(radii.shape[1], 0)
        first = vote(model, flat, reference, run.sigma, e, together=suite.copies)
        own = np.apply_along_axis(bounds.top_class, 1, first, p.data.classes).reshape(radii.shape)
    rows = []
    for b, r in np.ndindex(radii.shape):
        certified, further = held[(held["idx"] == images[b]) & (held["radius"] > distance[b, r])], np.empty(0, np.int16)
        if (certified["predict"] != own[b, r]).any():
            e = draw("estimate", suite.n, suite.confirm, [images[b]])
            further = vote(model, moved[b, r][None], reference, run.sigma, e, together=suite.copies)[0]
        told = " ".join(map(str, np.bincount(further[further >= 0], minlength=p.data.classes))) if len(further) else ""
        rows.append((
            images[b], labels[images[b]], attack.name, attack.steps, attack.nfe, radii[b, r], distance[b, r], base[b, r],
            suite.n, own[b, r], told,
        ))  # fmt: skip
    return pd.DataFrame(rows, columns=list(ATTACKED))
