"""How long a certification takes on many cores, from what an evaluation of f and a task cost here: `srs scaling`."""

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
from srs.smoothing import certify, engine, votes

PUBLISHED = [profile for profile in profiles.PROFILES.values() if profile.published]


def measure(run: settings.Run, *, tasks: int = 200, workers: int = 2) -> Path:
    """Measure CPU seconds of an evaluation of f, and of the driver for a task that does nothing; where the table is.

    Args:
        tasks: how many do nothing.
        workers: that do it.
    """
    torch.set_num_threads(1)
    found = {f"evaluation of f, {p.data.name}": evaluation(p.runs[0].model, p.data) for p in PUBLISHED}
    found["driver, per task"] = driver(tasks, workers)
    store.save_frame(path := store.own(run, "scaling.csv"), pd.DataFrame(found.items(), columns=["what", "value"]))
    return path


@torch.inference_mode()
def evaluation(model: settings.Model, data: settings.Data, batch: int = 8, times: int = 3) -> float:
    """CPU seconds of one evaluation of f for one image, by a model that was not trained; the least of some."""
    network, spent = inference.prepare(mdeq.build(model, data, 0)), []
    u = network.inject(torch.rand(batch, *data.shape))
    for _ in range(times + 1):  # the first one allocates
        z, began = network.initial(u), time.process_time()
        network.f(z, u)
        spent.append((time.process_time() - began) / batch)
    return min(spent[1:])


def driver(tasks: int, workers: int, n: int = 10_000) -> float:
    """CPU seconds of the driver per task: it holds the scheduler and writes the file of n votes."""
    drawn, began = votes.ImageVotes(0, 0, *(np.zeros(size, np.int16) for size in (100, n, 400, 400, 3, 3))), 0.0
    with tempfile.TemporaryDirectory() as folder:
        given = [(torch.rand(3, 32, 32), drawn)] * tasks
        for i, found in engine.compute(lambda worker: lambda x, drawn: drawn, given, workers=workers):
            began = began or time.process_time()
            votes.write(Path(folder) / f"{i}.npz", found)
        return (time.process_time() - began) / (tasks - 1)


def read(run: settings.Run) -> dict[str, float]:
    """What `measure` found, here or as shipped."""
    path = store.find(run, "scaling.csv") or store.own(run, "scaling.csv")
    frame = store.read_frame(path, {"what": str, "value": float}, "table of measurements", by="scaling")
    return dict(zip(frame["what"], frame["value"]))


def projection(measured: Mapping[str, float], cores: int = 64) -> pd.DataFrame:
    """How long whole test sets take at the paper's sample sizes: work over cores, or the driver's share of it if longer."""
    rows = []
    for profile in PUBLISHED:
        name, images = profile.data.name, profile.images * profile.stride  # of the whole test set
        srs = max((m for m in profile.methods if m.needs_audit), key=lambda m: m.steps)
        for n in (10_000, 100_000):
            row = {"data": name, "images": f"{images:,}", "N": f"{n:,}"}
            for kind, method in (("RS", profile.method(profile.reference)), ("SRS", srs)):
                each = certify.most_nfe(method, replace(profile.sampling, n=n)) * measured[f"evaluation of f, {name}"]
                row[f"{kind}, {cores} cores"] = _duration(images * max(each / cores, measured["driver, per task"]))
            row["cores that one driver keeps busy"] = f"{each / measured['driver, per task']:,.0f}"  # with the cheaper method
            rows.append(row)
    return pd.DataFrame(rows)


def _duration(seconds: float) -> str:
    size, unit = next((pair for pair in ((86_400, "days"), (3_600, "hours")) if seconds >= 2 * pair[0]), (60, "minutes"))
    return f"{seconds / size:,.0f} {unit}"
