"""tables: what is printed, from made-up tallies of a whole profile."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tests import synthetic
from tests.synthetic import array, tally

from srs import metrics, profiles, settings, shown, tables
from srs.smoothing.bounds import Rule
from srs.store.sealed import paths, results

SMOKE = replace(profiles.get_profile("smoke"), sigmas=(0.25, 0.5))
RUN = SMOKE.runs[1]  # sigma 0.5: there are published figures beside it


@pytest.fixture
def tallies(tmp_path, monkeypatch):
    monkeypatch.setenv("SRS_ROOT", str(tmp_path))
    synthetic.write_profile(SMOKE)
    return tables.load(SMOKE)


@pytest.mark.parametrize(
    "count, images, text",
    [(326, 500, "65.2"), (1, 3, "33.3"), (2, 3, "66.7"), (1, 16, "6.3"), (0, 7, "0.0"), (7, 7, "100.0"), (0, 0, "")],
)
def test_percent(count, images, text):
    assert tables.percent(count, images) == text


def test_radii_are_rounded_down_and_intervals_outward():
    assert tables.radius(0.5389) == "0.538"
    assert tables.radius(0.3) == "0.300"
    assert tables.outward(0.12345, 0.6781) == "12.3-67.9"
    assert tables.number(float("nan"), 2) == tables.number(None, 2) == ""


def test_main_table_has_every_method_under_every_rule(tallies):
    frame = tables.certified_accuracy(RUN, tallies)
    ours = frame[frame["rule"] != tables.PUBLISHED_LABEL]
    expected = [("MDEQ-1A", "cohen"), ("MDEQ-5A", "cohen"), ("MDEQ-30A", "cohen")]
    for method in ("SRS-MDEQ-1N", "SRS-MDEQ-1A", "SRS-MDEQ-3A"):
        expected += [(method, rule) for rule in ("audit (ours)", "theorem31 (paper)", "released (unsound)")]
    assert list(zip(ours["method"], ours["rule"])) == expected
    assert not ours.isin([""]).any(axis=None)
    assert {c for c in frame if "seconds" in c} == {"seconds/image", "speed-up (seconds)"}


def test_main_table_by_hand(tallies):
    """Four images: certified at a large radius, wrong class, abstention, certified at a small radius."""
    votes = array(
        tally(n=1000, n_a=1000, nfe_estimate=30_000, seconds=3.0),
        tally(n=1000, n_a=1000, nfe_estimate=30_000, label=4),
        tally(n=1000, n_a=400, nfe_estimate=30_000),
        tally(n=1000, n_a=560, nfe_estimate=30_000, seconds=1.0),
    )
    made = tallies | {(RUN.id, "MDEQ-30A"): votes, (RUN.id, "MDEQ-5A"): votes}
    row = tables.certified_accuracy(RUN, made).set_index(["method", "rule"]).loc["MDEQ-5A", "cohen"]
    assert row["r=0.00"] == "50.0" and row["r=1.00"] == "25.0" and row["r=1.50"] == "0.0"
    assert row["NFE/vote"] == "30.00" and row["NFE/image"] == "30000" and row["seconds/image"] == "1.000"
    assert row["speed-up (NFE)"] == row["speed-up (seconds)"] == "1.00"
    acr = metrics.certificates(votes, rule="cohen", sigma=0.5, alpha=0.001).radius[[0, 3]].sum() / 4
    assert acr - 0.001 < float(row["ACR"]) <= acr


def test_published_rows_follow_ours(tallies):
    frame = tables.certified_accuracy(RUN, tallies)
    row = frame[(frame["method"] == "SRS-MDEQ-3A") & (frame["rule"] == tables.PUBLISHED_LABEL)].iloc[0]
    assert [row[f"r={r:.2f}"] for r in SMOKE.radii] == ["60", "50", "38", "29", "21", "12", "8"]
    assert row["ACR"] == "0.59" and row["NFE/image"] == ""
    assert tables.PUBLISHED_LABEL not in set(tables.certified_accuracy(SMOKE.runs[0], tallies)["rule"])
    assert "other data" in tables._published_note(RUN) and "0.991" in tables._published_note(RUN)


def test_published_rows_are_those_of_the_profile_s_data(tmp_path, monkeypatch):
    monkeypatch.setenv("SRS_ROOT", str(tmp_path))
    profile = replace(profiles.get_profile("imagenet"), images=5)
    synthetic.write_profile(profile)
    made = tables.load(profile)
    frames = {run.sigma: tables.certified_accuracy(run, made) for run in profile.runs}
    row = frames[1.0][frames[1.0]["rule"] == tables.PUBLISHED_IMAGENET_LABEL].iloc[-1]
    assert row["method"] == "SRS-MDEQ-3B" and row["r=3.00"] == "11" and row["seconds/image"] == "27.48"
    assert not frames[0.5]["rule"].str.contains("published").any()  # CIFAR-10's stand at 0.5, for models of the same name
    note = tables._published_note(profile.runs[2])
    assert "1.982" in note and "ImageNet" in note and "other data" not in note


def test_a_profile_s_note_opens_the_caption_of_whatever_lies_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SRS_ROOT", str(tmp_path))
    sample = profiles.get_profile("imagenet_sample")
    for profile, caption in ((sample, f"{sample.note} Of it."), (SMOKE, "Of it.")):
        stem = paths.shown(profile, "t")
        tables.save(pd.DataFrame({"a": ["1"]}), stem, caption="Of it.", made_by="nb")
        assert caption in stem.with_suffix(".md").read_text() and caption in stem.with_suffix(".tex").read_text()
        assert shown.listed(stem.parent)["t"].caption == caption


def test_confidence_shows_sound_rules_only(tallies):
    frame = tables.accuracy_with_confidence(RUN, tallies)
    assert not frame["rule"].str.contains("released").any()
    for (_, _), group in frame.groupby(["method", "rule"]):
        measured, interval, sure = (group.iloc[i]["r=0.00"] for i in range(3))
        low, high = map(float, interval.split("-"))
        assert low <= float(measured) <= high
        assert float(sure.removeprefix(">= ")) < max(float(measured), 0.1)


def test_mean_rrd_of_the_reference_s_own_votes_under_cohen_is_zero(tallies):
    reference = SMOKE.method("MDEQ-30A")
    assert not tables.rrd(RUN, reference, tallies, Rule.COHEN).any()
    frame = tables.mean_rrd(SMOKE, tallies)
    assert len(frame) == len(SMOKE.runs) * 3
    assert (frame["audit (ours)"].astype(float) <= 1).all()


def test_mean_rrd_without_a_certified_image_is_empty(tallies):
    nothing = {key: array(tally(n=10, n_a=0), tally(n=10, n_a=0)) for key in tallies}
    frame = tables.mean_rrd(SMOKE, nothing)
    assert (frame["images"] == "0").all() and (frame["audit (ours)"] == "").all()
    assert (tables.p_m_and_gap(SMOKE, nothing)["mean p_m %"] == "").all()


def test_showing_the_unsound_rule_is_silent_only_here(tallies):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tables.certified_accuracy(RUN, tallies)
    assert not caught


def test_model_quality_with_and_without_cards(tallies):
    paths.card(RUN).unlink()
    frame = tables.model_quality(SMOKE)
    assert frame.loc[0, "clean accuracy %"] == "98.1" and frame.loc[0, "residual after 30 steps"] == "2.0e-03"
    assert frame.loc[1, "clean accuracy %"] == frame.loc[1, "training seconds"] == ""


def test_load_refuses_missing_and_unpaired_tallies(tallies):
    path = paths.tallies(RUN, SMOKE.methods[0])
    results.write_tallies(path, [synthetic.tally(idx=999)])
    with pytest.raises(settings.ConfigError, match="MDEQ-1A.tsv.*4 images, every 7"):
        tables.load(SMOKE)
    path.unlink()
    with pytest.warns(UserWarning, match=RUN.id):
        left = tables.load(SMOKE)
    assert {run_id for run_id, _ in left} == {run.id for run in SMOKE.runs} - {RUN.id}
    for run in SMOKE.runs:
        paths.tallies(run, SMOKE.methods[-1]).unlink()
    with pytest.raises(settings.ConfigError, match="result file"):
        tables.load(SMOKE)


def test_shipped_tallies_stand_in_for_missing_ones(tallies):
    for run in SMOKE.runs:
        for method in SMOKE.methods:
            here, there = paths.tallies(run, method), paths.shipped_tallies(run, method)
            there.parent.mkdir(parents=True, exist_ok=True)
            here.rename(there)
    again = tables.load(SMOKE)
    assert again.keys() == tallies.keys() and all((again[key] == tallies[key]).all() for key in tallies)
    results.write_tallies(paths.tallies(RUN, SMOKE.methods[0]), [synthetic.tally(idx=999)])  # of a run that is not complete
    assert (tables.load(SMOKE)[RUN.id, SMOKE.methods[0].name] == tallies[RUN.id, SMOKE.methods[0].name]).all()


def test_make_tables_writes_the_same_bytes_again(tallies, tmp_path):
    made = tables.make_tables(SMOKE)
    folder = tmp_path / "figures" / "smoke"
    assert {"model_quality", "certified_accuracy_SMALL_s0.50", "confidence_SMALL_s0.25", "mean_rrd"} <= set(made)
    written = {f"{name}.{end}" for name in made for end in ("md", "tex", "csv", "json")}
    assert {p.name for p in folder.iterdir()} == written
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    tables.make_tables(SMOKE)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    table = pd.read_csv(folder / "certified_accuracy_SMALL_s0.50.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(table, made["certified_accuracy_SMALL_s0.50"], check_dtype=False)
    assert "released (unsound)" in (folder / "certified_accuracy_SMALL_s0.50.md").read_text()


def test_tables_but_their_seconds_do_not_depend_on_time(tallies):
    slower = {key: own.copy() for key, own in tallies.items()}
    for i, own in enumerate(slower.values()):
        own["seconds"] *= 1 + i
    one, other = tables.certified_accuracy(RUN, tallies), tables.certified_accuracy(RUN, slower)
    timed = [c for c in one if "seconds" in c]
    assert one.drop(columns=timed).equals(other.drop(columns=timed))
    assert not one.equals(other)


def test_save_escapes_and_keeps_digits(tmp_path):
    frame = pd.DataFrame({"share %": ["65.20"], "a_b": ["x & y"]})
    tables.save(frame, tmp_path / "t_s0.50", caption="50 % of c_A > 0", made_by="nb")
    assert r"share \%" in (tmp_path / "t_s0.50.tex").read_text()
    assert r"\caption{50 \% of c\_A $>$ 0}" in (tmp_path / "t_s0.50.tex").read_text()
    assert "65.20" in (tmp_path / "t_s0.50.md").read_text()
    assert not list(tmp_path.glob("*.part"))


def test_stated_radii_are_what_the_rule_gives(tallies):
    own = tallies[RUN.id, "SRS-MDEQ-3A"]
    shown = tables.certify(RUN, SMOKE.method("SRS-MDEQ-3A"), tallies, Rule.AUDIT)
    np.testing.assert_array_equal(shown.radius, metrics.certificates(own, rule="audit", sigma=0.5, alpha=0.001).radius)
