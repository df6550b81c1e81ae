"""What a run survives: processes killed, files damaged, a full disk, an I/O error, two runs at once. Then it is resumed.

Nothing is lost, doubled or other than in an unbroken run. What becomes of workers is in test_engine.
"""

import errno
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from srs import store
from srs.smoothing import certify
from tests.helpers import alive, comes_true, smoke_run, untrained_root

RUN = smoke_run(images=4, n0=10, n=60)
METHODS = ("MDEQ-5A", "MDEQ-30A", "SRS-MDEQ-3A")

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a process is looked up in /proc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """The folder of a certified run in a root of its own."""
    random.seed(0)
    with untrained_root(tmp_path_factory, RUN):
        certify.certify(RUN, methods=METHODS, progress=False)
        yield store.own(RUN, "")


@pytest.fixture(scope="module")
def whole(folder) -> dict[str, object]:
    return stored(folder)


def stored(folder: Path) -> dict[str, object]:
    """What is stored: the arrays of every file of votes, the lines of every table, without seconds."""
    found = {}
    for path in sorted(folder.rglob("*.npz")):
        with np.load(path) as arrays:
            found[path.name + path.parent.name] = {name: arrays[name].tolist() for name in arrays if name != "seconds"}
    for path in sorted((*folder.rglob("*.tsv"), *folder.rglob("*.csv"))):
        table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", comment="#")
        table = table.drop(columns=["seconds", "time"], errors="ignore")
        found |= {f"{path.name} {i}": row for i, row in enumerate(table.to_dict("split")["data"])}
    return found


def begin() -> int:
    """Certify in a process of its own, forked so that nothing is imported again; its id."""
    child = os.fork()
    if child == 0:
        try:
            certify.certify(RUN, methods=METHODS, progress=False)
            os._exit(0)
        except BaseException:
            os._exit(1)
    return child


def end(child: int) -> int:
    """The exit status of a process, waited for."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wipe(folder: Path) -> None:
    for path in (folder / "votes", folder / "rows"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob("counts.*"):
        path.unlink()


def kill_driver(folder: Path, times: int = 4) -> None:
    """Kill the driver with -9 at any moment, again and again on the same folder."""
    for _ in range(times):
        child, before = begin(), len(list(folder.rglob("*.npz")))
        more_files = before + random.randrange(5)
        comes_true(lambda: len(list(folder.rglob("*.npz"))) >= more_files or not alive(child), 120)
        time.sleep(random.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        end(child)


def refuse(name: str, code: int, after: int) -> None:
    """Make a method of Path fail once for a file of votes, after so many calls, in the driver."""
    plain, calls = getattr(Path, name), Counter()

    def failing(path: Path, *given: object) -> object:
        calls["all"] += ".npz" in path.name
        if calls["all"] > after and ".npz" in path.name and not calls["failed"]:
            calls["failed"] += 1
            raise OSError(code, os.strerror(code), str(path))
        return plain(path, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, name, failing)
        child = begin()
    assert end(child) == 1


def twice() -> None:
    """Two runs at once: the second waits."""
    children = [begin(), begin()]
    assert [end(child) for child in children] == [0, 0]


FAULTS: dict[str, Callable[[Path], None]] = {
    "driver killed": kill_driver,
    "disk full": lambda folder: refuse("write_bytes", errno.ENOSPC, after=4),
    "read fails once": lambda folder: refuse("read_bytes", errno.EIO, after=2),
    "two runs at once": lambda folder: twice(),
}  # fmt: skip


def resumed(folder: Path) -> dict[str, object]:
    """What is stored once a plain loop has gone on to the end; a damaged file is refused once, so it is asked again."""
    assert any(end(begin()) == 0 for _ in range(3))
    return stored(folder)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_no_vote_and_changes_none(folder, whole, fault):
    wipe(folder)
    FAULTS[fault](folder)
    assert resumed(folder) == whole


@pytest.mark.parametrize("cut", [True, False])
def test_damaged_files_are_found_and_made_again(folder, whole, cut):
    """One of each kind is cut, or has one bit changed; weights are put back, since training would make them anew."""
    for kind in ("votes/**/*.npz", "counts.csv", "votes/**/provenance.json", "counts.json", "weights.safetensors"):
        path = random.choice(sorted(folder.glob(kind)))
        content = path.read_bytes()
        at = random.randrange(len(content))
        path.write_bytes(content[:at] if cut else content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        end(begin())
        for aside in folder.rglob("*.damaged*"):
            aside.unlink()
        if path.name == store.WEIGHTS:
            path.write_bytes(content)
    assert resumed(folder) == whole
