"""Attack the images of a profile and store what became of them: one file per image and attack, then one line per point.

PGD on the base classifier is driven by a library (`library`), Smooth-PGD is ours (`adversary`). An attacked image is
then classified by fresh votes, drawn as each method draws them; the noise of attacks, of predictions and of
certificates is never the same. A killed run loses at most the images that were attacked together.

`python -m srs.attacks --profile digits --model SMALL --sigma 0.5`
"""

import argparse
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from srs import adversary, bounds, config, data, memory, models, paths, points, results, store, tables, threats, votes
from srs.bounds import ABSTAIN
from srs.points import NOT_DRAWN, Point
from srs.solvers import SOLVERS
from srs.threats import Attack, Battery

OWN_NOISE = 1 << 32  # added to a profile's seed: streams that no certificate has seen
MODULES = (  # the code that an attacked image and its votes depend on
    "models", "solvers", "starts", "votes", "exact", "losses", "adversary", "library", "attacks",
)  # fmt: skip

EDGE = 0.999  # of a certified radius: so far inside that rounding leads nobody out

Held = Mapping[int, list[tuple[int, float, bool]]]  # by image: class, radius and soundness of each of its certificates


@dataclass(frozen=True)
class Attacked:
    """What one attack made of one image, at every radius."""

    idx: int
    label: int
    away_from: int  # the class that was attacked
    radii: np.ndarray  # (R,) float64
    images: np.ndarray  # (R, C, H, W) float32
    distance: np.ndarray  # (R,) float64 from the original
    base: np.ndarray  # (R,) int16 what the base classifier answers, without noise, by the reference solve
    votes: np.ndarray  # (M, R, n) int16 votes on the attacked images, by the methods of the battery
    confirm: np.ndarray  # (R, confirm) int16 further votes of the reference method, or NOT_DRAWN


def attack_images(model: models.DEQ, x: Tensor, y: Tensor, noise: Tensor, radii: Tensor, attack: Attack) -> Tensor:
    """Attacked images (B, R, C, H, W), a radius after the other.

    Args:
        model: the DEQ, in eval mode.
        x: images (B, C, H, W).
        y: the classes (B,) to be left.
        noise: of level sigma, (B, m, C, H, W), the same in every step and for every radius; not used if m = 0.
        radii: (B, R).
        attack: which.
    """
    count, radius = radii.shape[1], radii.to(x).flatten()
    many, owner = x.repeat_interleave(count, 0), torch.arange(len(x), device=x.device).repeat_interleave(count)

    def gradient(at: Tensor) -> Tensor:
        # Until a radius is reached, all attacks on an image walk the same way: one gradient is enough for them.
        _, same = torch.unique(torch.cat([owner[:, None].to(at), at.flatten(1)], dim=1), dim=0, return_inverse=True)
        first = torch.full_like(same, len(same)).scatter_reduce(0, same, torch.arange(len(same)).to(same), "amin")
        first = first[: int(same.max()) + 1]
        i = owner[first]
        return adversary.smoothed_gradient(model, at[first], y[i], noise[i], attack.gradient)[same]

    if attack.steps and attack.vectors:
        many = adversary.pgd(many, gradient, radius, steps=attack.steps, step=attack.step)
    elif attack.steps:
        from srs import library  # takes seconds to import

        many = library.pgd(model, many, y[owner], attack, radius)
    return many.view(len(x), count, *x.shape[1:])


@torch.no_grad()
def classify(model: models.DEQ, x: Tensor, reference: config.Method) -> np.ndarray:
    """What the base classifier answers on images (B, C, H, W) without noise."""
    u = model.inject(x)
    return votes.predict(model.head(SOLVERS[reference.solver](model.f, model.initial(u), u, max_steps=reference.steps).z))


def vote(
    model: models.DEQ, images: Tensor, method: config.Method, sigma: float, noise: Tensor, *, together: int
) -> np.ndarray:
    """Votes (P, n) on attacked images (P, C, H, W) by a method, as `votes.sample` draws them for each image alone.

    Args:
        model: the DEQ.
        images: the attacked images.
        method: which starts from zero or from previous solutions; in the latter case an image's n votes are dealt out in
            five batches, the first of them warmed up.
        sigma: noise level.
        noise: standard normal, (P, n, C, H, W).
        together: about how many noisy copies are solved at once.
    """
    n = noise.shape[1]
    batch = max(1, min(method.batch, n // 5)) if method.serialized else n
    out = np.empty((len(images), n), np.int16)
    for i in range(0, len(images), max(1, together // batch)):
        some, e = (t[i : i + max(1, together // batch)] for t in (images, noise))
        width = len(some) * batch  # one batch of every image beside the other, so that each slot keeps its image

        def noisy(numbers: np.ndarray) -> Tensor:
            image, sample = numbers % width // batch, numbers // width * batch + numbers % batch
            return some[image] + sigma * e[image, sample]

        drawn, _ = votes.sample(
            model, torch.zeros_like(images[0]), replace(method, batch=width), 1.0, np.arange(len(some) * n), noisy
        )
        out[i : i + len(some)] = drawn.reshape(-1, len(some), batch).swapaxes(0, 1).reshape(len(some), n)
    return out


def run_battery(run: config.Run, battery: Battery, *, device: str = "cpu", progress: bool = True) -> dict[str, Path]:
    """Do the attacks on a run that are not yet stored, and write the lines of all of them.

    Args:
        run: which trained model; its votes must have been drawn and counted unless `battery.n` is 0.
        battery: the attacks and how their success is measured.
        device: a torch device.
        progress: whether to show a progress bar.

    Returns:
        The file of lines of every attack.

    Raises:
        config.ConfigError: weights or tallies are missing, or a setting does not fit.
        paths.DamagedFile: a stored file could not be read; it has been set aside.
    """
    p = run.profile
    config.check(p.noise == "gaussian", "noise", p.noise, "gaussian: certificates on a grid say nothing between its points")
    config.check(battery.images <= p.images, "attacked images", battery.images, f"at most the {p.images} evaluated ones")
    config.check(p.reference in battery.methods, "methods", battery.methods, f"{p.reference} among them")
    config.check(battery.n % 5 == 0, "n", battery.n, "a multiple of 5, for the batches of serialized methods")
    for m in map(p.method, battery.methods):
        # A truncated solver's votes are about another classifier than the one that is attacked and audited by.
        right = m.start == "previous" or m.name == p.reference
        config.check(right, "attacked method", m.name, f"{p.reference}, or one that starts from previous solutions")
    config.check(paths.weights(run).is_file(), "weight file", str(paths.weights(run)), "an existing file; train first")
    tallies = tallies_of(run) if battery.n else {}
    images = p.evaluated[: battery.images]
    held = certificates(run, battery, images, tallies)
    models.choose_kernels(tf32=False)
    memory.keep_freed()
    model = models.load(paths.weights(run), run.model, p.data).to(device).requires_grad_(False)
    loaded = data.load(p.data, "test")
    written = {}
    for attack in tqdm(battery.attacks, desc=f"attack {run.id}", unit="attack", disable=not progress):
        where = points.folder(run) / f"{attack.name.replace(' ', '-')}-{attack_key(run, battery, attack, held)}"
        size = max(1, battery.copies // (len(attack.radii or (0,)) * max(1, attack.vectors)))
        # Fixed groups, done again as a whole: what is computed together rounds together.
        for group in (images[i : i + size] for i in range(0, len(images), size)):
            if not all(store.present(where / f"{i:05d}.npz") for i in group):
                x, label = loaded.x(list(group)).to(device), loaded.labels[list(group)].tolist()
                answers = _answers(run, group, tallies, p.reference)
                # Away from what the smoothed classifier says; where that is not the label, the image is lost already.
                away_from = [answers[i] if answers[i] >= 0 else y for i, y in zip(group, label)]
                for one in _attack_group(model, run, battery, attack, x, label, away_from, {i: held[i] for i in group}):
                    write(where / f"{one.idx:05d}.npz", one)
        lines = [line for i in images for line in _lines(run, battery, attack, read(where / f"{i:05d}.npz"), tallies)]
        written[attack.name] = points.points_file(run, attack)
        points.write(written[attack.name], lines)
    return written


def _attack_group(
    model: models.DEQ, run: config.Run, battery: Battery, attack: Attack, x: Tensor, label: list[int],
    away_from: list[int], held: Held,
) -> list[Attacked]:
    """Attack some images together, then draw the votes on each."""
    p, seed, reference = run.profile, run.profile.seed + OWN_NOISE, run.profile.method(run.profile.reference)
    edges = [EDGE * max((radius for _, radius, sound in held[i] if sound), default=0.0) for i in held]
    radii = np.array([attack.radii or (edge,) for edge in edges])  # (B, R)
    count = radii.shape[1]

    def noise(stage: str, first: int, samples: int) -> Tensor:
        where, numbers = (tuple(x.shape[1:]), seed), first + np.arange(samples)
        return torch.stack([votes.noise(*where, i, stage, numbers) for i in held]).to(x)  # (B, samples, C, H, W)

    y = torch.tensor(away_from, device=x.device)
    images = attack_images(model, x, y, run.sigma * noise("select", 0, attack.vectors), torch.from_numpy(radii), attack)
    moved = (images.double() - x.double()[:, None]).flatten(2).norm(dim=2).cpu().numpy()  # (B, R)
    flat = images.flatten(0, 1)
    drawn = np.full((len(battery.methods), len(x), count, battery.n), NOT_DRAWN, np.int16)
    confirm = np.full((len(x), count, battery.confirm), NOT_DRAWN, np.int16)
    if battery.n:
        e = noise("estimate", 0, battery.n).repeat_interleave(count, 0)
        for k, name in enumerate(battery.methods):
            drawn[k] = vote(model, flat, p.method(name), run.sigma, e, together=battery.copies).reshape(drawn[k].shape)
        first = drawn[battery.methods.index(p.reference)].reshape(len(flat), -1)
        doubted = [
            any(distance < radius and bounds.top_class(votes, p.data.classes) != c_a for c_a, radius, _ in held[idx])
            for idx, distance, votes in zip(np.repeat(list(held), count).tolist(), moved.ravel(), first)
        ]
        if any(doubted):
            e = noise("estimate", battery.n, battery.confirm).repeat_interleave(count, 0)[doubted]
            where = np.array(doubted).reshape(confirm.shape[:2])
            confirm[where] = vote(model, flat[doubted], reference, run.sigma, e, together=battery.copies)
    base = classify(model, flat, reference).reshape(len(x), count)
    return [
        Attacked(i, label[b], away_from[b], radii[b], images[b].cpu().numpy(), moved[b], base[b], drawn[:, b], confirm[b])
        for b, i in enumerate(held)
    ]


# ------------------------------------------------------------------------------------------------ certificates


def tallies_of(run: config.Run) -> tables.Tallies:
    """The stored tallies of one run."""
    return tables.load(replace(run.profile, models=((run.model, run.train),), sigmas=(run.sigma,)))


def certificates(run: config.Run, battery: Battery, images: tuple[int, ...], tallies: tables.Tallies) -> Held:
    """Every certificate of the images by a method of the battery, the unsound rule's too: they are put to the test."""
    held, p = {idx: [] for idx in images}, run.profile
    for method in map(p.method, battery.methods if battery.n else ()):
        idx = tallies[run.id, method.name]["idx"].tolist()
        for rule in bounds.rules_for(method.serialized):
            certified = tables.certify(run, method, tallies, rule)
            for i, c_a, radius in zip(idx, certified.predict.tolist(), certified.radius.tolist()):
                if i in held and c_a != ABSTAIN:
                    held[i].append((c_a, radius, rule.sound))
    return held


def attack_key(run: config.Run, battery: Battery, attack: Attack, held: Held) -> str:
    """What an attack's results depend on: weights, certificates, the attack, how its success is measured, and the code."""
    measured = {k: v for k, v in asdict(battery).items() if k not in ("attacks", "images")}
    before = sorted((idx, *certificate) for idx, several in held.items() for certificate in several)
    weights, code = models.digest(paths.weights(run)), results.code_digest(*MODULES)
    return config.fingerprint(weights, run.sigma, run.profile.sampling, attack, measured, before, code)


def _answers(run: config.Run, images: tuple[int, ...], tallies: tables.Tallies, method: str) -> dict[int, int]:
    """What a method's stored votes select for images before any attack."""
    if not tallies:
        return dict.fromkeys(images, NOT_DRAWN)
    stored = tallies[run.id, method]
    return {idx: c_a for idx, c_a in zip(stored["idx"].tolist(), stored["c_a"].tolist()) if idx in images}


# ------------------------------------------------------------------------------------------------ what is stored


def _lines(run: config.Run, battery: Battery, attack: Attack, one: Attacked, tallies: tables.Tallies) -> list[Point]:
    """The lines of one image: one per radius and method."""
    lines, classes = [], run.profile.data.classes
    for r, radius in enumerate(one.radii.tolist()):
        confirm = one.confirm[r][one.confirm[r] != NOT_DRAWN]
        for k, method in enumerate(battery.methods if battery.n else (run.profile.reference,)):
            c_a = _answers(run, (one.idx,), tallies, method)[one.idx]
            others = confirm[confirm != c_a]
            rival = bounds.top_class(others, classes)
            lines.append(Point(
                one.idx, one.label, attack.name, radius, float(one.distance[r]), int(one.base[r]), method, battery.n,
                bounds.top_class(one.votes[k, r], classes) if battery.n else NOT_DRAWN, c_a,
                len(confirm), int((confirm == c_a).sum()), rival, int((others == rival).sum()),
            ))  # fmt: skip
    return lines


def write(path: Path, attacked: Attacked) -> None:
    """Store what one attack made of one image, whole or not at all."""
    store.save(path, votes.archive(**vars(attacked)))


def read(path: Path) -> Attacked:
    """Read what one attack made of one image.

    Raises:
        paths.DamagedFile: the file cannot be read or lacks a part; it has been set aside.
    """
    def parse(body: bytes) -> Attacked:
        with np.load(io.BytesIO(body), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in Attacked.__dataclass_fields__}
        return Attacked(**arrays | {name: int(arrays[name]) for name in ("idx", "label", "away_from")})

    return store.read(path, "file of one attacked image", parse, by="srs.attacks")


def main(argv: list[str] | None = None) -> None:
    """Attack one run's images, at the settings of its profile."""
    parser = argparse.ArgumentParser(prog="python -m srs.attacks", description=main.__doc__)
    config.add_run_arguments(parser)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    try:
        run = config.get_run(args.profile, args.model, args.sigma, args.recipe)
        written = run_battery(run, threats.BATTERIES[run.profile.name], device=args.device)
    except (config.ConfigError, paths.DamagedFile) as error:
        parser.error(str(error))
    for name, path in written.items():
        print(name, path)


if __name__ == "__main__":
    main()
