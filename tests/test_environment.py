"""The conda environment, the lock file and pyproject.toml name the same packages."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def name_of(requirement: str) -> str:
    """The normalised name that a requirement begins with."""
    return re.match(r"[A-Za-z0-9._-]+", requirement).group().lower().replace("_", "-")


def asked_for() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [extra for name, extra in project["optional-dependencies"].items() if name != "browser"]  # pinned in place
    return {name_of(r) for r in [*project["dependencies"], *(r for extra in extras for r in extra)]}


def locked() -> dict[str, set[str]]:
    """Every version that the lock has of a package: some differ by Python version."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.M):
        versions.setdefault(name, set()).add(version)
    return versions


def test_lock_and_environment_yml_pin_all_that_is_asked_for_and_every_package_is_hashed():
    text = (ROOT / "requirements.lock").read_text()
    conda = dict(re.findall(r"^\s+- ([a-z0-9-]+)==(\S+)", (ROOT / "environment.yml").read_text(), re.M))
    assert {name: conda[name] in locked()[name] for name in conda} == dict.fromkeys(asked_for(), True)
    assert all("--hash=sha256:" in entry for entry in re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.M)[1:])


def test_no_file_names_a_package_index():
    for file in ("requirements.lock", "environment.yml", "pyproject.toml"):
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", (ROOT / file).read_text()), file
