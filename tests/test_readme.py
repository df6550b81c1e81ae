"""The README's example runs as it stands and certifies; its table, its names and its commands are those of the code."""

import re
import warnings
from pathlib import Path

import pytest

from srs import __main__ as entry
from srs.experiments import readme

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_certifies(capsys):
    example = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    exec(compile(example, "README.md", "exec"), {})
    predict, radius = re.match(r"class (-?\d+), radius ([\d.]+)", capsys.readouterr().out).groups()
    assert int(predict) >= 0 and float(radius) > 0


def test_every_notebook_is_listed():
    listed = set(re.findall(r"\b(\d\d_[a-z_]+)\b", README))
    assert listed == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("kind", ["make", "srs"])
def test_commands_named_in_the_readme_exist(kind):
    targets = {"make": re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M), "srs": entry.COMMANDS}[kind]
    named = set(re.findall(rf"(?:^|`){kind} ([a-z]+)", README, re.M))
    assert named and named <= set(targets)


def test_files_named_in_the_walks_exist():
    for name in re.findall(r"`((?:experiments|attacks|smoothing)/\w+\.py)", README):
        assert (ROOT / "srs" / name).is_file(), name


def test_the_table_is_that_of_the_shipped_results():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # runs that are not shipped yet are left out, and say so
        assert readme.filled(README) == README, "run `make readme`"
    assert len(readme.BLOCK.findall(README)) == README.count("<!-- rows:") == 1
    assert len(README.split()) < 1_400
