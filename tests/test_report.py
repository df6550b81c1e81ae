"""report: one page from counts and executed notebooks, without a reference to anything but files of the checkout."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from tests import synthetic

from srs import profiles, sealed, settings, store
from srs.analysis import show
from srs.experiments import report

SMOKE = profiles.get_profile("smoke")
TABLE = pd.DataFrame({"method": ["MDEQ", "SRS"], "rule": ["cohen", "released"], "r=0.25": [50.0, 60.0]})


def markdown(text: str):
    return new_output("display_data", {"text/markdown": text})


def execute(name: str, *outputs, title: str = "Title: more", **papermill) -> None:
    """Write a notebook as papermill leaves it."""
    cells = [new_markdown_cell(f"# {title}\n\n## Tables and more"), new_code_cell("secret_code()", outputs=list(outputs))]
    path = sealed.root() / "data" / "smoke" / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata={"papermill": papermill}), path)


@pytest.fixture
def notebooks(srs_root, monkeypatch):
    """Counts, and three notebooks, one of them from the middle of a run; pictures are not drawn."""
    monkeypatch.setattr(show, "figure", lambda profile, name, drawn, caption: show.Shown(name, caption, png=b"PNG"))
    synthetic.write_profile(SMOKE)
    table = show.table(SMOKE, "cost_SMALL_s0.50", TABLE, "What it shows.")
    texts = (table.frame.to_markdown(index=False, disable_numparse=True), f"*{table.name}.* {table.caption}")
    noise = new_output("stream", text="progress bar", name="stderr")
    execute("40_soundness", markdown(show.finding("None failed.").data))
    execute("30_certified_accuracy", *map(markdown, texts), noise, title="Main: is it?", start_time="2030-01-01T10:00:00")
    execute("10_train-SMALL", title="training")
    execute("90_report.part")
    return srs_root


def test_the_page_opens_with_findings_and_holds_what_the_notebooks_show_and_needs_no_other_file(notebooks):
    page = report.build(SMOKE).read_text()
    assert "What it shows." in page and "60.0" in page and f"pandas {pd.__version__}" in page
    assert "secret_code" not in page and "progress bar" not in page and str(sealed.root()) not in page
    assert page.index("Main: is it?") < page.index("Title: more"), "the main result first, whatever its number"
    assert page.count('<tr class="unsound">') == 1 and page.count("<h1") == 1 and len(page.encode()) < 4_000_000
    first = page[page.index('<section class="first">') : page.index('<section id="30_certified_accuracy">')]
    assert len(re.findall(r"<li><b>[^<]*\?</b> [^<]+", first)) == 5 and first.count("<img") == 1
    assert '<a href="#smoke-cost_SMALL_s0.50">cost_SMALL_s0.50</a>' in first, "a table on the page is a step away"
    assert not re.search(r"<(script|link|iframe)|@import|url\(", page)
    links = set(re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page))
    files = {f"../smoke/cost_SMALL_s0.50.{ending}" for ending in ("csv", "tex")}
    assert files | {"../../data/smoke/notebooks/30_certified_accuracy.ipynb"} <= links
    assert all((store.shown(SMOKE, "x").parent / link).is_file() for link in links)
    places = set(re.findall(r'id="([^"]*)"', page))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= places and len(places) == len(re.findall(r'id="', page))


def test_the_commit_before_a_notebook_ran_stands_beside_its_tables(notebooks):
    git = ["git", "-C", str(notebooks), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    assert re.search(r"30.ipynb</a> *</span>", report.build(SMOKE).read_text()), "nothing outside a repository"
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "made"], check=True)
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert f"30.ipynb</a> {head}" in report.build(SMOKE).read_text()


def test_stored_results_stand_first_where_their_tables_were_made(notebooks, monkeypatch):
    other = replace(SMOKE, name="other")
    monkeypatch.setitem(profiles.PROFILES, "other", other)
    synthetic.write_profile(other)
    assert report.build(SMOKE, "other").read_text().count('class="first"') == 1
    for name in ("cost_SMALL_s0.50", "paper_distance", "cost_by_n_SMALL_s0.50"):
        show.table(other, name, TABLE, f"The caption of {name}.")
    page = report.build(SMOKE, "other").read_text()
    assert page.count('class="first"') == 2 and page.index("other), from stored counts") < page.index("smoke), computed here")
    assert page.index("The caption of paper_distance.") < page.index("Main: is it?") and "curves_rules_SMALL" in page
    assert "The caption of cost_by_n_SMALL_s0.50." in page


def test_without_an_executed_notebook_it_is_refused(srs_root):
    with pytest.raises(settings.ConfigError, match="executed notebooks"):
        report.build(SMOKE)


def test_every_notebook_that_shows_something_has_a_place():
    known = {name for names in report.GROUPS.values() for name in names}
    there = {path.stem for path in (Path(__file__).parents[1] / "notebooks").glob("*.ipynb")}
    assert there - known == {"10_train", "20_certify", "90_report"} and known <= there
