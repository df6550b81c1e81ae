"""The README's example runs as it stands and certifies; its table, its names and its commands are those of the code."""

import ast
import functools
import re
import warnings
from pathlib import Path

import srs
from srs import __main__ as entry
from srs import data, profiles
from srs.experiments import summary

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_certifies_in_every_seed(capsys, monkeypatch):
    example = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    monkeypatch.setattr(data, "load", functools.cache(data.load))
    for seed in range(20):
        exec(compile(example.replace("manual_seed(0)", f"manual_seed({seed})"), "README.md", "exec"), {})
    found = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines()]
    label = int(data.load(profiles.DIGITS, "test").labels[0])
    assert len(found) == 20 and all(predict == label and radius > 0.25 for predict, radius in found)


def test_files_commands_and_public_names_in_the_readme_exist():
    walks = re.findall(r"`((?:experiments|attacks|smoothing)/\w+\.py)`", README)
    assert len(walks) == 6 and all((ROOT / "srs" / path).is_file() for path in walks)
    targets = {"make": re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M), "srs": entry.COMMANDS}
    for kind, known in targets.items():
        named = set(re.findall(rf"(?:^|`){kind} ([a-z]+)", README, re.M))
        assert named and named <= set(known)
    named = set(re.findall(r"srs\.([a-z_]+)\(|`srs\.([a-z_]+)`", README))
    assert {a or b for a, b in named} < srs.PUBLIC.keys() and len(named) >= 5


def test_the_table_is_that_of_the_shipped_results():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # runs that are not shipped yet are left out, and say so
        assert summary.filled(README) == README, "run `make readme`"
    assert len(summary.BLOCK.findall(README)) == README.count("<!-- end -->") == 3
    assert sum(re.search(r"\w", word) is not None for word in README.split()) <= 1_200  # not the bars and rules of tables
    assert len(re.search(r"## Many cores.*?(?=\n## )", README, re.S)[0].strip().splitlines()) <= 13  # two are marks
