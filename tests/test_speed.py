"""Notebook 41: agreement and timings on a small model (counts and shares, never seconds), tables from hand-made measurements."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from srs import data, store
from srs.deq import checkpoints
from srs.experiments import bench, few_steps, speed
from srs.settings import ConfigError, Method
from srs.smoothing import certify, votes
from srs.smoothing.adaptive import Looks
from srs.smoothing.noise import Copies
from srs.sealed import DamagedFile
from tests.helpers import save_untrained, smoke_run

RUN = smoke_run()
PROFILE = RUN.profile
SIZE = dict(images=2, copies=12, chains=4, progress=False)
POINTS = pd.DataFrame(
    [
        ("zero", "anderson", 1, 0.0, 0.0, 200, 80, 1.0), ("zero", "anderson", 4, 0.0, 0.0, 200, 10, 4.0),
        ("centroid", "anderson", 1, 0.0, 0.0, 200, 30, 1.0), ("centroid", "naive", 8, 0.0, 0.0, 200, 0, 8.0),
        ("zero", "safe_anderson", 30, 0.1, 0.0, 200, 4, 5.5), ("zero", "safe_anderson", 30, 0.0, 0.4, 200, 12, 3.25),
    ],
    columns=[*few_steps.WAY, "votes", "differing", "nfe"],
)  # fmt: skip


@pytest.fixture(autouse=True)
def model(srs_root):
    return save_untrained(RUN)


# ---------------------------------------------------------------------------------------------- timings


def contenders(copies):
    few = bench.Contender("few", Method("few", "naive", 1, batch=7))
    same = bench.Contender("same", Method("same", "anderson", 30, batch=5))
    return (*bench.released(batch=copies), few, same)


def test_released_cost_and_shares():
    t = bench.compare(RUN, contenders(20), repetitions=2, copies=20, progress=False)
    assert t["nfe"].tolist() == [32, 5, 32, 5, 1, 30]
    assert t["differing"][0] == t["differing"][2] == t["differing"][5] == 0 < t["differing"][4]
    assert t["label"][1] + bench.KEPT == t["label"][3] and t["differing"][1] == t["differing"][3]
    assert (t["seconds"] > 0).all() and (t["peak_share"] > 0).all() and (t["repetitions"] == 2).all()
    assert t["ratio"][0] == 1 and t["ratio"][4] > t["ratio"][5]


def test_a_chain_s_votes_are_those_after_a_batch():
    chain = bench.released(batch=20)[1]
    x, method = torch.rand(1, 8, 8), replace(chain.method, solver="anderson")
    network = certify.load_model(RUN)
    drawn, _, nfe = bench._vote(replace(chain, method=method), network, x, RUN, 3, 20)
    whole, _ = votes.sample(network, Copies(x, RUN.sigma, PROFILE.seed, 3, "estimate"), method, np.arange(40))
    np.testing.assert_array_equal(drawn, whole[20:])
    assert nfe == 20 * 3
    with pytest.raises(ConfigError, match="batch"):
        bench._vote(chain, network, x, RUN, 3, 19)


def test_flops_are_those_of_the_convolutions(model):
    x = torch.rand(2, 1, 8, 8)
    counted, want = bench.flops(model, x), 0

    def count(module, inputs, output):
        nonlocal want
        want += 2 * output[0].numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in model.fullstage.modules() if isinstance(m, torch.nn.Conv2d)]
    u = model.inject(x)
    model.f(model.initial(u).contiguous(), u)
    assert counted["f"] == want and counted["head"] > 0 and counted["inject"] > 0
    assert 0 < counted["f, common state"] < counted["f"] / 3
    for hook in hooks:
        hook.remove()


def test_bench_stores_what_was_asked_for_and_damage_is_set_aside():
    path = bench.bench(RUN, repetitions=1, copies=10, only=("MDEQ-5A", "SRS-MDEQ-1N"))
    assert bench.read(path)["label"].tolist() == ["released MDEQ-30A", "MDEQ-5A", "SRS-MDEQ-1N"]
    assert path.with_suffix(".json").is_file()
    with pytest.raises(ConfigError, match="contender = 'MDEQ-6A' is refused"):
        bench.bench(RUN, only=("MDEQ-6A",))
    path.write_text("label\nx\n")
    with pytest.raises(DamagedFile, match="timings"):
        bench.read(path)


def timings(**seconds_and_nfe):
    rows = [(label.replace("_", " "), 5, nfe, seconds, 1.0, 0.0, 0.5) for label, (seconds, nfe) in seconds_and_nfe.items()]
    return pd.DataFrame(rows, columns=["label", "repetitions", "nfe", "seconds", "ratio", "differing", "peak_share"])


OURS = {
    "released MDEQ-30A": (0.064, 32), "released SRS-MDEQ-3A": (0.010, 5), "MDEQ-30A": (0.030, 30), "SRS-MDEQ-3A": (0.004, 3),
    "MDEQ-30A" + bench.COMPILED: (0.015, 30), "SRS-MDEQ-3A" + bench.COMPILED: (0.002, 3),
}  # fmt: skip


def test_seconds_of_a_certificate_count_selection_start_and_audit():
    n0, srs = PROFILE.n0, PROFILE.method("SRS-MDEQ-3A")
    # two first batches of the chains take warmup - steps evaluations more, each a thirtieth of a full solve
    chain = (n0 + 10_000) * 0.004 + srs.audit * 0.030 + 2 * srs.batch * (srs.warmup - 3) * 0.001
    votes_of = [(n0 + 10_000) * seconds for seconds in (0.064, 0.010, 0.030, 0.015)]
    want = [votes_of[0], votes_of[1] + srs.audit * 12 * 0.002, votes_of[2], chain, votes_of[3], chain / 2]
    assert bench.certificate_seconds(RUN, timings(**OURS), 10_000).tolist() == pytest.approx(want)


def test_an_audit_costs_what_its_auditor_costs_and_is_not_guessed():
    stop = Method("STOP", "safe_anderson", 30, tol=0.01)
    srs = replace(PROFILE.method("SRS-MDEQ-3A"), name="SRS-X", start="calibrated", steps=1, auditor=stop)
    run = replace(RUN, profile=replace(PROFILE, methods=(*PROFILE.methods, stop, srs)))
    t = timings(**{"MDEQ-30A": (0.030, 30), "STOP": (0.005, 5), "SRS-X": (0.001, 1)})
    pilot = srs.pilot * (srs.warmup + 1) * 0.001
    assert bench.certificate_seconds(run, t, 1000)[2] == pytest.approx((PROFILE.n0 + 1000) * 0.001 + srs.audit * 0.005 + pilot)
    with pytest.raises(ConfigError, match="timed method = 'STOP' is refused"):
        bench.certificate_seconds(run, t[t["label"] != "STOP"], 1000)


def test_an_audit_weighs_less_in_a_larger_sample():
    rows = speed.per_certificate(RUN, timings(**{"MDEQ-30A": (0.030, 30), "SRS-MDEQ-3A": (0.003, 3)})).set_index("method")
    faster = rows.loc["SRS-MDEQ-3A", [c for c in rows if c.startswith("times")]].tolist()
    assert faster == sorted(faster) and faster[0] < 9.9 < faster[-1] < 10


# ---------------------------------------------------------------------------------------------- agreement


def test_points_count_what_differs_from_the_reference():
    every = few_steps.ways(4)
    assert {m.start for m in every} == {"zero", "previous", "clean", "centroid", "calibrated", "anchor"}
    some = tuple(m for m in every if m.steps in (1, 3) or (m.start == "zero" and (m.tol == 0.1 or m.margin == 0.4)))
    points = few_steps.measure(RUN, "val", **SIZE, chosen=some)
    assert (points["votes"] == 2 * 8).all() and "anchor" not in set(points["start"])
    plain = (points["tol"] == 0) & (points["margin"] == 0)
    assert (points["nfe"] == points["steps"])[plain].all() and points["nfe"][~plain].between(1, 30).all()
    network, images, want = certify.load_model(RUN), data.load(PROFILE.data, "val"), 0
    for idx in np.linspace(0, len(images.labels) - 1, 2).astype(int):
        noisy = Copies(images.x(int(idx)), RUN.sigma, PROFILE.seed, int(idx), "estimate")
        few, full = (votes.sample(network, noisy, Method("m", "anderson", k), np.arange(4, 12))[0] for k in (1, 30))
        want += int((few != full).sum())
    assert points.query("start == 'zero' and solver == 'anderson' and steps == 1")["differing"].item() == want > 0


def test_points_are_measured_once_and_anew_for_other_weights(monkeypatch):
    few = tuple(m for m in few_steps.ways(4) if m.steps < 5 and m.solver == "naive")
    first = few_steps.measure(RUN, "test", **SIZE, chosen=few)
    monkeypatch.setattr(votes, "sample", lambda *a, **k: pytest.fail("measured again"))
    pd.testing.assert_frame_equal(few_steps.measure(RUN, "test", **SIZE, chosen=few), first)
    save_untrained(RUN, seed=1)
    with pytest.raises(pytest.fail.Exception):
        few_steps.measure(RUN, "test", **SIZE, chosen=few)


def test_start_anchor_is_measured_where_there_is_one(model):
    some = tuple(m for m in few_steps.ways(4) if m.start in ("zero", "anchor") and m.solver == "anderson" and m.steps < 4)
    checkpoints.save_anchor(torch.zeros(sum(c * h * w for c, h, w in model.shapes)), store.own(RUN, store.ANCHOR))
    wide = few_steps.measure(RUN, "val", **SIZE, chosen=some).pivot(index="steps", columns="start", values="differing")
    assert len(wide) == 3 and wide["anchor"].equals(wide["zero"].rename("anchor"))  # an anchor at zero is a start at zero


def test_front_holds_what_nothing_beats():
    points = POINTS.iloc[[0] * 4].assign(nfe=[2.5, 3.0, 2.0, 1.0], differing=[7, 5, 5, 9])
    assert few_steps.front(points)["nfe"].tolist() == [1.0, 2.0]


def test_sizes_and_splits_are_checked():
    with pytest.raises(ConfigError, match="copies"):
        few_steps.measure(RUN, "val", **SIZE | dict(copies=7))
    with pytest.raises(ConfigError, match="split"):
        few_steps.measure(RUN, "train", **SIZE)


# ---------------------------------------------------------------------------------------------- tables


def test_starts_and_cheapest_ways():
    starts = speed.starts(POINTS).set_index("start")
    np.testing.assert_array_equal(starts.loc[["zero", "centroid"]], [[40, 5], [15, np.nan]])
    cheapest = speed.cheapest_votes(POINTS)
    assert cheapest["NFE/vote"].tolist() == [1, 3.25, 4, 5.5, 8] and cheapest["disagreement %"].tolist() == [15, 6, 5, 2, 0]
    assert cheapest["stops at"].tolist() == ["1 steps", "lead > 0.4", "4 steps", "residual <= 0.1", "8 steps"]


def test_a_profile_s_tables_are_made_from_what_is_stored():
    assert speed.agreement(PROFILE) == speed.speed(PROFILE) == speed.adaptive_votes(PROFILE) == []
    measured = timings(**{c.label: (0.01, c.method.steps) for c in bench.contenders_of(RUN, 20)})
    for name, frame in (("agreement-test", POINTS), ("bench", measured)):
        store.save_frame(store.measured(RUN, name), frame)
    made = {s.name: s for s in (*speed.agreement(PROFILE), *speed.speed(PROFILE))}
    assert set(made) == {f"{name}_SMALL_s0.50" for name in ("agreement", "starts", "cheapest_votes", "speed", "cost_by_n")}
    assert store.shown(PROFILE, "agreement_SMALL_s0.50.pdf").is_file() and len(made["speed_SMALL_s0.50"].frame) == len(measured)


def test_adaptive_decisions_stand_beside_those_of_fixed_n(monkeypatch):
    method = Method("RS-2A", "anderson", 2, batch=100)
    speed.measure_adaptive(RUN, method, images=3, n=120)
    stored = pd.read_csv(store.measured(RUN, "adaptive.csv"))
    for row in speed.decisions(stored, (0.0, 0.5), sigma=0.5, alpha=0.001).to_dict("records"):
        assert row["images"] == 3 and row["most votes"] <= 120 and row["share of N %"] <= 100
        assert abs(row["certified, fixed N"] - row["certified, adaptive"]) <= row["decided otherwise"]
    assert [s.name for s in speed.adaptive_votes(PROFILE)] == ["adaptive_SMALL_s0.50"]
    monkeypatch.setattr(votes, "draw_votes", lambda *args, **more: pytest.fail("drawn again"))
    speed.measure_adaptive(RUN, method, images=3, n=120)
    assert pd.read_csv(store.measured(RUN, "adaptive.csv")).equals(stored)


def test_votes_that_need_an_audit_are_not_looked_at_adaptively():
    with pytest.raises(ConfigError, match="SRS-MDEQ-3A"):
        speed.measure_adaptive(RUN, PROFILE.method("SRS-MDEQ-3A"), images=1, n=100)


def test_adaptive_decisions_are_those_of_the_stored_counts():
    """An image with 96 of 100 votes for c_A is decided at the first look, one with half of them when all N would not do."""
    clear = [{"idx": 0, "n": n, "n_a": round(0.96 * n)} for n in Looks(1_000).at]
    even = [{"idx": 1, "n": n, "n_a": n // 2} for n in Looks(1_000).at]
    row = speed.decisions(pd.DataFrame(clear + even), (0.0,), sigma=0.5, alpha=0.001).iloc[0]
    assert (row["certified, fixed N"], row["certified, adaptive"], row["decided otherwise"]) == (1, 1, 0)
    assert 100 < row["most votes"] < 1000 and row["mean votes"] == (100 + row["most votes"]) / 2


def test_the_adaptive_method_needs_no_audit():
    chosen = speed.adaptive_method(PROFILE)
    assert not chosen.serialized and chosen.steps == 5
    anchored = Method("ANCHOR", "naive", 2, start="anchor")
    assert speed.adaptive_method(replace(PROFILE, methods=(*PROFILE.methods, anchored))) == anchored
