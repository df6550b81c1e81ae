"""What is made of stored counts in one go: findings, main tables, explicit networks beside DEQs."""

from dataclasses import replace

import pytest
from tests import synthetic
from tests.helpers import at_sigmas

from srs import __main__, profiles, settings, store
from srs.experiments import certified_accuracy, explicit, remake
from srs.smoothing import certify
from srs.training import train

SMOKE = profiles.get_profile("smoke")
PAPER = replace(
    at_sigmas(SMOKE, 0.25, 0.5), images=16, n=400,
    methods=profiles.paper_methods(batch=100, chains=20, warmup=10, audit=100),
)  # fmt: skip


def test_what_steps_and_noise_do_is_told_from_the_counts(srs_root):
    synthetic.write_profile(PAPER)
    counted = store.read_counts(PAPER)
    fixed = {"MDEQ-1A": 300, "MDEQ-5A": 350, "MDEQ-30A": 390}
    counted = counted[counted["method"].isin(fixed)].assign(c_a=counted["label"])
    counted["n_a"] = counted["method"].astype(str).map(fixed)
    told = certified_accuracy.steps_finding(counted, PAPER)
    assert told.endswith("MDEQ-30A in 2 of 2 models: SMALL paper at sigma 0.25; SMALL paper at sigma 0.5.")
    counted.loc[counted["sigma"] == 0.5, "n_a"] = 390 * (counted["idx"] % 2)
    assert " in 1 of 2 models: SMALL paper at sigma 0.25." in certified_accuracy.steps_finding(counted, PAPER)
    assert "0 % at sigma 0.25 (100 %), 2 % at sigma 0.5 (50 %)." in certified_accuracy.noise_finding(counted, PAPER)


def test_the_main_tables_and_figures_are_made_in_one_go(srs_root, capsys):
    with pytest.raises(SystemExit):
        __main__.main(["show", "--profile", "smoke"])
    assert "result file" in capsys.readouterr().err
    with pytest.raises(settings.ConfigError, match="workers = 0"):
        next(remake.remake(SMOKE, workers=0))
    synthetic.write_profile(SMOKE)
    assert list(remake.remake(SMOKE, brief=True)) == list(remake.BRIEF)
    made = {path.name for path in store.shown(SMOKE, "x").parent.iterdir()}
    figures = {"curves_SMALL.pdf", "rrd_hist_SMALL.pdf"}
    assert {"certified_accuracy_SMALL_s0.50.csv", "mean_rrd.csv", "model_quality.csv"} | figures <= made


def test_explicit_networks_that_are_missing_are_made_and_the_finding_follows_the_counts(srs_root, monkeypatch):
    done, run, cifar10 = [], SMOKE.explicit[0], profiles.get_profile("cifar10")
    monkeypatch.setattr(train, "train", lambda run, **_: done.append(("train", run.id)))
    monkeypatch.setattr(certify, "certify", lambda run, **_: done.append(("certify", run.id)))
    explicit.measure(cifar10)
    assert done == [] == explicit.shown(explicit.read(cifar10), cifar10)
    synthetic.write_profile(SMOKE)
    explicit.measure(SMOKE)
    assert done == [("train", run.id), ("certify", run.id)]
    synthetic.write_profile(SMOKE, explicit=True)
    explicit.measure(SMOKE)
    assert len(done) == 2
    before = explicit.finding(explicit.read(SMOKE))
    worse = [replace(t, n_a=t.n_a // 2, seconds=10.0) for t in synthetic.every_count(run, settings.EXPLICIT)]
    synthetic.write_counts(run, settings.EXPLICIT, worse)
    assert "largest ACR at 0 of 1" in (after := explicit.finding(explicit.read(SMOKE))) and before != after
