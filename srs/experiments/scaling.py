"""How long a certification takes on many cores, from what an evaluation of f and a task cost here: `srs scaling`."""

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from srs import profiles, settings, store
from srs.deq import inference, mdeq
from srs.settings import Run
from srs.smoothing import certify, engine, votes

NAME = "scaling.csv"
WHOLE = {"cifar10": 10_000, "imagenet": 50_000}  # images of the whole test set
NS = (10_000, 100_000)
KINDS = {"what": str, "value": float}


def measure(run: Run, *, tasks: int = 200, workers: int = 2) -> Path:
    """Measure CPU seconds of an evaluation of f and of a task that does nothing, for `projection`; where the table is.

    CPU seconds, because other programs on the machine do not add to them.

    Args:
        run: beside whose results the table is kept.
        tasks: how many do nothing.
        workers: that do it.
    """
    torch.set_num_threads(1)
    driver, worker = overhead(tasks, workers)
    found = {"driver, per task": driver, "worker, per task": worker}
    for profile in _published():
        found[f"evaluation of f, {profile.data.name}"] = evaluation(profile.runs[0].model, profile.data)
    store.save_frame(path := store.measured(run, NAME), pd.DataFrame(found.items(), columns=list(KINDS)))
    return path


def evaluation(model: settings.Model, data: settings.Data, batch: int = 8, times: int = 3) -> float:
    """CPU seconds of one evaluation of f for one image, by a model that was not trained; the least of some."""
    network = inference.prepare(mdeq.build(model, data, 0))
    with torch.inference_mode():
        u = network.inject(torch.rand(batch, *data.shape))
        z, spent = network.initial(u), []
        for _ in range(times + 1):  # the first one allocates
            began = time.process_time()
            z = network.f(z, u)
            spent.append((time.process_time() - began) / batch)
    return min(spent[1:])


def overhead(tasks: int, workers: int, n: int = 10_000) -> tuple[float, float]:
    """CPU seconds per task, of the driver (it holds the scheduler and writes the file of n votes) and of a worker."""
    drawn = votes.ImageVotes(
        0, 0, np.zeros(100, np.int16), np.zeros(n, np.int16), np.zeros(400, np.int32), np.zeros(400, np.int16),
        np.zeros(3, int), np.zeros(3),
    )  # fmt: skip
    began, by = 0.0, {}
    with tempfile.TemporaryDirectory() as folder:
        work = engine.compute(lambda: _answer, ((torch.rand(3, 32, 32), drawn) for _ in range(tasks)), workers=workers)
        for i, (votes_, worker, spent) in work:
            began = began or time.process_time()
            votes.write(Path(folder) / f"{i}.npz", votes_)
            by.setdefault(worker, []).append(spent)
        driver = (time.process_time() - began) / (tasks - 1)
    return driver, float(np.mean([(max(spent) - min(spent)) / (len(spent) - 1) for spent in by.values()]))


def _answer(x: torch.Tensor, drawn: votes.ImageVotes) -> tuple[votes.ImageVotes, int, float]:
    return drawn, os.getpid(), time.process_time()


def read(run: Run) -> dict[str, float]:
    """What `measure` found, here or as shipped."""
    path = store.find(run, NAME)
    settings.check(path is not None, "measurements", str(store.measured(run, NAME)), "an existing file; `srs scaling` makes one")
    return dict(store.read_frame(path, KINDS, "table of measurements", by="scaling").itertuples(index=False))


def projection(measured: Mapping[str, float], cores: int = 64) -> pd.DataFrame:
    """How long whole test sets take at the paper's sample sizes: work over cores, or the driver's share of it if longer."""
    rows = []
    for profile in _published():
        name, images = profile.data.name, WHOLE[profile.data.name]
        for n in NS:
            row = {"data": name, "images": f"{images:,}", "N": f"{n:,}"}
            longest = max((m for m in profile.methods if m.serialized), key=lambda m: m.steps)
            for method in (profile.method(profile.reference), longest):
                nfe = certify.most_nfe(method, replace(profile.sampling, n=n))
                each = nfe * measured[f"evaluation of f, {name}"] + measured["worker, per task"]
                seconds = images * max(each / cores, measured["driver, per task"])
                row[f"{'SRS' if method.serialized else 'RS'}, {cores} cores"] = _duration(seconds)
            row["cores that one driver keeps busy"] = f"{each / measured['driver, per task']:,.0f}"  # with the cheaper method
            rows.append(row)
    return pd.DataFrame(rows)


def _published() -> list[settings.Profile]:
    """The profiles with the paper's own settings."""
    return [profile for profile in profiles.PROFILES.values() if profile.published]


def _duration(seconds: float) -> str:
    size, unit = next((pair for pair in ((86_400, "days"), (3_600, "hours")) if seconds >= 2 * pair[0]), (60, "minutes"))
    return f"{seconds / size:,.0f} {unit}"
