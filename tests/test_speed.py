"""Notebook 41: agreement and timings on a small model: counts and shares, never seconds."""

import numpy as np
import pandas as pd
import pytest
import torch

from srs import data, store
from srs.deq import checkpoints
from srs.experiments import bench, speed
from srs.settings import ConfigError, Method
from srs.smoothing import certify, votes
from srs.smoothing.noise import Copies
from tests.helpers import save_untrained, smoke_run

RUN = smoke_run()
PROFILE = RUN.profile


@pytest.fixture(autouse=True)
def model(srs_root):
    return save_untrained(RUN)


def test_every_way_of_the_released_code_is_timed_at_its_own_cost():
    few, same = Method("few", "naive", 1, batch=7), Method("same", "anderson", 30, batch=5)
    t = bench.compare(RUN, (*bench.released(16, audit=4), few, same), repetitions=2, copies=16, progress=False)
    t = t.set_index("label")
    theirs = t[t.index.str.startswith(bench.AUTHORS)]
    assert theirs["batch"].tolist() == [16, 2, 16, 16, 2, 16, 2]
    assert theirs["nfe"].iloc[2] == 32 and theirs["nfe"].between(4, 32).all()  # two more than the answer needs
    assert t.loc[["few", "same"], "nfe"].tolist() == [1, 30]
    assert theirs["differing"].iloc[[0, 2]].tolist() == [0, 0] and t["differing"]["same"] == 0 < t["differing"]["few"]
    assert (t["seconds"] > 0).all() and (t["repetitions"] == 2).all()
    assert t["ratio"].iloc[0] == t["ratio_best"].iloc[1] == 1 and t["ratio"]["few"] > t["ratio"]["same"]


@pytest.mark.parametrize("batch", [20, 6])
def test_a_chain_is_timed_after_its_warm_up(batch):
    x, method = torch.rand(1, 8, 8), Method("chain", "anderson", 3, start="previous", batch=batch, warmup=30)
    network = certify.load_model(RUN)
    drawn, _, nfe = bench._vote(method, network, x, RUN, 3, 20)
    before = np.arange(20 - batch, 40)
    whole, _ = votes.sample(network, Copies(x, RUN.sigma, PROFILE.seed, 3, "estimate"), method, before)
    np.testing.assert_array_equal(drawn, whole[batch:])
    assert nfe == 20 * 3


def test_bench_stores_what_was_asked_for():
    path = bench.bench(RUN, repetitions=1, copies=20, only=("MDEQ-5A", "SRS-MDEQ-1N"))
    stored = store.read_frame(path, bench.COLUMNS, "timings", by="")
    assert stored["label"].tolist()[2:] == ["MDEQ-5A", "SRS-MDEQ-1N"] and path.with_suffix(".json").is_file()
    with pytest.raises(ConfigError, match="contender = 'MDEQ-6A' is refused"):
        bench.bench(RUN, only=("MDEQ-6A",))


def timings(*ways):
    """Timings of ways by label: milliseconds and evaluations of f of a vote."""
    rows = [(label, 400, 5, nfe, ms / 1000, ways[0][1] / ms, ways[1][1] / ms, 0.0) for label, ms, nfe in ways]
    return pd.DataFrame(rows, columns=list(bench.COLUMNS))


FULL, SRS, AUDIT = (f"authors' {name}, batch 400" for name in ("MDEQ-30A", "SRS-MDEQ-3A", "audit"))
TIMED = timings((FULL, 20, 10), ("MDEQ-30A", 30, 30), (SRS, 10, 5), (AUDIT, 18, 9), ("SRS-MDEQ-3A", 4, 3), ("RS-tol", 6, 6))


def test_a_certificate_costs_selection_estimation_start_and_audit():
    n0, srs = PROFILE.n0, PROFILE.method("SRS-MDEQ-3A")
    cost = bench.certificate_cost(RUN, TIMED, 10_000).set_index("label")
    drawn = n0 + 10_000
    # The first batches of the chains solve longer: ours by warm-up - 3, the authors' by what their audit spends beyond a vote.
    ours, theirs = (srs.batch + min(srs.batch, n0)) * (srs.warmup - 3), (n0 + 400) * (9 - 5)
    want = {FULL: drawn * 10, SRS: drawn * 5 + srs.audit * 9 + theirs, "RS-tol": drawn * 6}
    want["SRS-MDEQ-3A"] = drawn * 3 + srs.audit * 6 + ours
    assert cost.loc[list(want), "nfe"].tolist() == list(want.values())
    assert cost.loc["SRS-MDEQ-3A", "seconds"] == pytest.approx(drawn * 0.004 + (srs.audit * 6 + ours) * 0.001)
    with pytest.raises(ConfigError, match="timed method = 'RS-tol' is refused"):
        bench.certificate_cost(RUN, TIMED[TIMED["label"] != "RS-tol"], 1_000)


def test_tables_of_cost_and_what_srs_takes_of_the_authors():
    rows = speed.per_certificate(RUN, TIMED).set_index("method")
    faster = rows.loc["SRS-MDEQ-3A", [c for c in rows if c.startswith("times")]].tolist()
    assert AUDIT not in rows.index and faster == sorted(faster)  # an audit weighs less in a larger sample
    percent = 100 * rows["NFE"]["SRS-MDEQ-3A"] / rows["NFE"][SRS]
    assert f"takes {percent:.0f} % of the evaluations" in speed.srs_finding(rows.reset_index())
    assert speed.srs_finding(rows.drop(SRS).reset_index()) == ""


def test_points_count_what_differs_from_the_reference_and_are_drawn_once(model, monkeypatch):
    every, size = speed.ways(4), dict(images=2, copies=12, chains=4, progress=False)
    assert {m.start for m in every} == {"zero", "previous", "clean", "pilot_mean", "corrected_pilot_mean", "train_mean"}
    some = tuple(m for m in every if m.steps in (1, 4) or (m.start == "zero" and (m.tol == 0.1 or m.margin == 0.4)))
    monkeypatch.setattr(speed, "ways", lambda chains: some)
    checkpoints.save_train_mean(torch.zeros(sum(c * h * w for c, h, w in model.shapes)), store.own(RUN, store.TRAIN_MEAN))
    points = speed.measure_agreement(RUN, **size)
    plain = (points["tol"] == 0) & (points["margin"] == 0)
    assert (points["votes"] == 2 * 8).all() and (points["nfe"] == points["steps"])[plain].all()
    assert points["nfe"].between(1, 30).all()
    wide = points[plain & (points["solver"] == "anderson")].pivot(index="steps", columns="start", values="differing")
    assert wide["train_mean"].equals(wide["zero"].rename("train_mean"))  # a training mean at zero is a start at zero
    network, images, want = certify.load_model(RUN), data.load(PROFILE.data, "test"), 0
    for idx in (0, 2 * PROFILE.stride):
        noisy = Copies(images.x(idx), RUN.sigma, PROFILE.seed, idx, "estimate")
        few, full = (votes.sample(network, noisy, Method("m", "anderson", k), np.arange(4, 12))[0] for k in (1, 30))
        want += int((few != full).sum())
    assert wide.loc[1, "zero"] == want > 0
    monkeypatch.setattr(votes, "draw_votes", lambda *a, **k: pytest.fail("drawn again"))
    pd.testing.assert_frame_equal(speed.measure_agreement(RUN, **size), points)
    (shown,) = speed.agreement(PROFILE)
    assert shown.png
    save_untrained(RUN, seed=1)
    with pytest.raises(pytest.fail.Exception):
        speed.measure_agreement(RUN, **size)
