"""Is what is stored what the weights give, and what is here of a profile: `srs verify` and `srs doctor`."""

import contextlib
import os
import platform
import secrets
import shutil
from collections.abc import Iterator

import numpy as np
import torch

from srs import data, sealed, settings, store
from srs.deq import checkpoints, inference
from srs.smoothing import certify

MAYBE = ("n_wrong", "n_differ")  # -1 where they were not counted


class RowDiffers(RuntimeError):
    """A stored row is not what its weights and seeds give."""


def verify(profile: settings.Profile, *, rows: int = 5, seed: int | None = None, device: str = "cpu") -> Iterator[str]:
    """Draw rows at random from stored or shipped counts, compute them anew from weights and seeds; RowDiffers if one differs.

    Args:
        rows: how many.
        seed: of the choice; without one, rows are others each time.
    """
    settings.check_count(rows, 1, "rows")
    inference.check_device(device)
    counted, seed = store.read_counts(profile), secrets.randbelow(2**32) if seed is None else seed
    chosen = np.sort(np.random.default_rng(seed).permutation(len(counted))[:rows])
    yield f"{len(chosen)} of {len(counted)} rows of {profile.name}, --seed {seed}"
    runs, differing = {(run.model.name, run.train.recipe, run.sigma): run for run in profile.runs}, 0
    for row in counted.iloc[chosen].to_dict("records"):
        run, left_out = runs[tuple(row[name] for name in store.RUN)], [name for name in MAYBE if row[name] < 0]
        found = recompute(run, row["method"], row["idx"], device, compared=len(left_out) < len(MAYBE))
        taken = {name: row[name] for name in store.COLUMNS if name not in ("seconds", *left_out)}
        wrong = {name: value for name, value in taken.items() if getattr(found, name) != value}
        told = "; ".join(f"{name} is {getattr(found, name)}, stored {value}" for name, value in wrong.items())
        differing += bool(wrong)
        yield f"{run.id} {row['method']} image {row['idx']}: {told or 'equal'}"
    if differing:
        raise RowDiffers(f"{differing} of {len(chosen)} rows differ from what {inference.computed_on(device)} computes")


def recompute(run: settings.Run, name: str, idx: int, device: str, *, compared: bool) -> store.ImageCounts:
    """The counts of one image by the weights that are here, else the shipped ones; `compared`: with reference and auditor."""
    if not (path := store.own(run, store.WEIGHTS)).is_file():
        settings.check(checkpoints.take_from_zoo(run), "weight file", str(path), "an existing or a shipped one")
    p, images = run.profile, data.load(run.profile.data, "test")
    method, reference, draw = p.method(name), p.method(p.reference), certify.voter(run, certify.read_inputs(run), device)
    asked = dict.fromkeys((method, reference, method.auditor) if compared else (method,))
    drawn = {m: draw(images.x(idx), int(images.labels[idx]), idx, m) for m in asked if m}
    return certify.count_votes(drawn[method], method, p.sampling, drawn.get(reference), drawn.get(method.auditor))


def doctor(profile: settings.Profile) -> Iterator[str]:
    """One screen: this machine, the data, and what of a profile is computed, shipped or missing."""
    yield f"python {platform.python_version()}, torch {torch.__version__}"
    here = torch.accelerator.current_accelerator(check_available=True)
    gpus = f"{torch.accelerator.device_count()} x {inference.device_name(here.type)}" if here else "no GPU"
    yield f"{inference.device_name('cpu')}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; {gpus}"
    yield f"{shutil.disk_usage(sealed.root()).free / 1e9:.0f} GB free at {sealed.root()}"
    for split in ("train", "test"):
        images = data.load(profile.data, split) if data.at_hand(profile.data, split) else None
        yield f"{profile.data.name} {split}: " + (f"{len(images.labels)} images, {images.source}" if images else "not here")
    for run in profile.every_run:
        weights, votes = store.find(run, store.WEIGHTS), "missing"
        where = "shipped" if weights == store.tracked(run, store.WEIGHTS) else "here" if weights else "missing"
        with contextlib.suppress(settings.ConfigError, sealed.DamagedFile):  # no weights here, or no images
            inputs, want = certify.read_inputs(run), [(m, idx) for m in run.profile.methods for idx in run.profile.evaluated]
            votes = f"{sum(certify.vote_file(run, m, inputs, idx).is_file() for m, idx in want)} of {len(want)}"
        try:
            rows = store.read_run(run)
            counts = "missing" if rows is None else f"of {len(rows)} rows"
        except (settings.ConfigError, sealed.DamagedFile) as error:
            counts = str(error)
        yield f"  {run.id:<28} weights {where:<8} votes {votes:<12} counts {counts}"
