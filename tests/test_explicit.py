"""The explicit network beside the DEQs, on made-up counts."""

from dataclasses import replace

from tests import synthetic

from srs import profiles, settings
from srs.experiments import explicit
from srs.smoothing import certify
from srs.training import train

SMOKE = profiles.get_profile("smoke")
RUN = SMOKE.explicit[0]


def test_a_profile_without_explicit_networks_makes_nothing(srs_root):
    cifar10 = profiles.get_profile("cifar10")
    explicit.measure(cifar10)
    certified = explicit.read(cifar10)
    assert explicit.shown(certified, cifar10) == [] and "no explicit network" in explicit.finding(certified)
    assert not list(srs_root.rglob("*"))


def test_what_is_missing_is_made_and_the_finding_follows_the_counts(srs_root, monkeypatch):
    done = []
    monkeypatch.setattr(train, "train", lambda run, **_: done.append(("train", run.id)))
    monkeypatch.setattr(certify, "certify", lambda run, **_: done.append(("certify", run.id)))
    synthetic.write_profile(SMOKE)
    explicit.measure(SMOKE)
    assert done == [("train", RUN.id), ("certify", RUN.id)]
    synthetic.write_profile(SMOKE, explicit=True)
    explicit.measure(SMOKE)
    assert len(done) == 2
    before = explicit.finding(explicit.read(SMOKE))
    worse = [replace(t, n_a=t.n_a // 2, seconds=10.0) for t in synthetic.every_count(RUN, settings.EXPLICIT)]
    synthetic.write_counts(RUN, settings.EXPLICIT, worse)
    assert "largest ACR at 0 of 1" in (after := explicit.finding(explicit.read(SMOKE))) and before != after
