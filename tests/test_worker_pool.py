"""Worker processes end with whoever asked for them, whichever way that one ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 10
# Each worker says who it is and goes on for minutes; it imports nothing that takes long. All else is the program's own.
SLOW = """
import os, pathlib, sys, time
def share(*arguments):
    (pathlib.Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(120)
if __name__ == "__main__":
    from srs import profiles
    from srs.{module} import {name} as module
    {call}
"""
CALLS = {
    "smoothing.certify": 'run, module._draw_share = profiles.get_run("smoke", "SMALL", 0.5), share;'
    'module.read_inputs = lambda run: module.Inputs({}, None, dict.fromkeys(run.profile.evaluated, ""), "");'
    "module.certify(run, workers=2)",
    "experiments.remake": "module.MAIN, module.MORE, module.counts.read_counts = (share, share), (), lambda profile: None;"
    'list(module.remake(profiles.get_profile("smoke")))',
    "smoothing.worker_pool": "with module.start(2) as executor: [begun.result() for begun in [executor.submit(share) for _ in range(2)]]",
}

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def comes_true(true: Callable[[], bool], seconds: float = SECONDS) -> bool:
    """Whether something comes true within so many seconds."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


@pytest.fixture
def begin(tmp_path):
    """Start one of the programs; returns it and the ids of its two workers once they are at work."""
    begun = []

    def start(module: str) -> tuple[subprocess.Popen, list[int]]:
        folder, program = tmp_path / "workers", tmp_path / "slow.py"
        folder.mkdir()
        program.write_text(SLOW.format(module=module.rpartition(".")[0], name=module.rpartition(".")[2], call=CALLS[module]))
        env = os.environ | {"PYTHONPATH": str(ROOT), "SRS_ROOT": str(tmp_path)}
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


@pytest.mark.parametrize(("module", "name"), [
    ("smoothing.certify", "SIGKILL"), ("smoothing.certify", "SIGINT"), ("experiments.remake", "SIGKILL"), ("smoothing.worker_pool", "SIGTERM"),
    ("smoothing.worker_pool", "SIGHUP"),
])  # fmt: skip
def test_a_process_that_is_ended_takes_its_workers_along(begin, module, name):
    if name != "SIGKILL" and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        pytest.skip(f"{name} is ignored here, as nohup asks for, and whatever is started inherits that")
    process, workers = begin(module)
    process.send_signal(getattr(signal, name))
    assert comes_true(lambda: process.poll() is not None), "it runs on"
    assert comes_true(lambda: not any(map(alive, workers))), "a worker runs on"
    assert process.returncode != 0


def test_an_error_ends_the_other_workers(begin):
    process, workers = begin("smoothing.worker_pool")
    os.kill(workers[0], signal.SIGKILL)
    assert comes_true(lambda: process.poll() is not None and not alive(workers[1]))
    assert process.returncode != 0
