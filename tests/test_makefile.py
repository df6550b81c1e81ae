"""What make does, in a copy of the checkout where a stub stands for Python: its order, where it removes, when it remakes."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from tests.helpers import alive, comes_true

from srs import profiles

ROOT = Path(__file__).parents[1]
RUN = profiles.get_run("smoke", "SMALL", 0.5)
NAME = "near/here che\u0301 ck"

# Stands for the environment's Python: writes down its arguments, and leaves what papermill's notebooks would leave.
STUB = """
import json, os, pathlib, sys
with open(os.environ["STUB_LOG"], "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1:3] == ["-m", "papermill"]:
    out = pathlib.Path(next(word for word in sys.argv if word.endswith(".part.ipynb")))
    left = [*map(pathlib.Path, json.loads(os.environ["STUB_LEAVES"]).get(out.name.removesuffix(".ipynb.part.ipynb"), ()))]
    out.write_text(json.dumps([f"*{path.stem}.* Its caption." for path in left if "figures" in path.parts]))
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"made by": out.name}))
"""
LEAVES = {
    f"10_train-{RUN.id}": [f"data/smoke/{RUN.id}/{name}" for name in profiles.LEAVES["10_train"]],
    f"20_certify-{RUN.id}": [f"data/smoke/{RUN.id}/counts.csv"],
    "30_certified_accuracy": [f"figures/smoke/certified_accuracy_SMALL_s0.50.{end}" for end in ("csv", "md", "tex")],
}
NOTEBOOKS = [f"data/smoke/notebooks/{name}.ipynb" for name in LEAVES]


class Checkout:
    """A copy of what make reads, in a folder whose path has a space and a letter that is not ASCII, or a copy of a copy."""

    def __init__(self, folder: Path, source: Path = ROOT):
        self.folder, self.log, self.stub = folder, folder.parent / "log", folder.parent / "stub"
        folder.mkdir(parents=True)
        for part in ("srs", "notebooks") if source is ROOT else ("srs", "notebooks", "data/smoke", "figures/smoke"):
            shutil.copytree(source / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("Makefile", "requirements.lock"):
            shutil.copy2(source / part, folder / part)
        (folder / ".venv").symlink_to(sys.prefix)
        self.log.touch()
        # A first line with #! takes no path with a space, so the shell finds Python.
        self.stub.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(STUB)} \"$@\"\n")
        self.stub.chmod(0o755)

    def begin(self, *words: str, env: dict = {}, **more: object) -> subprocess.Popen:
        """Start make with the stub, in a session of its own."""
        stands = f"PYTHON3={sys.executable}", f"PY={shlex.quote(str(self.stub))}", "ENV="
        known = {"PATH": "/usr/bin:/bin", "MAKEFLAGS": "", "STUB_LOG": str(self.log), "STUB_LEAVES": json.dumps(LEAVES)}
        place = {"cwd": self.folder, "env": known | env, "start_new_session": True} | more
        return subprocess.Popen(["make", "-j1", *stands, "PROFILE=smoke", *words], **place)

    def make(self, *words: str, **more: object) -> tuple[int, str]:
        """Run make with the stub; its exit code, and what it says."""
        process = self.begin(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
        said = process.communicate(timeout=120)[0]
        return process.returncode, said

    def executed(self, *words: str) -> list[str]:
        """The notebooks that are executed for the last one of them."""
        self.log.write_text("")
        assert self.make(*words, NOTEBOOKS[-1])[0] == 0
        words = [word for word in self.log.read_text().split() if word.endswith(".part.ipynb")]
        return [Path(word).name.removesuffix(".ipynb.part.ipynb") for word in words]


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    return Checkout(tmp_path / NAME)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A checkout in which one run is trained, certified and shown."""
    checkout = Checkout(tmp_path_factory.mktemp("finished") / "here")
    assert checkout.executed() == [*LEAVES]
    return checkout.folder


@pytest.fixture
def made(tmp_path, finished) -> Checkout:
    """A copy of it."""
    return Checkout(tmp_path / NAME, finished)


def make(*words: str, **environment: str) -> subprocess.CompletedProcess:
    command, env = ["make", f"PYTHON3={sys.executable}", *words], {"PATH": "/usr/bin:/bin", "MAKEFLAGS": ""} | environment
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


def test_help_lists_the_targets_empty_variables_are_unset_and_all_cores_are_used():
    plain = make("help", OMP_NUM_THREADS="1")
    assert plain.returncode == 0 and not plain.stderr  # no rule stands twice
    assert {"all", "test", "tables", "lab", "clean"} <= {line.split()[0] for line in plain.stdout.splitlines()}
    assert "PROFILE=digits " in plain.stdout and plain.stdout == make("help", PROFILE="", JOBS="", WORKERS="").stdout
    assert f"JOBS={len(os.sched_getaffinity(0))} " in plain.stdout


@pytest.mark.parametrize("profile", [name for name in profiles.PROFILES if name != "smoke"])  # whose white box has no model
def test_every_run_is_trained_before_it_is_certified_and_shown(profile):
    done = make("--dry-run", "--always-make", "-j1", "all", f"PROFILE={profile}")
    assert done.returncode == 0, done.stderr
    steps = [line.split("-p profile")[0].split()[-1] for line in done.stdout.splitlines() if "papermill" in line]
    names, p = [Path(step).name.removesuffix(".ipynb.part.ipynb") for step in steps], profiles.get_profile(profile)
    for run in p.every_run:
        shown = "36_explicit" if run in p.explicit else "30_certified_accuracy"
        assert names.index(f"10_train-{run.id}") < names.index(f"20_certify-{run.id}") < names.index(shown)
    assert set(profiles.notebooks(p)) <= set(names)
    assert names[-1] == profiles.notebooks(p)[-1] and (len(profiles.notebooks(p)) == 1 or names[-2] == "80_coverage")


def touched(*paths: Path) -> tuple[Path, ...]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


@pytest.mark.parametrize("words", [["test"], ["clean"], ["distclean"], ["clean", "PROFILE=.."], ["clean", "PROFILE=smoke ."]])
def test_nothing_but_what_was_computed_is_removed(checkout, words):
    near = checkout.folder.parent
    kept = touched(*(near / path for path in ("here/theirs", "data/smoke-test/theirs", "data/smoke/theirs")),
                   *(checkout.folder / path for path in ("data/zoo/x", "data/results/x", "figures/readme/x")))  # fmt: skip
    code, said = checkout.make(f"SRS_ROOT={near}", *words)
    assert code == 0 if len(words) == 1 else code and "is refused: want one of digits" in said
    assert [path for path in kept if not path.exists()] == []


@pytest.mark.parametrize("notebook", LEAVES)
def test_a_lost_result_is_remade_and_then_nothing_is(made, notebook):
    for name in LEAVES[notebook]:
        (made.folder / name).unlink()
    settings = made.folder / "data/smoke/settings.json"
    before = settings.read_text()
    settings.unlink()
    assert notebook in made.executed() and all((made.folder / name).exists() for name in LEAVES[notebook])
    assert settings.read_text() == before and made.executed() == []


@pytest.mark.parametrize(("file", "remade"), [
    ("deq/solvers.py", 3), ("smoothing/votes.py", 2), ("analysis/measures.py", 1), ("experiments/attacks.py", 0),
])  # fmt: skip
def test_a_change_remakes_what_depends_on_it_and_no_more(made, file, remade):
    assert made.executed("-W", f"srs/{file}") == [*LEAVES][len(LEAVES) - remade :]


def test_an_old_python_is_refused_before_the_environment_is_touched(checkout, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.version_info = (3, 9, 18, 'final', 0)")
    (checkout.folder / ".venv").unlink()
    theirs, = touched(checkout.folder / ".venv/theirs")
    code, said = checkout.make("test-code", "ENV=.venv/ready", env={"PYTHONPATH": str(tmp_path)})
    assert code != 0 and theirs.exists() and "want Python 3.11 or newer" in said and len(said.splitlines()) == 1


def test_a_foreign_kernel_of_the_same_name_is_not_taken(checkout, tmp_path):
    foreign = tmp_path / "foreign/kernels/python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "Foreign", "language": "python"}))
    looks = "from jupyter_client import kernelspec as k; print('found', k.KernelSpecManager().find_kernel_specs()['python3'])"
    checkout.stub.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(looks)}\n")
    _, said = checkout.make(NOTEBOOKS[0], env={"JUPYTER_PATH": str(foreign.parents[1])})
    assert f"found {checkout.folder}/.venv/share/jupyter/kernels/python3" in said.splitlines()


# Says who runs: this kernel, its papermill, its workers. All of them would go on for minutes.
SLOW = """
import json, os, pathlib, time
from srs.smoothing import engine
folder = pathlib.Path(os.environ["STUB_LOG"]).parent
def sleep(i):
    (folder / f"worker-{os.getpid()}").touch()
    time.sleep(120)
def tasks():
    yield 1,
    yield 2,
    while len(workers := [int(path.name.partition("-")[2]) for path in folder.glob("worker-*")]) < 2:
        time.sleep(0.1)
    (folder / "part").write_text(json.dumps([os.getpid(), os.getppid(), *workers]))
    (folder / "part").replace(os.environ["STUB_LOG"])
    yield 3,
list(engine.compute(lambda worker: sleep, tasks(), workers=2))
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_nothing_runs_on_once_make_is_ended(checkout):
    kernel = {"name": "python3", "display_name": "", "language": "python"}
    slow = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SLOW)], metadata={"kernelspec": kernel})
    nbformat.write(slow, checkout.folder / "notebooks/10_train.ipynb")
    checkout.stub = Path(sys.executable)
    env, target = dict(PYTHONPATH=str(checkout.folder), HOME=str(checkout.folder.parent)), NOTEBOOKS[0]
    make = checkout.begin(target, env=env)
    running = [make.pid]
    try:
        assert comes_true(lambda: checkout.log.read_text() != "" or make.poll() is not None, 60) and make.poll() is None
        running += json.loads(checkout.log.read_text())
        os.kill(make.pid, signal.SIGTERM)
        assert comes_true(lambda: make.poll() is not None and not any(map(alive, running)), 20)
        assert make.returncode != 0 and not (checkout.folder / target).exists()
    finally:
        for pid in filter(alive, running):
            os.kill(pid, signal.SIGKILL)
        make.wait()
