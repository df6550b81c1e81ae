"""Timings on a small model: counts and shares, never seconds; and what many cores would take by them."""

import numpy as np
import pandas as pd
import pytest
import torch

from srs import profiles, sealed, store
from srs.experiments import scaling, speed
from srs.settings import Method
from srs.smoothing import certify, votes
from srs.smoothing.noise import Copies
from tests.helpers import save_untrained, smoke_run
from tests.synthetic import counts

RUN = smoke_run()
PROFILE = RUN.profile


@pytest.fixture(autouse=True)
def model(srs_root):
    return save_untrained(RUN)


def test_every_way_of_the_released_code_is_timed_at_its_own_cost():
    few, same = Method("few", "naive", 1, batch=7), Method("same", "anderson", 30, batch=5)
    t = speed.compare(RUN, (*speed.released(16, audit=4), few, same), repetitions=2, copies=16, progress=False)
    t = t.set_index("label")
    theirs = t[t.index.str.startswith(speed.AUTHORS)]
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
    drawn, _, nfe = speed._vote(method, network, x, RUN, 3, 20)
    before = np.arange(20 - batch, 40)
    whole, _ = votes.sample(network, Copies(x, RUN.sigma, PROFILE.seed, 3, "estimate"), method, before)
    np.testing.assert_array_equal(drawn, whole[batch:])
    assert nfe == 20 * 3


def test_bench_stores_every_way_of_ours_beside_the_released_code():
    path = speed.bench(RUN, repetitions=1, copies=20)
    stored = store.read_frame(path, speed.COLUMNS, "timings", by="")
    assert stored["label"].tolist()[7:] == [m.name for m in PROFILE.methods] and path.with_suffix(".json").is_file()
    store.save_frame(path.with_name(speed.TABLES["cuda"]), stored)  # as if it had been taken on a GPU
    sealed.write_json(path.with_name("bench_cuda.json"), {"device": "a GPU"})
    shown = {table.name: "a GPU" in table.caption for table in speed.speed(PROFILE)}
    assert [*shown.values()] == [False, False, True, True]


FULL, SRS, AUDIT = (f"authors' {name}, batch 400" for name in ("MDEQ-30A", "SRS-MDEQ-3A", "audit"))
MS_NFE = {FULL: (20, 10), "MDEQ-30A": (30, 30), SRS: (10, 5), AUDIT: (18, 9), "SRS-MDEQ-3A": (4, 3), "RS-tol": (6, 6)}
TIMED = pd.DataFrame([{"label": name, "batch": 400, "seconds": ms / 1000, "nfe": k} for name, (ms, k) in MS_NFE.items()])


def test_a_certificate_costs_selection_estimation_start_and_audit():
    n0, srs = PROFILE.n0, PROFILE.method("SRS-MDEQ-3A")
    cost = speed.certificate_cost(RUN, TIMED, 10_000).set_index("label")
    drawn = n0 + 10_000
    # The first batches of the chains solve longer: ours by warm-up - 3, the authors' by what their audit spends beyond a vote.
    ours, theirs = (srs.batch + min(srs.batch, n0)) * (srs.warmup - 3), (n0 + 400) * (9 - 5)
    want = {FULL: drawn * 10, SRS: drawn * 5 + srs.audit * 9 + theirs, "RS-tol": drawn * 6}
    want["SRS-MDEQ-3A"] = drawn * 3 + srs.audit * 6 + ours
    assert cost.loc[list(want), "nfe"].tolist() == list(want.values())
    assert cost.loc["SRS-MDEQ-3A", "seconds"] == pytest.approx(drawn * 0.004 + (srs.audit * 6 + ours) * 0.001)


def test_tables_of_cost_and_what_srs_takes_of_the_authors(monkeypatch):
    rows = speed.per_certificate(RUN, TIMED).set_index("method")
    faster = rows.loc["SRS-MDEQ-3A", [c for c in rows if c.startswith("times")]].tolist()
    assert AUDIT not in rows.index and faster == sorted(faster)  # an audit weighs less in a larger sample
    percent = 100 * rows["NFE"]["SRS-MDEQ-3A"] / rows["NFE"][SRS]
    assert f"takes {percent:.0f} % of the evaluations" in speed.srs_finding(rows.reset_index())
    assert speed.srs_finding(rows.drop(SRS).reset_index()) == ""
    # 20 + 30 votes at 6 ms beside 10,020 of the authors at 20 ms.
    every = [counts({"n": 20, "n_a": n_a}, {"n": 40, "n_a": 40}, method=m) for m, n_a in (("RS-tol", 10), ("MDEQ-30A", 20))]
    monkeypatch.setattr(store, "read_run", lambda _: pd.concat(every))
    rows = speed.per_certificate(smoke_run(adaptive=True), TIMED).set_index("method")
    assert rows.loc["RS-tol", ["votes, adaptive", "times faster, adaptive"]].tolist() == pytest.approx([30, 10_020 * 20 / 300])
    told = speed.table_finding(smoke_run(adaptive=True), TIMED)  # one of two images is lost
    assert "RS-tol makes the table 668.0 times" in told and "at most 50.0 points" in told
    assert ": 3.3 times by cheaper votes, 200.4 times by fewer, 30 an" in told


def test_many_cores_take_work_over_cores_or_the_driver_s_time_which_does_every_task_alone():
    cheap = {"driver, per task": 0.5, "evaluation of f, cifar10": 1e-3, "evaluation of f, imagenet": 0.1}
    found = scaling.projection(cheap, cores=100).set_index(["data", "N"])
    # 10,000 images of 30 * 10,100 evaluations: 303 s each; 3 for SRS, first batches of 10, 400 audits of 30: 45.8 s
    assert found.loc[("cifar10", "10,000"), "RS, 100 cores"] == "8 hours"  # 10,000 * 303 / 100 = 30,300 s
    assert found.loc[("cifar10", "10,000"), "SRS, 100 cores"] == "83 minutes"  # the driver's 5,000 s, not 4,600 s of votes
    assert found.loc[("cifar10", "10,000"), "cores that one driver keeps busy"] == "92"
    assert list(found.index) == [(data, n) for data in ("cifar10", "imagenet") for n in ("10,000", "100,000")]
    # An evaluation and a task cost something.
    assert 0 < scaling.evaluation(profiles.DIGITS_SMALL, profiles.DIGITS, batch=2, times=1) < 1
    assert 0 < scaling.driver(tasks=3, workers=1, n=100) < 1
