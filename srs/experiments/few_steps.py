"""How far votes may be cut short: disagreement with the full solve against evaluations of f, for every start and solver.

Thresholds are chosen on the validation images and shown on the test images; both are measured here, each on its own.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from srs import data, sealed, settings, store
from srs.deq import inference
from srs.smoothing.engine import tqdm
from srs.settings import Method, Run
from srs.smoothing import certify, votes
from srs.smoothing.noise import Copies

SPLITS = ("val", "test")
WAY = ["start", "solver", "steps", "tol", "margin"]  # what names a way to vote


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
    run: Run, split: str, *, images: int = 25, copies: int = 40, chains: int = 10, chosen: tuple[Method, ...] = (),
    device: str = "cpu", progress: bool = True,
) -> pd.DataFrame:
    """Cost and disagreement of ways to vote with a run's trained model, read if they are stored, else measured and stored.

    A row per way: what names it, `votes`, `differing` from the reference on the same copies, `nfe` per vote without the start.

    Args:
        run: a trained run.
        split: "val", to choose from, or "test", to show.
        images, copies: images, evenly spread over the split, and noisy copies of each.
        chains: copies solved together; the first of `previous` are its warm-up and are not counted.
        chosen: of `ways`; none: all of them.
        device, progress: a torch device, and whether to show a progress bar.
    """
    settings.check(split in SPLITS, "split", split, settings.one_of(SPLITS))
    settings.check(copies >= 2 * chains, "copies", copies, f"at least two batches of {chains}")
    inference.check_device(device)
    chosen = chosen or ways(chains)
    inputs, source = certify.read_inputs(run), data.load(run.profile.data, split)
    some = np.linspace(0, len(source.labels) - 1, images).astype(int)
    path = store.measured(run, f"agreement-{split}.csv")
    shared = certify.vote_key(run, device, inputs).shared
    key = settings.fingerprint(shared, data.digest(source, some), images, copies, chains, *chosen)
    told = path.with_suffix(".json")
    if sealed.present(path) and sealed.present(told) and sealed.read_json(told, "provenance", by="").get("key") == key:
        return read(path)
    model = certify.load_model(run, device, inputs)
    profile, counted, rows = run.profile, slice(chains, None), []
    reference = replace(profile.method(profile.reference), batch=copies)
    chosen = [m for m in chosen if m.start != "anchor" or model.anchor is not None]
    for idx in tqdm(some, desc=f"agreement {run.id} {split}", unit="image", disable=not progress):
        noisy = partial(Copies, source.x(int(idx)).to(device), run.sigma, profile.seed, int(idx))

        def vote(method: Method, noisy=noisy) -> tuple[np.ndarray, int]:
            fixed, _ = votes.fixed_start(model, noisy("pilot"), method, reference=reference, precision=profile.precision)
            return votes.sample(model, noisy("estimate"), method, np.arange(copies), fixed=fixed, precision=profile.precision)

        standard = vote(reference)[0][counted]
        for method in chosen:
            drawn, nfe = vote(method)
            nfe -= chains * method.warmup if method.start == "previous" else chains * nfe / copies
            way = {name: getattr(method, name) for name in WAY}
            rows.append({**way, "votes": copies - chains, "differing": int((drawn[counted] != standard).sum()), "nfe": nfe})
    points = pd.DataFrame(rows).groupby(WAY, sort=False).sum().reset_index()
    points["nfe"] /= points["votes"]
    store.save_frame(path, points)
    sealed.write_json(told, store.provenance(
        key=key, run=run.id, split=split, size={"images": images, "copies": copies, "chains": chains},
        device=inference.device_name(device), images=source.source,
    ))  # fmt: skip
    return points


def read(path: Path) -> pd.DataFrame:
    """The stored points of a file; raises what `store.read` raises."""
    columns = {"start": str, "solver": str, "steps": int, "tol": float, "margin": float, "votes": int, "differing": int, "nfe": float}
    return store.read_frame(path, columns, "table of agreement", by="")


def front(points: pd.DataFrame) -> pd.DataFrame:
    """The ways that no other beats in both cost and disagreement, cheapest first (the Pareto front)."""
    points = points.sort_values(["nfe", "differing"], kind="stable")
    least = points["differing"].cummin().shift(fill_value=np.inf)
    return points[points["differing"] < least]
