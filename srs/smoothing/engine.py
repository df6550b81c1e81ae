"""Share work out: a plain loop in this process, or workers of dask.distributed, here or on a cluster. Results are the same.

`workers` processes of one thread each on this machine; `scheduler`, a running Dask scheduler (tcp://host:port) or a YAML file
with one queue of dask-jobqueue's configuration:

    jobqueue: {slurm: {cores: 1, memory: 4 GB, walltime: "02:00:00"}}
"""

import contextlib
import faulthandler
import importlib.util
import os
import re
import secrets
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from srs import settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # without ipywidgets it says so, and gives lines of text
    tqdm = importlib.import_module("tqdm" if os.environ.get("SRS_MAKE") else "tqdm.auto").tqdm  # widgets, or lines under make

HOUR = 3600.0  # seconds
AHEAD = 2  # tasks sent out per worker: one at work, one that waits there


class WorkersLost(RuntimeError):
    """Workers or their scheduler ended before the work did."""


def check(workers: int, scheduler: str, deadline: float = HOUR) -> None:
    """Refuse a number of workers, a scheduler or a deadline that nothing can be computed with."""
    settings.check_count(workers, 1, "workers")
    settings.check(deadline > 0, "deadline", deadline, "seconds, more than 0")
    address = bool(re.fullmatch(r"|(tcp|tls)://[^\s/:]+:\d{1,5}", scheduler))
    queue = scheduler.endswith((".yaml", ".yml")) and Path(scheduler).is_file()
    settings.check(address or queue, "scheduler", scheduler, "tcp://host:port of Dask, or a YAML file of dask-jobqueue")
    missing = (workers > 1 or scheduler) and importlib.util.find_spec("distributed") is None
    settings.check(not missing, "workers", scheduler or workers, "1 without Dask; `pip install srs[cluster]` brings it")


def compute(
    prepare: Callable[[str], Callable], tasks: Iterable[tuple], *, workers: int = 1, scheduler: str = "", deadline: float = HOUR
) -> Iterator[tuple[int, object]]:
    """Do every task; yields its number and its result as soon as it is done. Close the generator to end the workers.

    `prepare` gives the function that does a task, once per process, from the worker's name, on this machine its number, empty
    where there are none; `tasks` are its arguments, read as workers become free. A worker that is still at its task after
    `deadline` seconds is ended, and another one tries. Raises WorkersLost where a task ended every worker that tried, or the
    scheduler is gone.
    """
    check(workers, scheduler, deadline)
    if workers == 1 and not scheduler:
        work = prepare("")
        yield from ((i, work(*task)) for i, task in enumerate(tasks))
        return
    from distributed import as_completed, CancelledError, KilledWorker
    from distributed.client import ClosedClientError
    from distributed.comm import CommClosedError

    with _cluster(workers, scheduler) as client:
        plugin = _prepared(prepare)
        client.register_plugin(plugin)
        waiting, numbers, done = enumerate(tasks), {}, as_completed(loop=client.loop)

        def send() -> None:
            room = AHEAD * max(1, sum(client.nthreads().values())) - len(numbers)
            for i, task in islice(waiting, max(0, room)):
                future = client.submit(_step, plugin.name, task, deadline, key=f"{plugin.name}-{i}", priority=-i)
                numbers[future.key] = i
                done.add(future)

        try:
            send()
            for future in done:
                i = numbers.pop(future.key)
                result = future.result()
                send()
                yield i, result
            client.unregister_worker_plugin(plugin.name)
        except (KilledWorker, CancelledError, ClosedClientError, CommClosedError) as error:
            lost = f"the scheduler {scheduler or 'of the workers'} is gone ({type(error).__name__})"
            if isinstance(error, KilledWorker):
                lost = f"task {i} ended each worker that it was given to, or took longer than the deadline, {deadline:g} s"
            raise WorkersLost(f"{lost}; what is done is stored: run again") from None


def _prepared(prepare: Callable[[str], Callable]):
    """A worker's plugin that holds `prepare`: the scheduler hands it to every worker, those that are started anew included."""
    from distributed import WorkerPlugin  # not above: a plain loop imports nothing of Dask

    class Prepared(WorkerPlugin):
        name, work = f"srs-{secrets.token_hex(8)}", None

        def setup(self, worker: object) -> None:
            self.worker = str(worker.name)
            with contextlib.suppress(ValueError):  # not the main thread of its process
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver ends the others

        def run(self, task: tuple, deadline: float) -> object:
            faulthandler.dump_traceback_later(deadline, exit=True)  # its own thread: ends what hangs in compiled code, too
            try:
                self.work = self.work or prepare(self.worker)
                return self.work(*task)
            finally:
                faulthandler.cancel_dump_traceback_later()

    return Prepared()


def _step(name: str, task: tuple, deadline: float) -> object:
    from distributed import get_worker
    return get_worker().plugins[name].run(task, deadline)


@contextlib.contextmanager
def _cluster(workers: int, scheduler: str) -> Iterator:
    """A client of the workers. Those of this machine hang on a pipe of this process: they end when it does, however it does."""
    import dask
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        kept = {"TRIM_THRESHOLD_": 2**31 - 1, "MMAP_THRESHOLD_": 2**31 - 1, "ARENA_MAX": 1}  # freed memory, see the Makefile
        calm = {f"distributed.nanny.pre-spawn-environ.MALLOC_{name}": value for name, value in kept.items()}
        calm |= {f"distributed.admin.{clock}.interval": "1s" for clock in ("tick", "system-monitor")}  # these cost small tasks
        stack.enter_context(dask.config.set(calm | {"distributed.worker.profile.enabled": False}))
        if "://" in scheduler:
            at = scheduler
        elif scheduler:
            at = stack.enter_context(_queue(Path(scheduler)))
            at.scale(jobs=workers)
        else:  # loopback only; memory is the system's matter
            home = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
            at = stack.enter_context(LocalCluster(n_workers=workers, threads_per_worker=1, memory_limit=0, **home))
        try:
            client = stack.enter_context(Client(at, set_as_default=False))
        except OSError as error:
            settings.check(False, "scheduler", scheduler, f"the address of one that answers ({error})")
        print(f"workers: {client.dashboard_link}", file=sys.stderr, flush=True)
        yield client


def _queue(path: Path):
    import dask_jobqueue.local  # noqa: F401  a queue for tests: jobs are processes here
    import yaml
    from dask_jobqueue import core

    kinds = {kind.job_cls.config_name: kind for kind in core.JobQueueCluster.__subclasses__()}
    told = yaml.safe_load(path.read_text())
    queues = told.get("jobqueue") if isinstance(told, dict) else None
    right = isinstance(queues, dict) and len(queues) == 1 and queues.keys() <= kinds.keys()
    settings.check(right, "scheduler", str(path), f"`jobqueue:` with {settings.one_of(kinds)} and its settings")
    (name, given), = queues.items()
    return kinds[name](**given)


def shown(
    found: Iterator[tuple[int, object]], what: str, costs: Sequence[float], *, progress: bool = True
) -> Iterator[tuple[int, object]]:
    """What `compute` yields, under a line: tasks done, their share of the `costs` (evaluations of f), what is left."""
    told = "{desc}, {percentage:.0f} % of the evaluations of f, {remaining} left"
    often = 30 if os.environ.get("SRS_MAKE") else 0.5  # seconds between two states of the line
    with tqdm(desc=what, total=sum(costs), bar_format=told, mininterval=often, smoothing=0, disable=not progress) as bar:
        for count, (i, result) in enumerate(found, 1):
            yield i, result
            bar.set_description_str(f"{what}, {count} of {len(costs)}", refresh=False)
            bar.update(costs[i])
