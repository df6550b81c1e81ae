"""Is what is stored what the weights give, and what is here of a profile: `srs verify` and `srs doctor`."""

import importlib.metadata
import os
import platform
import secrets
import shutil
from collections.abc import Iterator

import numpy as np
import torch

from srs import data, sealed, settings, store
from srs.deq import checkpoints, inference
from srs.settings import ConfigError, Profile, Run
from srs.smoothing import certify

COMPARED = tuple(name for name in store.COLUMNS if name != "seconds")
OPTIONAL = ("distributed", "jupyterlab")
MAYBE = ("n_wrong", "n_differ")  # -1 where they were not counted


class RowDiffers(RuntimeError):
    """A stored row is not what its weights and seeds give."""


def verify(profile: Profile, *, rows: int = 5, seed: int | None = None, device: str = "cpu") -> Iterator[str]:
    """Draw rows at random from the counts that are stored or shipped, compute them anew from weights and seeds, and compare.

    Where a row compares its votes with the reference method's, these are drawn, too.

    Args:
        profile: whose counts.
        rows: how many.
        seed: of the choice; without one, rows are others each time.
        device: a torch device, of the kind that drew the votes.

    Raises:
        RowDiffers: a count differs; the lines before name it.
        ConfigError: nothing is stored, or weights or images are not here.
    """
    settings.check_count(rows, 1, "rows")
    inference.check_device(device)
    counted, seed = store.read_counts(profile), secrets.randbelow(2**32) if seed is None else seed
    chosen = np.sort(np.random.default_rng(seed).permutation(len(counted))[:rows])
    yield f"{len(chosen)} of {len(counted)} rows of {profile.name}, --seed {seed}"
    runs = {(run.model.name, run.train.recipe, run.sigma): run for run in profile.runs}
    differing = 0
    for stored in counted.iloc[chosen].to_dict("records"):
        run = runs[tuple(stored[name] for name in store.RUN)]
        compared = any(stored[name] >= 0 for name in MAYBE)
        found = recompute(run, stored["method"], stored["idx"], device, compared=compared)
        taken = {name: stored[name] for name in COMPARED if name not in MAYBE or stored[name] >= 0}
        wrong = {name: getattr(found, name) for name in taken if getattr(found, name) != taken[name]}
        told = "; ".join(f"{name} is {value}, stored {taken[name]}" for name, value in wrong.items())
        differing += bool(wrong)
        yield f"{run.id} {stored['method']} image {stored['idx']}: {told or 'equal'}"
    if differing:
        raise RowDiffers(f"{differing} of {len(chosen)} rows differ from what {inference.computed_on(device)} computes")


def recompute(run: Run, name: str, idx: int, device: str = "cpu", *, compared: bool = True) -> store.Tally:
    """The counts of one image under a method of that name, by the weights that are here, else the shipped ones.

    `compared`: with the reference method and the auditor, whose votes are then drawn, too.
    """
    if not sealed.present(store.own(run, store.WEIGHTS)):
        taken, path = checkpoints.take_from_zoo(run), store.own(run, store.WEIGHTS)
        settings.check(taken, "weight file", str(path), "an existing or a shipped one")
    method, images = run.profile.method(name), data.load(run.profile.data, "test")
    draw = certify.voter(run, device, certify.read_inputs(run))
    reference = run.profile.method(run.profile.reference)
    each = dict.fromkeys(m for m in (method, reference, method.auditor) if m) if compared else (method,)
    drawn = {m: draw(images.x(idx), int(images.labels[idx]), idx, m) for m in each}
    return certify.count_votes(drawn[method], method, run.profile.sampling, drawn.get(reference), drawn.get(method.auditor))


def doctor(profile: Profile) -> Iterator[str]:
    """One screen: this machine, the data, and what of a profile is computed, shipped or missing.

    Args:
        profile: whose runs.
    """
    found = {dist.metadata["Name"].lower() for dist in importlib.metadata.distributions()}
    others = [f"{name} {importlib.metadata.version(name)}" if name in found else f"no {name}" for name in OPTIONAL]
    yield f"python {platform.python_version()}, torch {torch.__version__}, {', '.join(others)}"
    here = torch.accelerator.current_accelerator(check_available=True)
    gpus = f"{torch.accelerator.device_count()} x {inference.device_name(here.type)}" if here else "no GPU"
    yield f"{inference.device_name('cpu')}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; {gpus}"
    yield f"{shutil.disk_usage(sealed.root()).free / 1e9:.0f} GB free at {sealed.root()}"
    for split in ("train", "test"):
        here = data.at_hand(profile.data, split)
        images = data.load(profile.data, split) if here else None
        yield f"{profile.data.name} {split}: " + (f"{len(images.labels)} images, {images.source}" if here else "not here")
    for run in profile.every_run:
        weights = store.find(run, store.WEIGHTS)
        where = "shipped" if weights == store.tracked(run, store.WEIGHTS) else "here" if weights else "missing"
        yield f"  {run.id:<28} weights {where:<8} votes {_votes(run):<12} counts {_counts(run)}"


def _votes(run: Run) -> str:
    want = [(idx, method) for idx in run.profile.evaluated for method in run.profile.methods]
    try:
        key = certify.vote_key(run)
    except (ConfigError, sealed.DamagedFile):  # no weights here, or no images
        return "missing"
    return f"{sum(sealed.present(certify.vote_file(run, method, key, idx)) for idx, method in want)} of {len(want)}"


def _counts(run: Run) -> str:
    try:
        rows = store.read_run(run)
    except (ConfigError, sealed.DamagedFile) as error:
        return str(error)
    return "missing" if rows is None else f"of {len(rows)} rows"
