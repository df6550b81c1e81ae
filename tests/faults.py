"""What a run survives: processes killed, files damaged, a full disk, an I/O error, two runs at once. Then resume and compare.

`python -m tests.faults`, or `--short` as in pytest, prints a table; exit code 1 where a row is lost, doubled or another.
"""

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch

from srs import store
from srs.smoothing import certify, engine
from tests.helpers import alive, comes_true, save_untrained, smoke_run

RUN = smoke_run(images=4, n0=10, n=60)
METHODS = ("MDEQ-5A", "MDEQ-30A", "SRS-MDEQ-3A")
MARK = "SRS_FAULTS"  # in the environment of every process that a fault may leave behind
GAVE_UP = 3  # exit status of a driver that says that its workers are lost
SHORT = {"plain loop": 2, "two workers": 1, "files": 2}
FULL = {"plain loop": 32, "two workers": 6, "cluster": 16, "worker": 6, "scheduler": 3, "files": 10}


class Faults:
    """A root with an untrained model, the files of an unbroken run, and what became of them under faults."""

    def __init__(self, root: Path):
        self.root, self.data, self.told = root, store.own(RUN, ""), []
        torch.set_num_threads(1)
        save_untrained(RUN)
        certify.certify(RUN, methods=METHODS, progress=False)
        self.whole, self.files = self.stored(), list(self.data.rglob("*.npz"))
        self.cluster, self.places = [], [root / "a", root / "b"]
        self.wipe()

    def stored(self) -> dict[str, object]:
        """What is stored: the arrays of every file of votes, the lines of every table, without seconds."""
        found = {}
        for path in sorted(self.data.rglob("*.npz")):
            with np.load(path) as arrays:
                found[path.name + path.parent.name] = {name: arrays[name].tolist() for name in arrays if name != "seconds"}
        for path in sorted(self.data.rglob("*.csv")):
            table = pd.read_csv(path, comment="#").drop(columns="seconds")
            found |= {f"{path.name} {i}": row for i, row in enumerate(table.to_dict("split")["data"])}
        return found

    def begin(self, before: Callable[[], None] | None = None, **more: object) -> int:
        """Certify in a forked process, which imports nothing again, and call `before` at each task; its id."""
        child, voter = os.fork(), certify.voter
        if child == 0:
            try:
                certify.voter = (lambda *given: preceded(before, voter(*given))) if before else voter
                certify.certify(RUN, methods=METHODS, progress=False, **more)
                os._exit(0)
            except BaseException as error:
                os._exit(GAVE_UP if isinstance(error, engine.WorkersLost) else 1)
        return child

    def end(self, child: int) -> int:
        """The exit status of a process, waited for."""
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def compare(self, fault: str, times: int) -> None:
        """Resume to the end by a plain loop, note what differs from the unbroken run, and begin anew."""
        comes_true(lambda: not self.left(), 10)
        for _ in range(3):  # a damaged file is refused once
            if self.end(self.begin()) == 0:
                break
        now = self.stored()
        lost, more = self.whole.keys() - now.keys(), now.keys() - self.whole.keys()
        differing = [name for name in self.whole.keys() & now.keys() if self.whole[name] != now[name]]
        self.told.append((fault, times, len(lost), len(more), len(differing), len(self.left())))
        print(*self.told[-1], file=sys.stderr, flush=True)
        self.wipe()

    def wipe(self) -> None:
        """Remove votes and counts."""
        shutil.rmtree(self.data / "votes", ignore_errors=True)
        for path in self.data.glob("counts.*"):
            path.unlink()

    def own(self) -> list[int]:
        """The processes of the cluster that is to stay."""
        roots = [psutil.Process(p.pid) for p in self.cluster if p.poll() is None]
        return [p.pid for root in roots for p in (root, *root.children(recursive=True))]

    def left(self) -> list[int]:
        """All other processes that have this script's mark in their environment and are no zombies."""
        every, own = psutil.process_iter(["environ", "status"]), {os.getpid(), *self.own()}
        alike = [p for p in every if (p.info["environ"] or {}).get(MARK) == str(self.root)]
        return [p.pid for p in alike if p.info["status"] != psutil.STATUS_ZOMBIE and p.pid not in own]

    def kill_drivers(self, fault: str, times: int, **more: object) -> None:
        """Kill the driver with -9 at any moment, again and again on the same folder, until it is done; then anew."""
        killed = 0
        while killed < times:
            child = self.begin(**more)
            self.wait(random.randrange(len(self.files) + 1), child)
            os.kill(child, signal.SIGKILL)
            killed += (one := self.end(child) < 0)
            if one and (killed % 4 == 0 or killed == times):
                self.compare(fault, killed % 4 or 4)
            elif not one:  # it was done before
                self.wipe()

    def wait(self, count: int, child: int) -> None:
        """Wait until so many more files of votes are there than now, and for a moment more; no longer than a process runs."""
        before = len(list(self.data.rglob("*.npz")))
        comes_true(lambda: len(list(self.data.rglob("*.npz"))) >= min(before + count, len(self.files)) or not alive(child), 120)
        time.sleep(random.uniform(0, 0.2))

    @contextlib.contextmanager
    def started(self) -> Iterator[str]:
        """A scheduler and two groups of two workers, each in a folder of its own without data or results; its address."""
        port = str(20_000 + os.getpid() % 20_000)
        one = ["scheduler", "--host", "127.0.0.1", "--port", port]
        group = ["worker", f"127.0.0.1:{port}", "--nworkers", "2", "--nthreads", "1", "--local-directory", "."]
        for words, place in ((one, self.root), *((group, place) for place in self.places)):
            place.mkdir(exist_ok=True)
            command = [sys.executable, "-m", f"distributed.cli.dask_{words[0]}", *words[1:], "--no-dashboard"]
            env = os.environ | {"SRS_ROOT": str(place), "SRS_DATA": str(place), "PYTHONPATH": str(Path(__file__).parents[1])}
            self.cluster.append(subprocess.Popen(command, env=env, cwd=place, stderr=subprocess.DEVNULL))
        try:
            yield f"tcp://127.0.0.1:{port}"
        finally:
            for pid in self.own():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            while self.cluster:
                self.cluster.pop().wait()

    def kill_workers(self, times: int, address: str) -> None:
        """Kill a worker with -9 while the driver waits for votes; the driver itself goes on and finishes."""
        for _ in range(times):
            child = self.begin(scheduler=address)
            self.wait(random.randrange(12), child)
            below = [p for nanny in self.cluster[1:] for p in psutil.Process(nanny.pid).children()]
            random.choice([p for p in below if "spawn_main" in " ".join(p.cmdline())]).kill()
            assert self.end(child) == 0, "the others did not go on"
            self.compare("worker killed", 1)

    def kill_schedulers(self, times: int) -> None:
        """Kill the scheduler; the driver says so and ends."""
        for _ in range(times):
            with self.started() as address:
                child = self.begin(scheduler=address)
                self.wait(random.randrange(1, 12), child)
                self.cluster[0].kill()
                assert self.end(child) in (0, GAVE_UP), "a lost scheduler is not told"
            self.compare("scheduler killed", 1)

    def share(self, address: str) -> None:
        """No fault: workers of both folders have a share, and nothing but the connection to the scheduler in common."""
        assert self.end(self.begin(lambda: Path("at-work").touch(), scheduler=address)) == 0
        assert all((place / "at-work").exists() and not list(place.rglob("*.npz")) for place in self.places)
        self.compare("none, two groups of two workers in folders of their own", 1)

    def damage(self, times: int) -> None:
        """Cut or change a byte of files of every kind, one at a time, where a run is complete."""
        kinds = ("votes/**/*.npz", "counts.csv", "counts.json", "weights.safetensors")
        weights = (self.data / store.WEIGHTS).read_bytes()
        for i in range(times):
            self.end(self.begin())
            path = random.choice(sorted(self.data.glob(kinds[i % len(kinds)])))
            content = path.read_bytes()
            at = random.randrange(len(content))
            path.write_bytes(content[:at] if i % 2 else content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            self.end(self.begin())
            for aside in self.data.rglob("*.damaged*"):
                aside.unlink()
            (self.data / store.WEIGHTS).write_bytes(weights)  # training would make them anew
            self.compare(f"damaged {path.suffix[1:]}", 1)

    def refuse(self, fault: str, name: str, code: int, after: int) -> None:
        """Make a system call of Path fail once from its so-many-th call on, in the driver."""
        plain, calls = getattr(Path, name), Counter()

        def failing(path: Path, *given: object) -> object:
            calls["all"] += ".npz" in path.name
            if calls["all"] > after and ".npz" in path.name and not calls["failed"]:
                calls["failed"] += 1
                raise OSError(code, os.strerror(code), str(path))
            return plain(path, *given)

        setattr(Path, name, failing)
        child = self.begin()
        setattr(Path, name, plain)
        assert self.end(child) == 1, fault
        self.compare(fault, 1)

    def fill_disk(self) -> None:
        """Certify on a small tmpfs until it is full, where one may be mounted; else the error alone."""
        votes = self.data / "votes"
        votes.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", votes]
        if subprocess.run(mount, capture_output=True).returncode != 0:
            return self.refuse("disk full (ENOSPC of write)", "write_bytes", errno.ENOSPC, after=4)
        assert self.end(self.begin()) == 1
        subprocess.run(["mount", "-o", "remount,size=50m", votes], check=True)
        self.end(self.begin())
        kept = shutil.copytree(votes, self.root / "kept")
        subprocess.run(["umount", votes], check=True)
        shutil.rmtree(votes)
        kept.rename(votes)
        self.compare("disk full (tmpfs)", 1)

    def twice(self) -> None:
        """Two runs at once: the second waits."""
        assert [self.end(child) for child in [self.begin(), self.begin()]] == [0, 0]
        self.compare("two runs at once", 1)


def preceded(before: Callable[[], None], draw: Callable) -> Callable:
    """A task that calls `before` first; pickled by value, as this script is no module of the workers."""
    return lambda *task: before() or draw(*task)


def table(plan: dict[str, int]) -> pd.DataFrame:
    """What became of each fault: times, and rows lost, doubled and differing after resuming, and processes left behind."""
    with tempfile.TemporaryDirectory() as root:
        os.environ |= {"SRS_ROOT": root, MARK: root}
        faults = Faults(Path(root))
        faults.kill_drivers("driver killed, plain loop", plan["plain loop"])
        faults.kill_drivers("driver killed, two workers", plan["two workers"], workers=2)
        if "cluster" in plan:
            with faults.started() as address:
                faults.kill_drivers("driver killed, four workers of a cluster", plan["cluster"], scheduler=address)
                faults.share(address)
                faults.kill_workers(plan["worker"], address)
            faults.kill_schedulers(plan["scheduler"])
        faults.damage(plan["files"])
        faults.fill_disk()
        faults.refuse("read fails once (EIO)", "read_bytes", errno.EIO, after=2)
        faults.twice()
    columns = ["fault", "times", "rows lost", "doubled", "differing", "processes left"]
    return pd.DataFrame(faults.told, columns=columns).groupby("fault", sort=False).sum()


if __name__ == "__main__":
    random.seed(0)  # moments and places
    found = table(SHORT if "--short" in sys.argv else FULL)
    print(found.to_markdown())
    sys.exit(bool(found.drop(columns="times").to_numpy().any()))
