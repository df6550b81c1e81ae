"""What a run survives: processes killed, files damaged, a full disk, an I/O error, two runs at once. Then resume and compare.

`python -m tests.faults` prints the table of all of it (an hour); `--short` is what pytest runs. Exit code 1 where anything is
lost, doubled, other than in an unbroken run, or left running.
"""

import argparse
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
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch

from srs import store
from srs.smoothing import certify
from tests.helpers import alive, comes_true, save_untrained, smoke_run

RUN = smoke_run(images=4, n0=10, n=60)
METHODS = ("MDEQ-5A", "MDEQ-30A", "SRS-MDEQ-3A")
MARK = "SRS_FAULTS"  # in the environment of every process that a fault may leave behind
SHORT = {"driver, plain loop": 2, "driver, two workers": 1, "damaged files": 2}
FULL = SHORT | {"driver, plain loop": 32, "driver, two workers": 6, "damaged files": 10}
FULL |= {"driver, cluster": 16, "worker, cluster": 6, "scheduler": 3}


class Faults:
    """A root with an untrained model, the files of an unbroken run, and what became of them under faults."""

    def __init__(self, root: Path):
        self.root, self.data, self.told = root, store.own(RUN, ""), []
        torch.set_num_threads(1)
        save_untrained(RUN)
        certify.certify(RUN, methods=METHODS, progress=False)
        self.whole, self.files = self.stored(), list(self.data.rglob("*.npz"))
        self.cluster = []

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

    def begin(self, **more: object) -> int:
        """Certify in a process of its own, forked so that nothing is imported again; its id."""
        child = os.fork()
        if child == 0:
            try:
                certify.certify(RUN, methods=METHODS, progress=False, **more)
                os._exit(0)
            except BaseException:
                os._exit(1)
        return child

    def end(self, child: int) -> int:
        """The exit status of a process, waited for."""
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def compare(self, fault: str, times: int) -> None:
        """Resume to the end by a plain loop, note what differs from the unbroken run, and begin anew."""
        left = lambda: [p.pid for p in marked() if p.pid not in {os.getpid(), *self.own()}]  # noqa: E731
        comes_true(lambda: not left(), 10)
        for _ in range(3):  # a damaged file is refused once
            if self.end(self.begin()) == 0:
                break
        now = self.stored()
        lost, more = self.whole.keys() - now.keys(), now.keys() - self.whole.keys()
        differing = [name for name in self.whole.keys() & now.keys() if self.whole[name] != now[name]]
        self.told.append((fault, times, len(lost), len(more), len(differing), len(left())))
        print(*self.told[-1], file=sys.stderr, flush=True)
        self.wipe()

    def wipe(self) -> None:
        shutil.rmtree(self.data / "votes", ignore_errors=True)
        for path in self.data.glob("counts.*"):
            path.unlink()

    def own(self) -> list[int]:
        """The processes of the cluster that is to stay."""
        roots = [psutil.Process(p.pid) for p in self.cluster if p.poll() is None]
        return [p.pid for root in roots for p in (root, *root.children(recursive=True))]

    # ------------------------------------------------------------------------------------------------ faults

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
            elif not one:
                self.wipe()

    def wait(self, count: int, child: int) -> None:
        """Wait until so many more files of votes are there than now, and for a moment more; no longer than a process runs."""
        before = len(list(self.data.rglob("*.npz")))
        comes_true(lambda: len(list(self.data.rglob("*.npz"))) >= min(before + count, len(self.files)) or not alive(child), 120)
        time.sleep(random.uniform(0, 0.2))

    @contextlib.contextmanager
    def started(self) -> Iterator[str]:
        """A scheduler and two groups of two workers, each in a folder of its own without data or results; its address."""
        port, env = 20_000 + os.getpid() % 20_000, os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s"}
        address = f"tcp://127.0.0.1:{port}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        words = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
        words.append("--no-dashboard")
        self.cluster = [subprocess.Popen(words, env=env, cwd=self.root, **quiet)]
        for name in ("a", "b"):
            place = Path(tempfile.mkdtemp(prefix=f"srs-{name}-"))
            words = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nworkers", "2", "--nthreads", "1"]
            env = os.environ | {"SRS_ROOT": str(place), "SRS_DATA": str(place), "PYTHONPATH": str(Path(__file__).parents[1])}
            words += ["--memory-limit", "0", "--no-dashboard", "--local-directory", str(place)]
            self.cluster.append(subprocess.Popen(words, env=env, cwd=place, **quiet))
        try:
            yield address
        finally:
            for pid in self.own():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in self.cluster:
                process.wait()
            self.cluster = []

    def kill_workers(self, times: int, address: str) -> None:
        """Kill a worker with -9 while the driver waits for votes; the driver itself goes on and finishes."""
        for _ in range(times):
            child = self.begin(scheduler=address)
            self.wait(random.randrange(12), child)
            below = [p for nanny in self.cluster[1:] for p in psutil.Process(nanny.pid).children()]
            workers = [p for p in below if "spawn_main" in " ".join(p.cmdline())]
            if workers:
                random.choice(workers).kill()
            unbroken = self.end(child) == 0
            self.compare("worker killed" if unbroken else "worker killed, driver given up", 1)

    def kill_schedulers(self, times: int) -> None:
        """Kill the scheduler; the driver says so and ends."""
        for _ in range(times):
            with self.started() as address:
                child = self.begin(scheduler=address)
                self.wait(random.randrange(12), child)
                self.cluster[0].kill()
                self.end(child)
            self.compare("scheduler killed", 1)

    def damage(self, times: int) -> None:
        """Cut or change a byte of files of every kind, one at a time, where a run is complete."""
        kinds = ("votes/**/*.npz", "counts.csv", "votes/**/provenance.json", "counts.json", "weights.safetensors")
        weights = (self.data / store.WEIGHTS).read_bytes()
        for i in range(times):
            if not list(self.data.glob("counts.csv")):
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
        mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", votes]
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
        children = [self.begin(), self.begin()]
        assert [self.end(child) for child in children] == [0, 0]
        self.compare("two runs at once", 1)


def marked() -> list[psutil.Process]:
    """Every process that has the mark of this script in its environment and is no zombie."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == os.environ[MARK] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def table(plan: dict[str, int]) -> pd.DataFrame:
    """What became of each fault: times, and rows lost, doubled and differing after resuming, and processes left behind."""
    with tempfile.TemporaryDirectory() as root:
        os.environ |= {"SRS_ROOT": root, MARK: root}
        faults = Faults(Path(root))
        faults.wipe()
        faults.kill_drivers("driver killed, plain loop", plan["driver, plain loop"])
        faults.kill_drivers("driver killed, two workers", plan["driver, two workers"], workers=2)
        if "driver, cluster" in plan:
            with faults.started() as address:
                faults.kill_drivers("driver killed, four workers of a cluster", plan["driver, cluster"], scheduler=address)
                faults.kill_workers(plan["worker, cluster"], address)
            faults.kill_schedulers(plan["scheduler"])
        faults.damage(plan["damaged files"])
        faults.fill_disk()
        faults.refuse("read fails once (EIO)", "read_bytes", errno.EIO, after=2)
        faults.twice()
    columns = ["fault", "times", "rows lost", "doubled", "differing", "processes left"]
    return pd.DataFrame(faults.told, columns=columns).groupby("fault", sort=False).sum()


def main() -> None:
    """Print the table; exit code 1 where anything in it but the number of faults is not 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="what pytest runs")
    parser.add_argument("--seed", type=int, default=0, help="of moments and places")
    args = parser.parse_args()
    random.seed(args.seed)
    found = table(SHORT if args.short else FULL)
    print(found.to_markdown())
    sys.exit(bool(found.drop(columns="times").to_numpy().any()))


if __name__ == "__main__":
    main()
