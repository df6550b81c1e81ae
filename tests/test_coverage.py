"""coverage: the list is complete, and what it names is made by the notebook that it names."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests import synthetic
from tests.test_config import PACKAGE, imports

from srs import comparison, coverage, diagrams, figures, profiles, settings_report, shown, tables
from srs.coverage import Item, ITEMS
from srs.store import paths

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SMOKE = profiles.get_profile("smoke")


def test_28_tables_and_12_figures_each_once():
    assert [item.number for item in ITEMS] == [f"T{i}" for i in range(1, 29)] + [f"F{i}" for i in range(1, 13)]
    main = [name for item in ITEMS if not item.imagenet for name in item.artefacts]
    assert len(main) == len(set(main)), "one artefact stands for two items"


def test_what_is_uncertain_is_said():
    known = {item.number: item.known for item in ITEMS}
    assert {n for n, text in known.items() if text.startswith("ambiguous")} == {"T4", "T18", "T19"}
    assert {n for n, text in known.items() if text.startswith("no")} == {"F10", "F11", "F12"}
    assert all(re.match("yes|no|ambiguous", text) for text in known.values())


# ---------------------------------------------------------------------------------------------- made by what


def code_of(notebook: str) -> str:
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def modules_of(notebook: str) -> set[str]:
    """The modules that a notebook imports, and those that they import, less the list of coverage itself."""
    nodes = [node for node in ast.walk(ast.parse(code_of(notebook))) if isinstance(node, ast.ImportFrom)]
    todo, seen = {name.name for node in nodes if node.module == "srs" for name in node.names}, set()
    while todo:
        seen |= todo
        todo = set().union(*(imports(module)[0] for module in todo)) - seen
    return seen - {"coverage"}


def names_in(source: str) -> set[str]:
    """Texts in code that could be an artefact's name or its beginning."""
    texts = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and re.fullmatch(r"[a-z][a-z_]{3,}", text)}


def is_made(artefact: str, notebook: str) -> bool:
    """Whether the notebook, or a module it reaches, holds the artefact's name or what it begins with."""
    if not (NOTEBOOKS / f"{notebook}.ipynb").is_file():
        return False
    sources = [code_of(notebook), *((PACKAGE / f"{module}.py").read_text() for module in modules_of(notebook))]
    begins = set().union(*map(names_in, sources))
    rest = r"(_(SMALL|LARGE|figure|s\d\.\d\d))*"  # what is put together when it runs
    return any(re.fullmatch(begin.rstrip("_") + rest, artefact) for begin in begins)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.number)
def test_every_named_artefact_is_made_by_its_notebook(item: Item):
    assert [name for name in item.artefacts if not is_made(name, item.notebook)] == []
    assert not item.imagenet or is_made(item.imagenet, "30_certified_accuracy")


def test_the_check_sees_a_name_that_nothing_makes():
    assert is_made("mean_rrd", "31_consistency") and is_made("rrd_hist_LARGE", "31_consistency")
    assert not is_made("mean_rrds", "31_consistency")
    assert not is_made("settings_architecture", "31_consistency"), "made, but by another notebook"
    assert not is_made("mean_rrd", "99_nothing")


def test_what_needs_no_network_comes_out_under_the_names_listed(tmp_path, monkeypatch):
    """The functions that the notebooks call, on made-up tallies of all models and sigmas of `digits`."""
    monkeypatch.setenv("SRS_ROOT", str(tmp_path))
    digits = replace(profiles.get_profile("digits"), images=3)
    one_sigma = replace(digits, sigmas=(0.5,))  # a panel takes as long to draw as all tables to write
    synthetic.write_profile(digits)
    tallies = tables.load(digits)
    histograms = figures.make_histograms(one_sigma, tallies)
    made = {
        "05_method": set(diagrams.make_diagrams(digits)) | set(settings_report.make_settings(digits)),
        "30_certified_accuracy": set(tables.make_certified_accuracy(digits, tallies)),
        "31_consistency": set(tables.make_consistency(digits, tallies)) | set(histograms),
        "80_coverage": set(comparison.make_comparison(digits)),
    }
    items = [item for item in ITEMS if item.notebook in made]
    assert len(items) == 8 + 7 + 4 + 2
    for item in items:
        assert set(item.artefacts) <= made[item.notebook], item.number
        assert coverage.missing(digits)[item.number] == []
    table = coverage.make_coverage(digits).set_index("item")
    assert set(table.loc[[item.number for item in items], "in digits now"]) == {"yes"}
    assert table.loc["T25", "in digits now"] == "not made: robust_accuracy_LARGE_s0.50"
    assert table.loc["T16", "in digits now"] == "not made: imagenet_published"
    for name, now in ("imagenet_published", "published figures only"), ("imagenet_check", "published figures, pipeline check"):
        shown.describe(paths.shown(digits, name), shown.About("table", "", "35_imagenet"))
        assert coverage.coverage(digits).set_index("item").loc["T16", "in digits now"] == now
    assert f"{len(items)} are there" in shown.listed(paths.shown(digits, "x").parent)["coverage"].caption


# ---------------------------------------------------------------------------------------------- where


def test_profiles_are_those_with_the_model_and_the_sigma():
    places = {item.number: coverage.made_in(item) for item in ITEMS}
    assert places["T1"] == places["F3"] == places["T25"] == ["digits", "paper"]
    assert places["T2"] == places["T15"] == places["T22"] == ["digits", "cifar10", "paper"]
    assert places["T3"] == ["digits", "cifar10", "paper", "imagenet"]
    for item in ITEMS:
        for name in (n for n in places[item.number] if n in coverage.MAIN):
            models = {run.model.name for run in profiles.PROFILES[name].runs}
            assert all(("LARGE" in artefact) <= ("LARGE" in models) for artefact in item.artefacts)


def test_the_tests_profile_stands_for_digits(srs_root):
    lacking = coverage.missing(SMOKE)
    assert "T2" in lacking and "F4" in lacking and "T22" in lacking
    assert not {"T1", "T13", "F3"} & set(lacking), "smoke has one small model at sigma 0.5"


def test_the_profile_imagenet_has_the_tables_themselves(srs_root):
    imagenet = replace(SMOKE, name="imagenet", sigmas=(0.25, 0.5, 1.0))
    assert set(coverage.missing(imagenet)) == {"T3", "T16", "T17", "T20"}
    assert coverage.missing(imagenet)["T16"] == ["certified_accuracy_SMALL_s0.25"]
    shown.describe(paths.shown(imagenet, "certified_accuracy_SMALL_s0.25"), shown.About("table", "", ""))
    assert coverage.missing(imagenet)["T16"] == []


def test_a_sidecar_of_the_wrong_kind_does_not_count(srs_root):
    stem = paths.shown(SMOKE, "mean_rrd")
    shown.describe(stem, shown.About("figure", "", "31_consistency"))
    assert coverage.missing(SMOKE)["T22"] == ["mean_rrd"]
    shown.describe(stem, shown.About("table", "", "31_consistency"))
    assert coverage.missing(SMOKE)["T22"] == []


def test_command_line_fails_only_when_asked_to_be_complete(srs_root, capsys):
    coverage.main(["--profile", "smoke"])
    assert "T22 (mean_rrd)" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        coverage.main(["--profile", "smoke", "--complete"])
    assert stopped.value.code == 1
    for item in ITEMS:
        for artefact in item.artefacts:
            shown.describe(paths.shown(SMOKE, artefact), shown.About(item.kind, "", item.notebook))
    capsys.readouterr()
    coverage.main(["--profile", "smoke", "--complete"])
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit) as stopped:
        coverage.main(["--profile", "digit"])
    assert stopped.value.code == 2 and "profile = 'digit' is refused" in capsys.readouterr().err
