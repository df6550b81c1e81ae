"""The explicit network beside the DEQs, on made-up counts."""

from dataclasses import replace

import pytest
from tests import synthetic

from srs import profiles, settings, store
from srs.experiments import explicit
from srs.training import train
from srs.smoothing import certify

SMOKE = profiles.get_profile("smoke")
RUN = SMOKE.explicit[0]


@pytest.fixture
def root(srs_root):
    """Made-up counts and cards of the profile `smoke` and of its explicit network."""
    synthetic.write_profile(SMOKE)
    synthetic.write_profile(SMOKE, explicit=True)
    return srs_root


def test_a_profile_without_explicit_networks_makes_nothing(srs_root):
    cifar10 = profiles.get_profile("cifar10")
    explicit.measure(cifar10)
    certified = explicit.read(cifar10)
    assert explicit.shown(certified, cifar10) == [] and "no explicit network" in explicit.finding(certified)
    assert not list(srs_root.rglob("*"))


def test_only_what_is_missing_is_trained_and_certified(root, monkeypatch):
    done = []
    monkeypatch.setattr(train, "train", lambda run, **_: done.append(("train", run.id)))
    monkeypatch.setattr(certify, "certify", lambda run, **_: done.append(("certify", run.id)))
    explicit.measure(SMOKE)
    assert done == []
    store.own(RUN, store.COUNTS).unlink()
    explicit.measure(SMOKE)
    assert done == [("train", RUN.id), ("certify", RUN.id)]


def test_the_finding_follows_the_counts(root):
    before = explicit.finding(explicit.read(SMOKE))
    worse = [replace(t, n_a=t.n_a // 2, seconds=10.0) for t in synthetic.tallies(RUN, settings.EXPLICIT)]
    synthetic.write_counts(RUN, settings.EXPLICIT, worse)
    assert "largest ACR at 0 of 1" in (after := explicit.finding(explicit.read(SMOKE))) and before != after
