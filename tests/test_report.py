"""report: one page from counts and executed notebooks, without a reference to anything but itself."""

import re
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


def execute(name: str, *texts: str, title: str = "Title: more", **papermill) -> None:
    """Write a notebook as papermill leaves it."""
    outputs = [new_output("display_data", {"text/markdown": text}) for text in texts]
    outputs.append(new_output("stream", text="progress bar", name="stderr"))
    cells = [new_markdown_cell(f"# {title}\n\n## Tables and more"), new_code_cell("secret_code()", outputs=outputs)]
    path = store.executed(SMOKE, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata={"papermill": papermill}), path)


@pytest.fixture
def notebooks(srs_root):
    """Counts, and notebooks, one of them from the middle of a run."""
    with pytest.raises(settings.ConfigError, match="executed notebooks"):
        report.build(SMOKE)
    synthetic.write_profile(SMOKE)
    execute("40_soundness", "**Finding.** None failed.", duration=3.0, exception=True)
    shown = (TABLE.to_markdown(index=False), "*mean_rrd.* What it shows.")
    execute("30_certified_accuracy", *shown, title="Main: is it?", duration=67.4, exception=None)
    execute("10_train-SMALL", duration=600, exception=None, title="training")
    execute("90_report.part")


def test_the_page_holds_findings_and_what_the_notebooks_show_and_needs_no_other_file(notebooks):
    page = report.build(SMOKE).read_text()
    assert len(re.findall(r"<li><b>[^<]*\?</b> [^<]+", page)) == 5
    assert '<a href="#smoke-mean_rrd">mean_rrd</a>' in page and "#smoke-audit_size_pays" not in page, "a link to what is there"
    assert "What it shows." in page and ">60<" in page and "secret_code" not in page and "progress bar" not in page
    assert page.index("Main: is it?</a>") < page.index("Title: more</a>"), "the main result first, whatever its number"
    assert not re.search(r"<(script|link|iframe)|@import|url\(", page) and str(sealed.root()) not in page
    assert not set(re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page))
    places = re.findall(r'id="([^"]*)"', page)
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(places) and len(places) == len(set(places))
    made = page[page.index('id="made"') :]
    assert all(text in made for text in ("67.4", "not finished", "10_train-SMALL", "670.4", "torch")) and ".part" not in made


def test_stored_results_stand_first_where_their_tables_were_made(notebooks, monkeypatch):
    other = replace(SMOKE, name="other")
    monkeypatch.setitem(profiles.PROFILES, "other", other)
    synthetic.write_profile(other)
    assert "from stored counts" not in report.build(SMOKE, "other").read_text()
    show.table(other, "paper_distance", TABLE, "The caption of a stored table.")
    sealed.write(store.shown(other, "curves_rules_SMALL.png"), b"PNG")
    page = report.build(SMOKE, "other").read_text()
    assert page.index("other, from stored counts") < page.index("smoke, computed here") and "curves_rules_SMALL" in page
    assert page.index("The caption of a stored table.") < page.index("What it shows.")


def test_every_notebook_that_shows_something_has_a_place():
    there = {path.stem for path in (Path(__file__).parents[1] / "notebooks").glob("*.ipynb")}
    assert there - set(report.NOTEBOOKS) == {"10_train", "20_certify", "90_report"} and set(report.NOTEBOOKS) <= there
