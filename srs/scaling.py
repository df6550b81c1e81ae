"""How the cost of f grows with the image and falls with worker processes, measured on a trained model.

`python -m srs.scaling --profile cifar10 --sigma 0.5 --recipe contractive`
"""

import argparse
import multiprocessing
import os
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from srs import certify, config, models, paths, results, shipped, store, tables
from srs.config import Run

BATCH = 50  # images that f evaluates together
PATIENCE = 600  # seconds that a process waits for the others


def by_size(run: Run, sides: tuple[int, ...], *, evaluations: int = 5) -> pd.DataFrame:
    """Milliseconds of one evaluation of f per image, for images of other sides: the weights are convolutions and fit all.

    Args:
        run: a trained run.
        sides: heights and widths of square images, multiples of what the model halves them by.
        evaluations: of f at each size, of which the median is taken.

    Raises:
        config.ConfigError: a side that the model cannot halve often enough.
    """
    halvings = 2 ** (len(run.model.channels) - 1 + run.model.downsamples)
    for side in sides:
        config.check(side >= halvings and side % halvings == 0, "image side", side, f"a multiple of {halvings}")
    rows = []
    for side in sides:
        data = replace(run.profile.data, shape=(run.profile.data.shape[0], side, side))
        model = certify.load_model(replace(run, profile=replace(run.profile, data=data)))
        seconds = _seconds(model, data.shape, evaluations)
        rows.append({"what": "image side", "value": side, "milliseconds": 1000 * np.median(seconds) / BATCH})
    return pd.DataFrame(rows)


def by_workers(run: Run, workers: tuple[int, ...], *, evaluations: int = 5) -> pd.DataFrame:
    """Milliseconds of one evaluation of f per image, over all of so many processes of one thread that run side by side.

    Args:
        run: a trained run.
        workers: numbers of processes.
        evaluations: of f by each process.
    """
    context, rows = multiprocessing.get_context("spawn"), []
    for count in workers:
        config.check_count(count, 1, "workers")
        barrier, answers = context.Barrier(count), context.Queue()
        crew = [context.Process(target=_work, args=(run, evaluations, barrier, answers)) for _ in range(count)]
        for process in crew:
            process.start()
        slowest = max(answers.get(timeout=PATIENCE) for _ in crew)
        for process in crew:
            process.join()
        rows.append({"what": "workers", "value": count, "milliseconds": 1000 * slowest / (count * evaluations * BATCH)})
    return pd.DataFrame(rows)


def _work(run: Run, evaluations: int, barrier, answers) -> None:
    torch.set_num_threads(1)
    model = certify.load_model(run)
    _seconds(model, run.profile.data.shape, 1)
    barrier.wait(PATIENCE)  # importing torch takes longer than what is timed
    answers.put(sum(_seconds(model, run.profile.data.shape, evaluations, warm=False)))


@torch.inference_mode()
def _seconds(model: models.DEQ, shape: tuple[int, int, int], evaluations: int, *, warm: bool = True) -> list[float]:
    u = model.inject(torch.full((BATCH, *shape), 0.5))
    z, seconds = model.initial(u).contiguous(), []  # the first evaluation from a common state is a cheaper one
    if warm:
        model.f(z, u)
    for _ in range(evaluations):
        began = time.perf_counter()
        z = model.f(z, u)
        seconds.append(time.perf_counter() - began)
    return seconds


def measure(run: Run, *, sides: tuple[int, ...], workers: tuple[int, ...]) -> None:
    """Measure and store both."""
    path = paths.measured(run, "scaling")
    frame = pd.concat([by_size(run, sides), by_workers(run, workers)], ignore_index=True)
    store.save(path, frame.to_csv(index=False, lineterminator="\n").encode())
    results.write_json(paths.provenance(path), results.provenance(
        run=run.id, device=models.device_name("cpu"), cores=os.cpu_count(), batch=BATCH,
    ))  # fmt: skip


def stored(run: Run) -> pd.DataFrame | None:
    """What was measured here or is shipped; None if there is neither."""
    path = shipped.measured(run, "scaling")
    return None if path is None else tables.read_csv(path, by="srs.scaling")


def main(argv: list[str] | None = None) -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(prog="python -m srs.scaling", description=main.__doc__)
    config.add_run_arguments(parser)
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args(argv)
    try:
        run = config.get_run(args.profile, args.model, args.sigma, args.recipe)
        measure(run, sides=tuple(args.sides), workers=tuple(args.workers))
    except (config.ConfigError, paths.DamagedFile) as error:
        parser.error(str(error))
    print(paths.measured(run, "scaling"))


if __name__ == "__main__":
    main()
