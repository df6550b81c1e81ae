"""Findings, main tables, explicit networks beside DEQs, and the first screen: all follow the stored counts."""

import warnings
from dataclasses import replace

import pandas as pd
import pytest
from tests import synthetic
from tests.helpers import at_sigmas

from srs import __main__, profiles, settings, store
from srs.analysis import measures
from srs.experiments import certified_accuracy, explicit, remake, simulation, soundness, summary
from srs.smoothing import certify
from srs.training import train

PLAIN = profiles.get_profile("smoke")
SMOKE = replace(at_sigmas(PLAIN, 0.25, 0.5), images=12, n=400)
QUESTIONS = [
    "How accurate is it?", "What does SRS keep?", "Do the authors' certificates hold?", "When does SRS pay at all?",
    "What is our rule worth?",
]  # fmt: skip


def found(counted):
    """The findings by their question, the tables of audit sizes made anew."""
    soundness.size_tables(simulation.audit_sizes(counted, SMOKE), SMOKE)
    return {question: (answer, table) for question, answer, table in summary.findings(counted, SMOKE)}


def test_each_finding_follows_the_counts(srs_root, monkeypatch):
    """Made-up counts, and counts where SRS votes are cheap, right and larger by chance."""
    monkeypatch.setattr(simulation, "AUDIT_KS", (20, 200))
    synthetic.write_profile(SMOKE)
    counted = store.read_counts(SMOKE)
    before, better, srs = found(counted), counted.copy(), counted["needs_audit"]
    better.loc[srs, "n_a"] = 400
    better.loc[srs, ["m", "n_wrong", "n_differ", "nfe_audit"]] = 0
    better.loc[srs, "nfe_estimate"] //= 2
    better.loc[srs, "n_2"] = better.loc[srs, "n_1"] = 20
    better.loc[~srs, "n_a"] = better.loc[~srs, "n_a"] * 9 // 10
    after = found(better)
    assert list(before) == list(after) == QUESTIONS
    for question in QUESTIONS:
        assert before[question][0] != after[question][0] and before[question][1] == after[question][1]
        assert "nan" not in before[question][0] + after[question][0]
    pays = before["When does SRS pay at all?"][0]
    assert "at N = 400 in 0 of 6 rows beside the solve that audits it, beside MDEQ-30A in 1 (most by" in pays
    assert "beside MDEQ-30A in 6 (most by" in after["When does SRS pay at all?"][0]
    assert "RS-tol on SMALL paper (2.5 times fewer evaluations, 98 % kept" in pays
    (figure,) = summary.kept_against_speed(counted, SMOKE)
    rows = summary.kept(counted[counted["sigma"] == 0.5], SMOKE)
    assert figure.png and len(rows) == sum(3 if method.needs_audit else 1 for method in SMOKE.methods)
    reference = rows[rows["method"] == SMOKE.reference]
    assert reference["kept"].tolist() == pytest.approx([100]) and reference["times"].tolist() == [1]
    nothing = summary.findings(counted.assign(n_a=0, k=0, m=0, n_2=0, n_1=0), SMOKE)
    assert [question for question, _, _ in nothing] == QUESTIONS[:1], "models that certify nothing are compared with nothing"


def test_the_distance_is_ours_minus_the_paper_s_and_its_interval_holds_it(monkeypatch):
    monkeypatch.delenv("SRS_ROOT", raising=False)
    profile = profiles.get_profile("cifar10")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cifar10 = store.read_counts(profile)
    frame = summary.distance(cifar10, profile).set_index(["recipe", "method", "statement"]).sort_index()
    own = cifar10.query("recipe == 'paper' and sigma == 0.5 and method == 'MDEQ-30A'")
    share = 100 * (measures.certificates(own, alpha=0.001).query("correct")["radius"] >= 0.5).sum() / len(own)
    printed = certified_accuracy.published("cifar10").sort_index().loc[("SMALL", 0.5, "MDEQ-30A"), "r=0.50"]
    rows = frame.loc["paper", "MDEQ-30A"]
    assert rows.loc["as published", "r=0.50"] == printed and rows.loc["distance", "r=0.50"] == pytest.approx(share - printed)
    low, high = map(float, rows.loc["its 95 % interval", "r=0.50"].split(" to "))
    assert low < share - printed < high
    said, table = summary.accuracy_finding(cifar10, profile)
    assert "Ours minus the paper's MDEQ-30A: " in said and table == "paper_distance"
    large = cifar10.assign(model="LARGE")  # of another size, at the same recipes
    assert summary.accuracy_finding(pd.concat([cifar10.astype({"model": object}), large]), profile) == (said, table)
    worse, _ = summary.accuracy_finding(cifar10.assign(n_a=cifar10["n_a"] * 9 // 10), profile)
    assert said.split("Ours minus")[1] != worse.split("Ours minus")[1]
    assert summary.distance(cifar10, replace(profile, data=profiles.DIGITS)).empty, "no distance between data sets"


def test_what_noise_does_is_told_from_the_counts(srs_root):
    synthetic.write_profile(SMOKE)
    counted = store.read_counts(SMOKE)
    fixed = {"MDEQ-1A": 300, "MDEQ-5A": 350, "MDEQ-30A": 390}
    counted = counted[counted["method"].isin(fixed)].assign(c_a=counted["label"])
    counted["n_a"] = counted["method"].astype(str).map(fixed)
    counted.loc[counted["sigma"] == 0.5, "n_a"] = 390 * (counted["idx"] % 2)
    assert "0 % at sigma 0.25 (100 %), 2 % at sigma 0.5 (50 %)." in certified_accuracy.noise_finding(counted, SMOKE)


def test_the_main_tables_and_figures_are_made_in_one_go(srs_root, capsys):
    with pytest.raises(SystemExit):
        __main__.main(["show", "--profile", "smoke"])
    assert "result file" in capsys.readouterr().err
    with pytest.raises(settings.ConfigError, match="workers = 0"):
        next(remake.remake(PLAIN, workers=0))
    synthetic.write_profile(PLAIN)
    assert list(remake.remake(PLAIN, brief=True)) == list(remake.BRIEF)
    made = {path.name for path in store.shown(PLAIN, "x").parent.iterdir()}
    figures = {"curves_SMALL.pdf", "rrd_hist_SMALL.pdf"}
    assert {"certified_accuracy_SMALL_s0.50.csv", "mean_rrd.csv", "model_quality.csv"} | figures <= made


def test_explicit_networks_that_are_missing_are_made_and_the_finding_follows_the_counts(srs_root, monkeypatch):
    done, run, cifar10 = [], PLAIN.explicit[0], profiles.get_profile("cifar10")
    monkeypatch.setattr(train, "train", lambda run, **_: done.append(("train", run.id)))
    monkeypatch.setattr(certify, "certify", lambda run, **_: done.append(("certify", run.id)))
    explicit.measure(cifar10)
    assert done == [] == explicit.shown(explicit.read(cifar10), cifar10)
    synthetic.write_profile(PLAIN)
    explicit.measure(PLAIN)
    assert done == [("train", run.id), ("certify", run.id)]
    synthetic.write_profile(PLAIN, explicit=True)
    explicit.measure(PLAIN)
    assert len(done) == 2
    before = explicit.finding(explicit.read(PLAIN))
    worse = [replace(t, n_a=t.n_a // 2, seconds=10.0) for t in synthetic.every_count(run, settings.EXPLICIT)]
    synthetic.write_counts(run, settings.EXPLICIT, worse)
    assert "largest ACR at 0 of 1" in (after := explicit.finding(explicit.read(PLAIN))) and before != after
