"""report: one page from the executed notebooks, without a reference to anything but the files beside it."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from srs import profiles, sealed, settings, store
from srs.analysis import show
from srs.experiments import report

SMOKE = profiles.get_profile("smoke")
TABLE = pd.DataFrame({"method": ["MDEQ", "SRS"], "rule": ["cohen", "released"], "r=0.25": [50.0, 60.0]})


def markdown(text: str):
    return new_output("display_data", {"text/markdown": text})


def execute(name: str, *outputs, title: str = "Title: more", **papermill) -> Path:
    """Write a notebook as papermill leaves it."""
    cells = [new_markdown_cell(f"# {title}\n\n## Tables and more"), new_code_cell("secret_code()", outputs=list(outputs))]
    path = store.executed(SMOKE, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata={"papermill": papermill}), path)
    return path


@pytest.fixture
def page(srs_root) -> str:
    """A report of three notebooks, one of them from the middle of a run."""
    table = show.table(SMOKE, "main", TABLE, "What it shows.")
    outputs = [markdown(f"{table.frame.to_markdown(index=False, disable_numparse=True)}"), markdown(f"*{table.name}.* {table.caption}"), markdown(show.finding("A < B in 3 of 4.").data)]
    execute("40_soundness", markdown(show.finding("None failed.").data), duration=3.0, exception=True)
    noise = new_output("stream", text="progress bar", name="stderr")
    execute("30_certified_accuracy", *outputs, new_output("stream", text="printed", name="stdout"), noise, title="Main: is it?", duration=67.4, exception=None)
    execute("10_train-SMALL", duration=600, exception=None, title="training")
    execute("90_report.part")
    return report.build(SMOKE).read_text()


def test_the_page_holds_what_the_notebooks_show_and_not_their_code(page):
    assert "printed" in page and "What it shows." in page and "60.0" in page
    assert "secret_code" not in page and "progress bar" not in page
    assert page.index("Main: is it?") < page.index("Title: more"), "the main result first, whatever its number"
    assert page.count('<tr class="unsound">') == 1 and page.count("<h1") == 1
    assert len(page.encode()) < 4_000_000 and str(sealed.root()) not in page


def test_the_page_needs_no_other_file_and_links_to_those_beside_it(page):
    assert not re.search(r"<(script|link|iframe)|@import|url\(", page)
    links = set(re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page))
    assert links == {"main.csv", "main.tex"} and all((store.shown(SMOKE, link)).is_file() for link in links)
    places = set(re.findall(r'id="([^"]*)"', page))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= places and len(places) == len(re.findall(r'id="', page))


def test_findings_open_the_page_in_its_order(page):
    assert report.findings(SMOKE) == ["A < B in 3 of 4.", "None failed."]
    assert page.index("A &lt; B in 3 of 4.") < page.index("What it shows.")


def test_times_settings_and_versions_close_it(page):
    made = page[page.index('<section id="made">') :]
    assert all(text in made for text in ("1 min 07 s", "not finished", "10_train-SMALL", "10 min 00 s", "11 min 10 s", "torch", "nbconvert"))
    assert "MDEQ-30A" in made and "0.001" in made and ".part" not in made


def test_without_an_executed_notebook_it_is_refused(srs_root):
    with pytest.raises(settings.ConfigError, match="executed notebooks"):
        report.build(SMOKE)


def test_notebooks_run_by_hand_and_half_written_are_told_apart(srs_root):
    execute("00_quickstart", duration=1.5, exception=None)
    execute("05_method")
    store.executed(SMOKE, "10_train").write_text("{")
    states = report.run_times(SMOKE).set_index("notebook")["time"].to_dict()
    assert states == {"00_quickstart": "1.5 s", "05_method": "not noted", "10_train": "not noted"}


@pytest.mark.parametrize(
    "seconds, text", [(None, "not noted"), (4.21, "4.2 s"), (187, "3 min 07 s"), (7500, "2 h 05 min"), (59.99, "1 min 00 s")]
)
def test_clock(seconds, text):
    assert report.clock(seconds) == text


def test_every_notebook_that_shows_something_has_a_place():
    known = {name for names in report.GROUPS.values() for name in names}
    there = {path.stem for path in (Path(__file__).parents[1] / "notebooks").glob("*.ipynb")}
    assert there - known == {"10_train", "20_certify", "90_report"} and known <= there
