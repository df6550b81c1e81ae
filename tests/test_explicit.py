"""The explicit network beside the DEQs, on made-up counts and on Cohen et al.'s own log."""

from dataclasses import replace

import pytest
from tests import synthetic

from srs import profiles, settings, store
from srs.experiments import explicit
from srs.smoothing import bounds, certify
from srs.training import train

SMOKE = profiles.get_profile("smoke")
RUN = SMOKE.explicit.runs[0]


@pytest.fixture
def root(srs_root):
    """Made-up counts and cards of the profile `smoke` and of its explicit network."""
    synthetic.write_profile(SMOKE)
    synthetic.write_profile(SMOKE.explicit)
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
    shown = {one.name: one for one in explicit.shown(certified, SMOKE)}
    assert set(shown) == {"explicit_baseline", "explicit_cost", "explicit_curves"}
    assert "as known from its 500 images" in shown["explicit_baseline"].caption
    assert shown["explicit_baseline"].frame["rule"].tolist()[2] == "audit (ours)" and shown["explicit_curves"].png


def test_a_profile_without_explicit_networks_makes_nothing(srs_root):
    cifar10 = profiles.get_profile("cifar10")
    explicit.measure(cifar10)
    certified = explicit.read(cifar10)
    assert explicit.shown(certified, cifar10) == [] and "no explicit network" in explicit.finding(certified)
    assert not list(srs_root.rglob("*"))


def test_counts_of_other_images_are_refused(root):
    others = [replace(t, idx=t.idx + 1) for t in synthetic.tallies(RUN, settings.EXPLICIT)]
    synthetic.write_counts(RUN, settings.EXPLICIT, others)
    with pytest.raises(settings.ConfigError, match="want 4 images, every 7."):
        explicit.read(SMOKE)


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


def test_a_log_at_hand_is_computed_anew(srs_root, monkeypatch):
    monkeypatch.setenv("SRS_DATA", str(srs_root / "brought"))
    path = store.brought("golden", explicit.LOG)
    path.parent.mkdir(parents=True)
    rows = ("idx label predict radius correct time", "0 1 1 0.3 1 9", "1 1 2 0.9 0 9", "2 1 -1 0.0 0 9", "3 1 1 0.5 1 9")
    path.write_text("\n".join(rows).replace(" ", "\t") + "\n")
    row = explicit.known()[explicit.LOG_LABEL]
    assert [float(row[f"r={r / 4:.2f}"]) for r in range(7)] == [50, 50, 25, 0, 0, 0, 0] and float(row["ACR"]) == 0.2


def test_published_rows_are_those_of_cohen_s_log(shared, monkeypatch):
    log, known = shared("golden", explicit.LOG), explicit.known()
    monkeypatch.setenv("SRS_DATA", str(log.parents[1]))
    anew = explicit.known()[explicit.LOG_LABEL]
    for name in (name for name in anew if name.startswith("r=")):
        assert float(anew[name]) == float(known[explicit.LOG_LABEL][name])
        assert abs(float(known[explicit.PAPER_LABEL][name]) - float(anew[name])) < 1  # the same log, without decimals
    assert float(anew["ACR"]) == pytest.approx(float(known[explicit.LOG_LABEL]["ACR"]), abs=5e-4)
