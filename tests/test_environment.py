"""The conda environment, the lock file and pyproject.toml name the same packages."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_lock_and_environment_yml_pin_all_that_is_asked_for_and_every_package_is_hashed():
    project, text = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"], (ROOT / "requirements.lock").read_text()
    asked = [*project["dependencies"]]
    for name, extra in project["optional-dependencies"].items():
        asked += extra if name != "browser" else []  # pinned in place
    names = {re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-") for requirement in asked}
    locked = set(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", text, re.M))  # some versions differ by Python's
    conda = dict(re.findall(r"^\s+- ([a-z0-9-]+)==(\S+)", (ROOT / "environment.yml").read_text(), re.M))
    assert conda.keys() == names and conda.items() <= locked
    assert all("--hash=sha256:" in entry for entry in re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.M)[1:])


def test_no_file_names_a_package_index():
    for file in ("requirements.lock", "environment.yml", "pyproject.toml"):
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", (ROOT / file).read_text()), file
