"""report: one page from what lies in the folder."""

import base64
import json
import re
import subprocess
import sys

import pytest
from tests import synthetic

from srs import figures, profiles, report, shown, tables
from srs.store import paths

SMOKE = profiles.get_profile("smoke")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SRS_ROOT", str(tmp_path))
    synthetic.write_profile(SMOKE)
    return tmp_path


def executed(name: str, **papermill) -> None:
    path = paths.executed(SMOKE, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"metadata": {"papermill": papermill}, "cells": []}))


def test_page_holds_every_artefact(root):
    tallies = tables.load(SMOKE)
    made = set(tables.make_quality(SMOKE) | tables.make_certified_accuracy(SMOKE, tallies))
    made |= set(figures.make_curves(SMOKE, tallies))
    executed("30_certified_accuracy", duration=67.4, exception=None)
    executed("31_consistency", duration=3.0, exception=True)
    html = report.build(SMOKE).read_text()
    for name in made:
        assert f'<figure id="{name}">' in html
    png = (root / "figures" / "smoke" / "curves_SMALL.png").read_bytes()
    assert base64.b64encode(png).decode() in html
    assert not re.search(r'(src|href)="(?!data:|#)', html), "the page must need no other file"
    assert "1 min 07 s" in html and "not finished" in html and "98.1" in html
    assert html.count('<tr class="unsound">') == 3 * len(SMOKE.runs)
    assert html.count('<tr class="published">') == 4
    assert "N = 100" in html and "torch" in html and "anderson" in html
    assert str(root) not in html


def test_empty_folder_still_gives_a_page(root):
    assert "no table and no figure yet" in report.build(SMOKE).read_text()


def test_captions_are_escaped(root):
    (root / "figures" / "smoke").mkdir(parents=True)
    stem = paths.shown(SMOKE, "t")
    shown.write_whole(shown.beside(stem, ".csv"), b"a,b\n<i>,2\n")
    shown.describe(stem, shown.About("table", "<script>", "30_certified_accuracy"))
    html = report.build(SMOKE).read_text()
    assert "<script>" not in html and "&lt;script&gt;" in html and "<td>&lt;i&gt;</td>" in html


def test_executions_tolerate_what_papermill_did_not_write(root):
    executed("00_quickstart", duration=1.5, exception=None)
    executed("90_report", duration=9.0, exception=None)
    paths.executed(SMOKE, "10_train").write_text("{")
    paths.executed(SMOKE, "20_certify").write_text('{"metadata": {}}')
    ran = {e.notebook: (e.seconds, e.finished) for e in report.executions(SMOKE)}
    assert ran == {"00_quickstart": (1.5, True), "10_train": (None, False), "20_certify": (None, False)}


@pytest.mark.parametrize(
    "seconds, text",
    [(None, "not noted"), (4.21, "4.2 s"), (187, "3 min 07 s"), (7500, "2 h 05 min"), (59.99, "1 min 00 s")],
)
def test_clock(seconds, text):
    assert report.clock(seconds) == text


def test_command_line_refuses_unknown_profiles(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["report", "--profile", "digit"])
    with pytest.raises(SystemExit) as stopped:
        shown.profile_argument("python -m srs.report", "what")
    assert stopped.value.code == 2
    assert "profile = 'digit' is refused" in capsys.readouterr().err


def test_command_line_makes_what_the_notebooks_make(root):
    """One real process: python -m srs.tables, then the page has its tables."""
    done = subprocess.run([sys.executable, "-m", "srs.tables", "--profile", "smoke"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {item.name for item in report.items(SMOKE)} == set(done.stdout.split()) == set(tables.make_tables(SMOKE))
