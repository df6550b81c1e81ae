"""How far votes may be cut short: disagreement with the full solve against evaluations of f, for every start and solver.

Thresholds are chosen on the validation images and shown on the test images; both are measured here, each on its own.
`python -m srs.agreement --profile cifar10 --model SMALL --sigma 0.5 --recipe contractive --split val`
"""

import argparse
import csv
import io
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from srs import certify, config, data, models, paths, results, settings, shipped, store, votes
from srs.settings import Method, Run

SPLITS = ("val", "test")


@dataclass(frozen=True)
class Size:
    """How much is measured: noisy copies of some images, in chains for the start `previous`."""

    images: int = 25
    copies: int = 40
    chains: int = 10  # copies solved together; the first of `previous` are its warm-up and are not counted

    def __post_init__(self):
        config.check(self.copies >= 2 * self.chains, "copies", self.copies, f"at least two batches of {self.chains}")


@dataclass(frozen=True)
class Point:
    """What one way to vote costs and how often it differs from the reference method on the same copies."""

    start: str
    solver: str
    steps: int
    tol: float
    margin: float
    votes: int
    differing: int
    nfe: float  # evaluations of f per vote, start not included


def ways(chains: int) -> tuple[Method, ...]:
    """Every start with Anderson's steps, the other solvers from two starts, and the two rules that stop a sample early."""
    base = Method("", "anderson", 1, batch=chains, warmup=10, pilot=16)
    steps = [replace(base, start=start, steps=k) for start in settings.STARTS for k in (1, 2, 3, 4, 6, 8)]
    steps += [
        replace(base, start=start, solver=solver, steps=k)
        for solver in ("naive", "safe_anderson", "broyden")
        for start in ("zero", "centroid")
        for k in (2, 4, 8)
    ]
    stopped = [replace(base, solver="safe_anderson", start=start, steps=30) for start in ("zero", "centroid", "anchor")]
    by_tol = [replace(m, tol=tol) for m in stopped for tol in (0.3, 0.1, 0.03, 0.01, 0.003)]
    by_margin = [replace(m, margin=margin) for m in stopped for margin in (0.1, 0.2, 0.4, 0.8)]
    by_margin += [replace(base, start="calibrated", steps=4, margin=margin) for margin in (0.05, 0.1, 0.2)]
    return tuple(replace(m, name=f"{m.start}-{m.solver}-{m.steps}") for m in (*steps, *by_tol, *by_margin))


def measure(
    run: Run, split: str, size: Size = Size(), *, chosen: tuple[Method, ...] = (), device: str = "cpu", progress: bool = True
) -> list[Point]:
    """The points of a run's trained model on one split, read if they are stored, else measured and stored.

    Args:
        run: a trained run.
        split: "val", to choose from, or "test", to show.
        size: how much to measure.
        chosen: of `ways`; none: all of them.
        device: a torch device.
        progress: whether to show a progress bar.
    """
    config.check(split in SPLITS, "split", split, config.one_of(SPLITS))
    chosen = chosen or ways(size.chains)
    path, key = paths.measured(run, f"agreement-{split}"), config.fingerprint(
        certify.vote_key(run), size, *chosen
    )
    told = paths.provenance(path)
    if store.present(path) and store.present(told) and store.read_json(told, "provenance", by="srs.agreement").get("key") == key:
        return read(path)
    model, images = certify.load_model(run, device), data.load(run.profile.data, split)
    some = np.linspace(0, len(images.labels) - 1, size.images).astype(int)
    profile, found = run.profile, {}
    reference, counted = profile.method(profile.reference), slice(size.chains, None)
    for idx in tqdm(some, desc=f"agreement {run.id} {split}", unit="image", disable=not progress):
        x = images.x(int(idx)).to(device)

        def draw(stage: str):
            return lambda samples: votes.noise(tuple(x.shape), profile.seed, int(idx), stage, samples)

        def vote(method: Method, samples: np.ndarray) -> tuple[np.ndarray, int]:
            fixed, _ = votes.fixed_start(model, x, method, run.sigma, draw("pilot"), reference=reference)
            return votes.sample(model, x, method, run.sigma, samples, draw("estimate"), fixed=fixed)

        every = np.arange(size.copies)
        standard = vote(replace(reference, batch=size.copies), every)[0][counted]
        for method in chosen:
            if method.start == "anchor" and model.anchor is None:
                continue
            drawn, nfe = vote(method, every)
            nfe -= size.chains * method.warmup if method.start == "previous" else size.chains * nfe / size.copies
            differing, spent = found.get(method, (0, 0.0))
            found[method] = (differing + int((drawn[counted] != standard).sum()), spent + nfe)
    total = size.images * (size.copies - size.chains)
    points = [
        Point(m.start, m.solver, m.steps, m.tol, m.margin, total, differing, spent / total)
        for m, (differing, spent) in found.items()
    ]
    write(path, points)
    results.write_json(told, results.provenance(
        key=key, run=run.id, split=split, size=asdict(size), device=models.device_name(device), images=images.source,
    ))  # fmt: skip
    return points


def stored(run: Run, split: str) -> list[Point] | None:
    """What was measured of a run here, or what is shipped of it; None if there is neither."""
    path = shipped.measured(run, f"agreement-{split}")
    return path and read(path)


def write(path: Path, points: list[Point]) -> None:
    """Store points as a table, whole or not at all."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([f.name for f in fields(Point)])
    table.writerows([[getattr(p, f.name) for f in fields(Point)] for p in points])
    store.save(path, text.getvalue().encode())


def read(path: Path) -> list[Point]:
    """The stored points of a file; DamagedFile if it does not parse."""
    def parse(body: bytes) -> list[Point]:
        rows = csv.DictReader(io.StringIO(body.decode()))
        return [Point(**{f.name: f.type(row[f.name]) for f in fields(Point)}) for row in rows]

    return store.read(path, "table of agreement", parse, by="srs.agreement")


def front(points: list[Point]) -> list[Point]:
    """The points that no other point beats in both cost and disagreement, cheapest first (the Pareto front)."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.nfe, p.differing)):
        if not kept or point.differing < kept[-1].differing:
            kept.append(point)
    return kept


def main(argv: list[str] | None = None) -> None:
    """Measure one run on one split."""
    parser = argparse.ArgumentParser(prog="python -m srs.agreement", description=main.__doc__)
    config.add_run_arguments(parser)
    parser.add_argument("--split", default="val", choices=SPLITS)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    try:
        run = config.get_run(args.profile, args.model, args.sigma, args.recipe)
        for point in front(measure(run, args.split, device=args.device)):
            print(point)
    except (config.ConfigError, paths.DamagedFile) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
