"""The explicit network beside the DEQs, on made-up counts."""

from dataclasses import replace

import pytest
from tests import synthetic

from srs import profiles, settings, store
from srs.experiments import explicit
from srs.smoothing import bounds, certify
from srs.training import train

SMOKE = profiles.get_profile("smoke")
RUN = SMOKE.explicit[0]


@pytest.fixture
def root(srs_root):
    """Made-up counts and cards of the profile `smoke` and of its explicit network."""
    synthetic.write_profile(SMOKE)
    synthetic.write_profile(SMOKE, explicit=True)
    return srs_root


def test_tables_hold_the_network_the_deqs_and_what_was_published(root):
    certified = explicit.read(SMOKE)
    frame = explicit.accuracy(certified, SMOKE)
    assert list(zip(frame["network"], frame["rule"])) == [
        ("ResNet-8", "cohen"), ("MDEQ-30A SMALL", "cohen"), ("SRS-MDEQ-3A SMALL", "audit"),
        ("ResNet-110", explicit.PAPER_LABEL), ("ResNet-110", explicit.LOG_LABEL),
    ]  # fmt: skip
    own = synthetic.counted(RUN, settings.EXPLICIT)
    radius = bounds.certify("cohen", bounds.Counts(n=own["n"], n_a=own["n_a"]), 0.5, SMOKE.alpha)[1]
    assert frame.loc[0, "r=0.25"] == 100 * ((own["c_a"] == own["label"]) & (radius >= 0.25)).mean()
    spent = explicit.cost(certified).set_index("network")
    assert spent.loc["ResNet-8", "NFE/image"] == SMOKE.n0 + SMOKE.n and spent.loc["ResNet-8", "parameters"] == 12345
    shown = [one.name for one in explicit.shown(certified, SMOKE)]
    assert shown == ["explicit_baseline", "explicit_cost", "explicit_curves"]


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
    after = explicit.finding(explicit.read(SMOKE))
    assert "largest ACR at 0 of 1" in after and before != after and "at most 0.6 points" in after

