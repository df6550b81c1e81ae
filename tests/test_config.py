"""What the configuration refuses, and that imports run one way and all files of packages name the same ones."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srs.profiles import get_profile, get_run, PROFILES, read_parameters
from srs.settings import ConfigError, fingerprint, Method, Sampling

SMOKE = PROFILES["smoke"]
RS = Method("X", "anderson", 3)

REFUSED = {
    "profile": (lambda: get_profile("digit"), "profile = 'digit'", "digits"),
    "model": (lambda: get_run("digits", "MEDIUM", 0.5), "'MEDIUM 0.5 paper'", "SMALL 0.5 paper, "),
    "sigma absent": (lambda: get_run("digits", "SMALL", 0.3), "'SMALL 0.3 paper'", "SMALL 0.25 paper, "),
    "sigma 0": (lambda: get_run("digits", "SMALL", 0), "sigma = 0", "positive"),
    "sigma text": (lambda: get_run("digits", "SMALL", "0.5"), "sigma = '0.5'", "positive"),
    "alpha": (lambda: replace(SMOKE, alpha=1.0), "alpha = 1.0", "between 0 and 1"),
    "N": (lambda: replace(SMOKE, n=0), "n = 0", "at least 1"),
    "images": (lambda: replace(SMOKE, images=0), "images = 0", "at least 1"),
    "K above N": (lambda: replace(SMOKE, n=10), "K = 20", "at most n = 10"),
    "reference": (lambda: replace(SMOKE, reference="MDEQ-2A"), "'MDEQ-2A'", "MDEQ-30A"),
    "solver": (lambda: replace(RS, solver="newton"), "solver = 'newton'", "broyden"),
    "head": (lambda: replace(RS, head="half"), "head of X = 'half'", "bfloat16"),
    "steps": (lambda: replace(RS, steps=1.5), "steps of X = 1.5", "whole number"),
    "serialized reference": (lambda: Sampling(10, reference=replace(RS, start="clean")), "reference method = 'X'", "from zero"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "value", "right"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_sentence_with_value_and_remedy(make, value, right):
    with pytest.raises(ConfigError) as refusal:
        make()
    message = str(refusal.value)
    assert value in message and right in message
    assert "\n" not in message and message.count(" is refused: want ") == 1


def test_edges_that_are_allowed():
    replace(SMOKE, n=20, n0=1, images=1, alpha=0.999)  # K = N
    assert get_run("digits", "SMALL", 1).sigma == 1.0  # an int for a float
    assert get_run("cifar10", "SMALL", np.float32(0.12)).sigma == 0.12  # numpy's number is the one that it shows
    scalars = Method("M", "anderson", np.int64(3), tol=np.float64(0.1))
    assert fingerprint(scalars) == fingerprint(Method("M", "anderson", 3, tol=0.1))


TYPES = dict(profile=str, sigma=float, workers=int, quick=bool)
GIVEN = dict(profile="digits", sigma=0.5, workers=2, quick=False)


@pytest.mark.parametrize("change", [{"profile": None}, {"sigma": "0.5"}, {"workers": True}, {"quick": 1}], ids=str)
def test_parameters_of_the_wrong_type_are_refused(change):
    read_parameters(GIVEN | {"sigma": 1, "np": os, "startup": "mine"}, **TYPES)
    (name, value), = change.items()
    with pytest.raises(ConfigError, match=re.escape(f"{name} = {value!r}")):
        read_parameters(GIVEN | change, **TYPES)
    with pytest.raises(ConfigError, match=f"want {name}"):
        read_parameters({k: v for k, v in GIVEN.items() if k != name}, **TYPES)


def test_an_unknown_name_is_refused_where_papermill_sets_it():
    cells = ["profile = 'digits'\nalpha = 0.5", "# Parameters\nprofile = 'smoke'\nk = None\n", "name = 'x'"]
    with pytest.raises(ConfigError, match="parameter = 'k' is refused: want one of profile"):
        read_parameters(GIVEN | {"In": cells}, **TYPES)
    read_parameters(GIVEN | {"In": [*cells, "# Parameters\nprofile = 'smoke'\n"]}, **TYPES)  # put right


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_ids_are_unique_and_lead_back_and_explicit_networks_are_certified_by_standard_smoothing_on_the_same_images(profile):
    assert len({r.id for r in profile.every_run}) == len(profile.every_run) == len(profile.plan)
    for r in profile.every_run:
        assert get_run(profile.name, r.model.name, r.sigma, r.train.recipe) == r
    assert profile.evaluated == tuple(range(0, profile.images * profile.stride, profile.stride))
    for own in (run.profile for run in profile.explicit):
        method, = own.methods
        assert (method.name, method.steps, method.needs_audit) == (own.reference, 1, False)
        assert own.evaluated == profile.evaluated and method.batch == profile.method(profile.reference).batch
        assert replace(own.sampling, reference=profile.sampling.reference) == profile.sampling


@pytest.mark.parametrize("profile", [p for p in PROFILES.values() if p.reference.startswith("MDEQ")])
def test_profiles_have_the_paper_s_methods_and_a_standard_reference(profile):
    rows = "MDEQ-1A MDEQ-5A MDEQ-30A SRS-MDEQ-1N SRS-MDEQ-1A SRS-MDEQ-3A".split()
    rows = "MDEQ-1B MDEQ-5B MDEQ-14B SRS-MDEQ-1B SRS-MDEQ-3B".split() if "imagenet" in profile.name else rows
    assert [m.name for m in profile.methods[: len(rows) + 1]] == [*rows, "RS-tol"]
    assert all(m.needs_audit == m.name.startswith("SRS") == (m.audit > 0) for m in profile.methods)
    assert {m.auditor for m in profile.methods if m.audit} == {profile.method("RS-tol")}
    for m in profile.methods[: len(rows)]:
        steps, solver = re.search(r"(\d+)([ANB])$", m.name).groups()
        assert (m.steps, m.solver) == (int(steps), {"A": "anderson", "N": "naive", "B": "broyden"}[solver])
        assert m.needs_audit == (m.start == "previous")
    assert not profile.method(profile.reference).needs_audit


ROOT = Path(__file__).parents[1]
FILES = [path for path in (ROOT / "srs").rglob("*.py") if path.stem != "__init__"]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
# From the bottom up: a module imports only from its own layer and from those below.
LAYERS = (
    ("settings", "attacks.settings"), ("sealed",), ("profiles",), ("store",), ("data", "deq"), ("smoothing",), ("analysis",),
    ("attacks",), ("training",), ("experiments",), ("__main__",),
)  # fmt: skip


def layer(module: str) -> int:
    """The number of a module's layer, that of the longest prefix of its name."""
    places = {f"srs.{name}": i for i, names in enumerate(LAYERS) for name in names}
    return places[max((name for name in places if f"{module}.".startswith(f"{name}.")), key=len)]


def imports(module: str) -> set[str]:
    """What a module imports anywhere in it, functions too: modules of srs by their whole name, of others the package."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            found |= {whole if (whole := f"{node.module}.{name.name}") in MODULES else node.module for name in node.names}
    return {name if name.startswith("srs") else name.split(".")[0] for name in found}


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downward(module):
    own = [name for name in imports(module) if name.startswith("srs")]
    assert set(own) <= MODULES.keys(), "a name that is no module"
    assert [name for name in own if layer(name) > layer(module)] == []


def test_no_file_is_longer_than_400_lines():
    lengths = {path: len(path.read_text().splitlines()) for path in (*FILES, *(ROOT / "tests").rglob("*.py"))}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def python(*arguments: str) -> subprocess.CompletedProcess:
    env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True)


def test_what_is_shown_from_counts_needs_no_torch():
    shown = [name for name in MODULES if name.startswith(("srs.store", "srs.analysis"))]
    shown += [f"srs.experiments.{name}" for name in ("certified_accuracy", "consistency", "coverage", "attacks", "white_box")]
    found = python("-c", f"import sys, {', '.join(shown)}; print('torch' in sys.modules)")
    assert found.stdout.strip() == "False", found.stderr


def test_make_is_told_all_it_asks_in_one_go_by_the_standard_library_alone():
    def told(*words: str) -> list[str]:
        return python("-S", "-m", "srs.profiles", *words).stdout.split()

    known, digits = [f"profile={name}" for name in PROFILES], PROFILES["digits"]
    answers = told("digits")
    assert answers[: len(known)] == known == told("digit")
    assert [word.removeprefix("run=") for word in answers if word.startswith("run=")] == [run.id for run in digits.runs]
    assert {"explicit=ResNet14-s0.12-gaussian", "notebook=34_white_box", "trains_more=True"} <= set(answers)
    assert {"notebook=34_white_box", "trains_more=True"}.isdisjoint(told("cifar10"))


def test_lock_and_environment_yml_pin_all_that_is_asked_for_with_hashes_and_name_no_package_index():
    project, text = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"], (ROOT / "requirements.lock").read_text()
    asked = [*project["dependencies"]]
    for name, extra in project["optional-dependencies"].items():
        asked += extra if name != "browser" else []  # pinned in place
    names = {re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-") for requirement in asked}
    locked = set(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", text, re.M))  # some versions differ by Python's
    conda = dict(re.findall(r"^\s+- ([a-z0-9-]+)==(\S+)", (ROOT / "environment.yml").read_text(), re.M))
    assert conda.keys() == names and conda.items() <= locked
    assert all("--hash=sha256:" in entry for entry in re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.M)[1:])
    for file in ("requirements.lock", "environment.yml", "pyproject.toml"):
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", (ROOT / file).read_text()), file
