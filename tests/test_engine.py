"""Sharing work out: every task once, whoever is lost on the way; workers end with who asked for them, however that one ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import distributed  # noqa: F401  brings its configuration
import pytest

from srs.settings import ConfigError
from srs.smoothing import engine
from tests.helpers import alive, comes_true

ROOT = Path(__file__).parents[1]
# Each worker says who it is and goes on for minutes. All else is the program's own.
SLOW = """
import os, pathlib, sys, time
def share(*arguments):
    (pathlib.Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(120)
if __name__ == "__main__":
    from srs.smoothing import engine
    for done in engine.compute(lambda: share, [(1,), (2,)], workers=2):
        pass
"""

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")


@pytest.fixture
def begin(tmp_path):
    """Start the program; returns it and the ids of its two workers once they are at work."""
    begun = []

    def start() -> tuple[subprocess.Popen, list[int]]:
        folder, program = tmp_path / "workers", tmp_path / "slow.py"
        folder.mkdir()
        program.write_text(SLOW)
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        # In a session of its own: a signal reaches it alone, unlike Ctrl-C.
        begun.append(subprocess.Popen([sys.executable, program, folder], env=env, start_new_session=True))
        comes_true(lambda: len(list(folder.iterdir())) == 2 or begun[-1].poll() is not None, 60)
        workers = [int(path.name) for path in folder.iterdir()]
        assert len(workers) == 2
        return begun[-1], workers

    yield start
    for process in begun:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # as it should be
        process.wait()


@needs_proc
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_process_that_is_ended_takes_its_workers_along(begin, name):
    if name != "SIGKILL" and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        pytest.skip(f"{name} is ignored here, as nohup asks for, and whatever is started inherits that")
    process, workers = begin()
    process.send_signal(getattr(signal, name))
    assert comes_true(lambda: process.poll() is not None, 20), "it runs on"
    assert comes_true(lambda: not any(map(alive, workers)), 20), "a worker runs on"
    assert process.returncode != 0


def troubled(number: int, folder: Path) -> int:
    """A task that ends its worker or hangs the first time, or is refused; gives ten times its number."""
    if number < 2 and not (folder / str(number)).exists():
        (folder / str(number)).touch()
        os._exit(1) if number else time.sleep(120)
    if number == 7:
        raise ConfigError("seven is refused: want another number")
    return 10 * number


def deadly(number: int) -> None:
    """A task that no worker survives."""
    os._exit(1)


def at_odds(number: int, folder: Path) -> None:
    """A task that goes on for minutes, and one that fails once the other is at it."""
    if number:
        comes_true(lambda: any(folder.iterdir()), 60)
        raise ConfigError("one is refused: want another number")
    (folder / str(os.getpid())).touch()
    time.sleep(120)


@needs_proc
def test_an_error_ends_the_other_workers(tmp_path):
    with pytest.raises(ConfigError, match="one is refused"):
        list(engine.compute(lambda: at_odds, [(0, tmp_path), (1, tmp_path)], workers=2))
    path, = tmp_path.iterdir()
    assert comes_true(lambda: not alive(int(path.name)), 20)


def test_what_lost_workers_were_at_is_done_elsewhere(tmp_path):
    done = list(engine.compute(lambda: troubled, [(i, tmp_path) for i in range(6)], workers=2, deadline=3))
    assert sorted(done) == [(i, 10 * i) for i in range(6)]
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}


def test_a_task_that_ends_every_worker_is_told():
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), pytest.raises(engine.WorkersLost, match="task 0 ended"):
        list(engine.compute(lambda: deadly, [(0,)], workers=2))


def test_a_plain_loop_is_in_order_lazy_and_without_dask():
    code = """
import sys
from srs.smoothing import engine
read = []
def tasks():
    for i in range(3):
        read.append(i)
        yield (i,)
done = engine.compute(lambda: abs, tasks())
assert next(done) == (0, 0) and read == [0]
assert list(done) == [(1, 1), (2, 2)]
assert not {"dask", "distributed"} & sys.modules.keys() and engine.worker() is None
"""
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


@pytest.mark.parametrize(("given", "named"), [
    (dict(workers=0), "workers = 0"), (dict(scheduler="localhost"), "want tcp://host"), (dict(scheduler="no.yaml"), "no.yaml"),
])  # fmt: skip
def test_workers_that_cannot_be_had_are_refused(given, named):
    with pytest.raises(ConfigError, match=named):
        engine.check(**dict(workers=1, scheduler="") | given)


def test_without_dask_one_worker_is_what_there_is(monkeypatch):
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    engine.check(1, "")
    with pytest.raises(ConfigError, match=r"workers = 2 is refused: want 1 without Dask; `pip install srs\[cluster\]`"):
        engine.check(2, "")


@pytest.mark.parametrize(("content", "named"), [("jobqueue: {cloud: {}}", "slurm"), ("- 1", "`jobqueue:` with one of")])
def test_a_file_of_no_known_queue_is_refused(tmp_path, content, named):
    (tmp_path / "queue.yaml").write_text(content)
    with pytest.raises(ConfigError, match=named):
        list(engine.compute(lambda: abs, [(-1,)], scheduler=str(tmp_path / "queue.yaml")))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its jobs are not waited for
def test_workers_of_a_queue_do_the_same_and_hand_on_a_refusal(tmp_path, monkeypatch):
    (tmp_path / "queue.yaml").write_text("jobqueue: {local: {cores: 1, memory: 1 GB, processes: 1}}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # its jobs are processes that start elsewhere, and find `troubled` there
    done = engine.compute(lambda: troubled, [(2, tmp_path), (7, tmp_path)], scheduler="queue.yaml")
    assert next(done) == (0, 20)
    with pytest.raises(ConfigError, match="seven is refused"):
        next(done)


def test_a_scheduler_that_does_not_answer_is_named():
    soon = {"distributed.comm.timeouts.connect": "1s"}
    with dask.config.set(soon), pytest.raises(ConfigError, match="tcp://127.0.0.1:9.*answers"):
        list(engine.compute(lambda: abs, [(-1,)], scheduler="tcp://127.0.0.1:9"))


# ---------------------------------------------------------------------------------------------- the line of progress


def test_what_is_left_is_weighted_by_what_was_measured(capsys):
    line, told = engine.Progress("certify", ["RS", "SRS"] * 2, {"RS": 3000.0, "SRS": 1000.0}), []
    for kind, cost, elapsed in (("RS", 3000, 30), ("SRS", 600, 36)):
        line.done(kind, cost, cost / 100)
        line.bar.start_t = time.time() - elapsed
        told.append(str(line.bar))
    assert told == [
        "certify, 1 of 4, 38 % of the evaluations of f, 00:50 left",  # 3000 of 8000, at 100 a second
        "certify, 2 of 4, 50 % of the evaluations of f, 00:36 left",  # SRS costs less than was expected
    ]
    line.done("RS", 3000, 30), line.done("SRS", 600, 6)
    assert capsys.readouterr().err.endswith("certify, 4 of 4, 100 % of the evaluations of f, 00:00 left\n")
