"""A driver's two workers beside two processes of their own, and one alone, by turns on the same images; prints a table.

`python -m tests.throughput` takes seven minutes on two idle cores. The models are untrained, which costs the same.
"""

import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from srs import data, profiles
from srs.deq import mdeq
from srs.smoothing import certify, engine, votes

ARMS = {"one process": (1, 1), "two processes": (2, 1), "two workers": (1, 2)}  # processes, and workers of each
ROUND = ["data", "round", "arm"]


def certify_images(run, tasks, workers):
    """Draw and store the votes of images; a row of each: who drew them, when that was done, what it took."""
    inputs, rows = certify.Inputs(mdeq.build(run.model, run.profile.data, 0).state_dict(), None, {}, "", "cpu", ""), []

    def timed(device):
        draw = certify.voter(run, inputs, device)
        return lambda *task: (os.getpid(), draw(*task), time.monotonic())

    prepare = certify.prepared(timed, "cpu", certify.VOTES_DEPEND_ON)
    with tempfile.TemporaryDirectory() as folder:
        for _, (process, drawn, end) in engine.compute(prepare, tasks, workers=workers):
            votes.write(Path(folder) / f"{drawn.idx}.npz", drawn)
            content = b"".join((drawn.select, drawn.estimate, drawn.audited, drawn.standard))
            rows.append((process, end, drawn.idx, drawn.nfe.sum(), content))
    return pd.DataFrame(rows, columns=["process", "end", "idx", "nfe", "votes"])


def measure(name, images, rounds):
    """A profile's rows; one process alone has half of the images, which take as long as all take two."""
    run = profiles.get_profile(name).runs[0]
    test, method = data.load(run.profile.data, "test"), run.profile.method("SRS-MDEQ-1A")
    tasks = [(test.x(i), -1, i, method) for i in run.profile.evaluated[:images]]
    for turn, arm in enumerate([*ARMS] * rounds):
        processes, workers = ARMS[arm]
        own = [tasks[i : images * processes * workers // 2 : processes] for i in range(processes)]
        with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
            parts = pool.map(certify_images, [run] * processes, own, [workers] * processes)
            yield pd.concat(parts).assign(data=name, round=turn // len(ARMS), arm=arm)


def table(rows):
    """Evaluations of f per second by arm, the workers' share of the processes', images whose votes differ."""
    frame = rows.sort_values("end", ignore_index=True)
    frame["took"] = frame.groupby([*ROUND, "process"])["end"].diff()
    later = frame.dropna()  # without a process's first image: starting is not measured
    sums = later.groupby([*ROUND, "process"])[["nfe", "took"]].sum()
    rates = (sums["nfe"] / sums["took"]).groupby(ROUND).sum().unstack("arm")[[*ARMS]]
    rates["share"] = rates["two workers"] / rates["two processes"]
    shown = rates.groupby("data").mean()
    shown["least share"] = rates.groupby("data")["share"].min()
    shown["images that differ"] = (frame.groupby(["data", "idx"])["votes"].nunique() > 1).groupby("data").sum()
    return shown.T


if __name__ == "__main__":
    torch.set_num_threads(1)
    digits, cifar10, rounds = map(int, sys.argv[1:] or (40, 8, 3))  # images of either, and rounds
    print(table(pd.concat([*measure("digits", digits, rounds), *measure("cifar10", cifar10, rounds)])).to_markdown())
