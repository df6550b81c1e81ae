"""The Makefile's targets, without running them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from srs import profiles

ROOT = Path(__file__).parents[1]


def make(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["make", f"PYTHON3={sys.executable}", *words], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={"PATH": "/usr/bin:/bin", "MAKEFLAGS": ""} | environment,
    )  # fmt: skip


def test_no_rule_stands_twice_and_help_lists_what_the_readme_names():
    done = make("help")
    assert done.returncode == 0 and not done.stderr
    assert {"all", "test", "tables", "lab", "clean"} <= {line.split()[0] for line in done.stdout.splitlines()}


def test_empty_variables_are_unset_and_all_cores_are_used():
    plain, empty = make("help").stdout, make("help", PROFILE="", JOBS="", WORKERS="").stdout
    assert "PROFILE=digits " in plain and plain == empty
    assert f"JOBS={len(os.sched_getaffinity(0))} " in make("help", OMP_NUM_THREADS="1").stdout


@pytest.mark.parametrize(
    ("environment", "set_to"),
    [
        ({"PIP_INDEX_URL": "https://mirror/simple"}, {"UV_DEFAULT_INDEX": "https://mirror/simple"}),
        ({"PIP_INDEX_URL": "https://mirror/simple", "UV_DEFAULT_INDEX": "https://own"}, {"UV_DEFAULT_INDEX": "https://own"}),
        ({"HOME": "/proc/nowhere"}, {"HOME": f"{ROOT}/data/home"}),
        ({"HOME": ""}, {"HOME": f"{ROOT}/data/home"}),
        ({"HOME": "/tmp"}, {"HOME": "/tmp"}),
    ],
)
def test_uv_has_pip_s_index_and_a_home(environment, set_to):
    database = make("--dry-run", "--print-data-base", "help", **environment).stdout.splitlines()
    set_here = dict(line.replace(" := ", " = ").split(" = ", 1) for line in database if " = " in line or " := " in line)
    assert {name: set_here[name] for name in set_to} == set_to


def test_unknown_profile_is_refused_in_one_sentence():
    done = make("all", "PROFILE=nonsense")
    assert done.returncode != 0
    assert "PROFILE=nonsense is refused: want one of digits" in done.stderr


@pytest.mark.parametrize("profile", ["digits", "cifar10", "paper", "imagenet", "imagenet_sample"])
def test_every_run_is_trained_before_it_is_certified_and_shown(profile):
    done = make("--dry-run", "--always-make", "-j1", "all", f"PROFILE={profile}")
    assert done.returncode == 0, done.stderr
    steps = [line.split("-p profile")[0].split()[-1] for line in done.stdout.splitlines() if "papermill" in line]
    names = [Path(step).name.removesuffix(".part.ipynb") for step in steps]
    for run in (name.removeprefix("20_certify-") for name in names if name.startswith("20_certify-")):
        shown = "36_explicit.ipynb" if run.startswith("ResNet") else "30_certified_accuracy.ipynb"
        assert names.index(f"10_train-{run}") < names.index(f"20_certify-{run}") < names.index(shown)
    assert names[-2:] == ["80_coverage.ipynb", "90_report.ipynb"]  # coverage looks at what all others left


@pytest.mark.parametrize("profile", [name for name, p in profiles.PROFILES.items() if not any(m.audit for m in p.methods)])
def test_a_profile_without_the_paper_s_methods_ends_with_the_main_tables(profile):
    done = make("--dry-run", "--always-make", "-j1", "all", f"PROFILE={profile}")
    steps = [line.split("-p profile")[0].split()[-1] for line in done.stdout.splitlines() if "papermill" in line]
    names = [Path(step).name.removesuffix(".part.ipynb") for step in steps]
    runs = [run.id for run in profiles.get_profile(profile).runs]
    assert names[-1] == "30_certified_accuracy.ipynb"
    assert sorted(names[:-1]) == sorted(f"{step}-{run}.ipynb" for step in ("10_train", "20_certify") for run in runs)
