"""Notebooks 30 and 31: the published rows, lost counts, and sentences that change with the counts."""

import re
from dataclasses import replace

import pandas as pd
import pytest
from tests import synthetic
from tests.helpers import at_sigmas

from srs import profiles, store
from srs.experiments import certified_accuracy, consistency

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


def test_lost_counts_are_told(counted):
    store.own(RUN, store.COUNTS).unlink()
    with pytest.warns(UserWarning, match=RUN.id):
        assert set(store.read_counts(SMOKE)["sigma"]) == {0.25}


@pytest.mark.parametrize("finding", [certified_accuracy.kept_finding, consistency.released_finding])
def test_findings_follow_the_counts(counted, finding):
    fewer = counted.copy()
    lost = fewer["method"].isin(["SRS-MDEQ-3A", "MDEQ-30A"])
    fewer.loc[lost, "n_a"] = fewer.loc[lost, "n_a"] * 7 // 10
    for part, whole in {"k": "n_a", "n_2": "n_a", "n_wrong": "n_a", "n_1": "n_2", "m": "k"}.items():
        fewer[part] = fewer[[part, whole]].min(axis=1)
    before, after = finding(counted, SMOKE), finding(fewer, SMOKE)
    assert before != after and re.search(r"\d", before)
