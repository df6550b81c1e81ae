"""The table and figure of the explicit baseline, on made-up tallies and on Cohen et al.'s own log."""

from dataclasses import replace
import numpy as np
import pytest
from tests import synthetic

from srs import explicit_report, metrics, profiles, published_others, report, settings, shown
from srs.smoothing import certify
from srs.store.sealed import paths, results
from srs.training import train

SMOKE = profiles.get_profile("smoke")


@pytest.fixture
def root(srs_root):
    """Made-up tallies and cards of the profile `smoke` and of its baseline."""
    synthetic.write_profile(SMOKE)
    synthetic.write_profile(SMOKE.explicit)
    return srs_root


def test_table_has_the_baseline_the_deqs_and_what_was_published(root):
    tables, figures = explicit_report.make(SMOKE)
    frame = tables["explicit_baseline"]
    assert list(zip(frame["network"], frame["rule"])) == [
        ("ResNet-8", "cohen"), ("MDEQ-30A SMALL", "cohen"), ("SRS-MDEQ-3A SMALL", "audit (ours)"),
        ("ResNet-110", explicit_report.PAPER_LABEL), ("ResNet-110", explicit_report.LOG_LABEL),
    ]  # fmt: skip
    ours = frame.iloc[0]
    run = SMOKE.explicit.runs[0]
    own = results.read_tallies(paths.tallies(run, settings.EXPLICIT))
    certificates = metrics.certificates(own, rule="cohen", sigma=0.5, alpha=SMOKE.alpha)
    right = (certificates.predict == own["label"]) & (certificates.radius >= 0.25)
    assert ours["r=0.25"] == f"{100 * right.mean():.1f}" and ours["parameters"] == "12345" and ours["noisy accuracy %"] == "70.0"
    assert ours["NFE/image"] == str(SMOKE.n0 + SMOKE.n)
    assert set(figures) == {"explicit_curves"}
    listed = shown.listed(paths.shown(SMOKE, "x").parent)
    assert {name: about.kind for name, about in listed.items()} == {"explicit_baseline": "table", "explicit_curves": "figure"}
    assert "no copy of it is at hand" in listed["explicit_baseline"].caption
    html = report.build(SMOKE).read_text()
    assert html.count('<tr class="published">') == 2 and "training of ResNet8" in html


def test_a_profile_without_baselines_makes_nothing(srs_root):
    assert explicit_report.make(profiles.get_profile("cifar10")) == ({}, {})
    explicit_report.prepare(profiles.get_profile("cifar10"))
    assert not list(srs_root.rglob("*"))


def test_tallies_of_other_images_are_refused(root):
    run = SMOKE.explicit.runs[0]
    path = paths.tallies(run, settings.EXPLICIT)
    others = [replace(t, idx=t.idx + 1) for t in synthetic.tallies(run, settings.EXPLICIT)]
    results.write_tallies(path, others)
    with pytest.raises(ValueError, match="different images"):
        explicit_report.load(SMOKE)


def test_only_what_is_missing_is_trained_and_certified(root, monkeypatch):
    done = []
    monkeypatch.setattr(train, "train", lambda run, **_: done.append(("train", run.id)))
    monkeypatch.setattr(certify, "certify", lambda run, **_: done.append(("certify", run.id)))
    explicit_report.prepare(SMOKE)
    assert done == []
    run = SMOKE.explicit.runs[0]
    paths.tallies(run, settings.EXPLICIT).unlink()
    explicit_report.prepare(SMOKE)
    assert done == [("train", run.id), ("certify", run.id)]


def test_a_log_at_hand_is_computed_anew(root, monkeypatch):
    monkeypatch.setenv("SRS_DATA", str(root / "brought"))
    path = paths.golden(explicit_report.LOG)
    path.parent.mkdir(parents=True)
    path.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.3\t1\t9\n1\t1\t2\t0.9\t0\t9\n2\t1\t-1\t0.0\t0\t9\n3\t1\t1\t0.5\t1\t9\n")
    row = explicit_report.known()[explicit_report.LOG_LABEL]
    assert row.percent == (50.0, 50.0, 25.0, 0.0, 0.0, 0.0, 0.0) and row.acr == pytest.approx(0.2)
    caption = explicit_report.make(SMOKE) and shown.listed(paths.shown(SMOKE, "x").parent)["explicit_baseline"].caption
    assert "recomputed here" in caption


def test_published_rows_are_those_of_cohen_s_log(shared, monkeypatch):
    log = shared("golden", explicit_report.LOG)
    monkeypatch.setenv("SRS_DATA", str(log.parents[1]))
    row = explicit_report.known()[explicit_report.LOG_LABEL]
    assert row.percent == published_others.COHEN_LOG.percent
    assert row.acr == pytest.approx(published_others.COHEN_LOG.acr, abs=5e-4)
    # The paper's own row is the same log, without decimals.
    assert np.abs(np.array(published_others.RESNET110.percent) - row.percent).max() < 1
