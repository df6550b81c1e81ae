"""Sharing work out: every task once, whoever is lost on the way. That workers end with a killed driver is in test_faults."""

import os
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
from tests.tasks import at_odds, troubled

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_an_error_is_handed_on_and_ends_the_other_workers(tmp_path):
    with pytest.raises(ConfigError, match="seven is refused"):
        list(engine.compute(lambda worker: at_odds, [(0, tmp_path), (7, tmp_path)], workers=2))
    pids = [int(path.name.removeprefix("by-")) for path in tmp_path.glob("by-*")]
    assert pids and comes_true(lambda: not any(map(alive, pids)), 20)


def test_what_lost_workers_were_at_is_done_elsewhere_unless_it_ends_each_of_them(tmp_path):
    done = list(engine.compute(lambda worker: troubled, [(i, tmp_path) for i in range(4)], workers=2, deadline=3))
    assert sorted(done) == [(i, 10 * i) for i in range(4)]
    once = dask.config.set({"distributed.scheduler.allowed-failures": 0})
    with once, pytest.raises(engine.WorkersLost, match="task 0 ended"):
        list(engine.compute(lambda worker: os._exit, [(1,)], workers=2))


def test_a_plain_loop_is_in_order_lazy_and_without_dask():
    code = """
import sys
from srs.smoothing import engine
read = []
def tasks():
    for i in range(3):
        read.append(i)
        yield (i,)
done = engine.compute(lambda worker: abs, tasks())
assert next(done) == (0, 0) and read == [0]
assert list(done) == [(1, 1), (2, 2)]
assert not {"dask", "distributed"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True)


@pytest.mark.parametrize(("given", "named"), [
    (dict(workers=0), "workers = 0"), (dict(scheduler="tcp://here"), "want tcp://host"), (dict(scheduler="no.yaml"), "no.yaml"),
    (dict(workers=2), r"workers = 2 is refused: want 1 without Dask; `pip install srs\[cluster\]`"),
])  # fmt: skip
def test_workers_that_cannot_be_had_are_refused(monkeypatch, given, named):
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    engine.check(1, "")
    with pytest.raises(ConfigError, match=named):
        engine.check(**dict(workers=1, scheduler="") | given)


def test_a_file_of_no_known_queue_and_a_scheduler_that_does_not_answer_are_named(tmp_path):
    path = tmp_path / "queue.yaml"
    for content, named in (("jobqueue: {cloud: {}}", "slurm"), ("- 1", "`jobqueue:` with one of")):
        path.write_text(content)
        with pytest.raises(ConfigError, match=named):
            list(engine.compute(lambda worker: abs, [(-1,)], scheduler=str(path)))
    soon = {"distributed.comm.timeouts.connect": "1s"}
    with dask.config.set(soon), pytest.raises(ConfigError, match="tcp://127.0.0.1:9.*answers"):
        list(engine.compute(lambda worker: abs, [(-1,)], scheduler="tcp://127.0.0.1:9"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its jobs are not waited for
def test_workers_of_a_queue_do_the_same(tmp_path, monkeypatch):
    (tmp_path / "queue.yaml").write_text("jobqueue: {local: {cores: 1, memory: 1 GB, processes: 1}}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # its jobs are processes that start elsewhere, and find `troubled` there
    done = engine.compute(lambda worker: troubled, [(2, tmp_path), (7, tmp_path)], scheduler="queue.yaml")
    assert next(done) == (0, 20)
    with pytest.raises(ConfigError, match="seven is refused"):
        next(done)


def test_what_is_left_is_weighted_by_evaluations_of_f(monkeypatch, capsys):
    plain, bars = engine.tqdm, []
    monkeypatch.setattr(engine, "tqdm", lambda **given: bars.append(plain(**given)) or bars[0])
    shown = engine.shown(iter(enumerate("ab")), "certify", [3000, 5000])
    assert [next(shown), next(shown)] == [(0, "a"), (1, "b")]
    bars[0].start_t = time.time() - 30
    assert str(bars[0]) == "certify, 1 of 2, 38 % of the evaluations of f, 00:50 left"  # 3000 of 8000, at 100 a second
    assert list(shown) == []
    assert capsys.readouterr().err.endswith("certify, 2 of 2, 100 % of the evaluations of f, 00:00 left\n")
