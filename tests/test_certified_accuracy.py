"""Notebooks 30 and 31: the published rows, names and captions, and sentences that change with the counts."""

import re
from dataclasses import replace

import pandas as pd
import pytest
from tests import synthetic
from tests.helpers import at_sigmas

from srs import profiles, store
from srs.experiments import certified_accuracy, consistency
from srs.settings import ConfigError

SMOKE = replace(
    at_sigmas(profiles.get_profile("smoke"), 0.25, 0.5), images=16, n=400,
    methods=profiles.paper_methods(batch=100, chains=20, warmup=10, audit=100),
)  # fmt: skip
RUN = SMOKE.runs[1]  # sigma 0.5: there are published figures beside it


@pytest.fixture
def counted(srs_root) -> pd.DataFrame:
    synthetic.write_profile(SMOKE)
    return store.read_counts(SMOKE)


def test_published_rows_follow_ours(counted):
    frame = certified_accuracy.of_run(certified_accuracy.accuracy(counted, SMOKE), RUN)
    at = list(zip(frame["method"], frame["rule"]))
    srs = [(f"SRS-MDEQ-{solver}", rule) for solver in ("1N", "1A", "3A") for rule in ("audit", "theorem31", "released")]
    standard = [(f"MDEQ-{solver}", "cohen") for solver in ("1A", "5A", "30A", "STOP")]
    assert [pair for pair in at if pair[1] != "as published"] == [*standard[:3], *srs, *standard[3:]]
    row = frame.iloc[at.index(("SRS-MDEQ-3A", "as published"))]
    assert [row[f"r={r:.2f}"] for r in SMOKE.radii] == ["60", "50", "38", "29", "21", "12", "8"] and row["ACR"] == "0.59"
    others = certified_accuracy.of_run(certified_accuracy.accuracy(counted, SMOKE), SMOKE.runs[0])
    assert "as published" not in set(others["rule"])


@pytest.mark.parametrize("data, sigma, cap", [("imagenet", 1.0, "1.982"), ("cifar10", 0.5, "0.991"), ("digits", 0.5, "0.991")])
def test_captions_say_whose_rows_stand_there_and_what_the_theorem_reaches(data, sigma, cap):
    profile = next(p for p in profiles.PROFILES.values() if p.data.name == data)
    run = next(run for run in profile.runs if run.sigma == sigma and run.model.name == "SMALL")
    note = certified_accuracy._published_note(run)
    assert cap in note and ("other data" in note) == (data == "digits")


def test_counts_of_other_images_and_lost_ones_are_refused_or_told(counted):
    synthetic.write_counts(RUN, SMOKE.methods[0], [synthetic.tally(idx=999)])
    with pytest.raises(ConfigError, match="counts anew"):
        store.read_counts(SMOKE)
    store.own(RUN, store.COUNTS).unlink()
    with pytest.warns(UserWarning, match=RUN.id):
        assert set(store.read_counts(SMOKE)["sigma"]) == {0.25}


FINDINGS = {
    "kept": lambda c: certified_accuracy.kept_finding(c, SMOKE),
    "released": lambda c: consistency.released_finding(c, SMOKE),
    "gap": lambda c: consistency.gap_finding(c, SMOKE),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_findings_follow_the_counts(counted, name):
    fewer = counted.copy()
    lost = fewer["method"].isin(["SRS-MDEQ-3A", "MDEQ-30A"])
    fewer.loc[lost, "n_a"] = fewer.loc[lost, "n_a"] * 7 // 10
    for part in ("k", "n_2", "n_wrong"):
        fewer[part] = fewer[[part, "n_a"]].min(axis=1)
    fewer["n_1"] = fewer[["n_1", "n_2"]].min(axis=1)
    fewer["m"] = fewer[["m", "k"]].min(axis=1)
    before, after = FINDINGS[name](counted), FINDINGS[name](fewer)
    assert before != after and re.search(r"\d", before)


def test_the_order_of_truncated_solves_is_counted(counted):
    rows = counted[~counted["needs_audit"]].copy()
    votes = {"MDEQ-1A": 100, "MDEQ-5A": 300, "MDEQ-30A": 400}
    for i, (method, n_a) in enumerate(votes.items()):
        own = rows["method"] == method
        rows.loc[own, ["n_a", "c_a"]] = n_a, rows.loc[own, "label"].to_numpy()[0]
        rows.loc[own, "label"] = [rows.loc[own, "c_a"].iloc[0] if j % 16 < 4 * (i + 1) else 99 for j in range(own.sum())]
    assert "MDEQ-1A < MDEQ-5A < MDEQ-30A, in 2 of 2 models" in certified_accuracy.order_finding(rows)
    rows["label"] = 99
    assert "in 0 of 2 models" in certified_accuracy.order_finding(rows)
