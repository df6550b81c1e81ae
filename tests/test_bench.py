"""Timings and agreement on a small model: counts and shares, never seconds."""

import numpy as np
import pytest
import torch
from tests.helpers import save_untrained, smoke_run

from srs import agreement, bench, certify, config, models, paths, votes
from srs.config import Method, replace
from srs.paths import DamagedFile

RUN = smoke_run()
SIZE = agreement.Size(images=2, copies=12, chains=4)


@pytest.fixture(autouse=True)
def model(srs_root):
    return save_untrained(RUN)


def contenders(copies):
    few = bench.Contender("few", Method("few", "naive", 1, batch=7))
    same = bench.Contender("same", Method("same", "anderson", 30, batch=5))
    return (*bench.released(batch=copies), few, same)


def test_released_cost_and_shares():
    timings = bench.compare(RUN, contenders(20), repetitions=2, copies=20, progress=False)
    assert [t.nfe for t in timings] == [32, 5, 32, 5, 1, 30]
    assert timings[0].differing == timings[2].differing == timings[5].differing == 0 and timings[4].differing > 0
    assert timings[1].label + bench.KEPT == timings[3].label and timings[1].differing == timings[3].differing
    assert all(t.seconds > 0 and 0 < t.peak_share and t.repetitions == 2 for t in timings)
    assert timings[0].ratio == 1 and timings[4].ratio > timings[5].ratio


def test_a_chain_s_votes_are_those_after_a_batch():
    chain = bench.released(batch=20)[1]
    x, method = torch.rand(1, 8, 8), replace(chain.method, solver="anderson")
    model = certify.load_model(RUN)
    drawn, _, nfe = bench._vote(replace(chain, method=method), model, x, RUN, 3, 20)
    e = votes.noise((1, 8, 8), RUN.profile.seed, 3, "estimate", np.arange(40))
    whole, _ = votes.sample(model, x, method, RUN.sigma, np.arange(40), lambda samples: e[samples])
    np.testing.assert_array_equal(drawn, whole[20:])
    assert nfe == 20 * 3
    with pytest.raises(config.ConfigError, match="batch"):
        bench._vote(chain, model, x, RUN, 3, 19)


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


def test_timings_come_back_and_damage_is_told(tmp_path):
    timings = [bench.Timing("a", 5, 32.0, 0.1, 1.0, 0.0, 0.25)]
    bench.write(tmp_path / "b.csv", timings, run="x")
    assert bench.read(tmp_path / "b.csv") == timings and paths.provenance(tmp_path / "b.csv").is_file()
    (tmp_path / "b.csv").write_text("label\nx\n")
    with pytest.raises(DamagedFile, match="timings"):
        bench.read(tmp_path / "b.csv")
    with pytest.raises(config.ConfigError, match="none.csv.*srs.bench"):
        bench.read(tmp_path / "none.csv")


def test_command_line_stores_what_it_measured(capsys):
    bench.main(["--profile", "smoke", "--repetitions", "1", "--copies", "10"])
    stored = bench.read(paths.timings(RUN))
    assert [t.label for t in stored] == [c.label for c in bench.contenders_of(RUN, 10)]
    bench.main(["--profile", "smoke", "--repetitions", "1", "--copies", "10", "--only", "MDEQ-5A", "SRS-MDEQ-1N"])
    assert [t.label for t in bench.read(paths.timings(RUN))] == ["released MDEQ-30A", "MDEQ-5A", "SRS-MDEQ-1N"]
    with pytest.raises(SystemExit):
        bench.main(["--profile", "smoke", "--only", "MDEQ-6A"])
    assert "contender = 'MDEQ-6A' is refused" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- agreement


def test_points_count_what_differs_from_the_reference(monkeypatch):
    every = agreement.ways(SIZE.chains)
    assert {m.start for m in every} == {"zero", "previous", "clean", "centroid", "calibrated", "anchor"}
    some = [m for m in every if m.steps in (1, 3) or (m.start == "zero" and (m.tol == 0.1 or m.margin == 0.4))]
    monkeypatch.setattr(agreement, "ways", lambda chains: some)
    points = agreement.measure(RUN, "val", SIZE, progress=False)
    assert all(p.votes == 2 * 8 for p in points) and not any(p.start == "anchor" for p in points)
    for p in points:
        if not (p.tol or p.margin):
            assert p.nfe == p.steps
        else:
            assert 1 <= p.nfe <= 30
    by_steps = {p.steps: p.differing for p in points if (p.start, p.solver) == ("zero", "anderson")}
    model, profile = certify.load_model(RUN), RUN.profile
    from srs import data

    images, want = data.load(profile.data, "val"), 0
    for idx in np.linspace(0, len(images.labels) - 1, 2).astype(int):
        draw = lambda s: votes.noise((1, 8, 8), profile.seed, int(idx), "estimate", s)  # noqa: B023, E731
        few, full = (
            votes.sample(model, images.x(int(idx)), Method("m", "anderson", k), RUN.sigma, np.arange(4, 12), draw)[0]
            for k in (1, 30)
        )
        want += int((few != full).sum())
    assert by_steps[1] == want > 0


@pytest.fixture
def few_ways(monkeypatch):
    """Ways to vote that together take a second."""
    every = agreement.ways(SIZE.chains)
    some = tuple(m for m in every if m.steps < 5 and m.solver == "naive")
    monkeypatch.setattr(agreement, "ways", lambda chains: some)


def test_points_are_measured_once_and_anew_for_other_weights(monkeypatch, few_ways):
    first = agreement.measure(RUN, "test", SIZE, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(votes, "sample", lambda *a, **k: pytest.fail("measured again"))
        assert agreement.measure(RUN, "test", SIZE, progress=False) == first
        save_untrained(RUN, seed=1)
        with pytest.raises(pytest.fail.Exception):
            agreement.measure(RUN, "test", SIZE, progress=False)


def test_start_anchor_is_measured_where_there_is_one(model, monkeypatch):
    every = agreement.ways(SIZE.chains)
    some = tuple(m for m in every if m.start in ("zero", "anchor") and m.solver == "anderson" and m.steps < 4)
    monkeypatch.setattr(agreement, "ways", lambda chains: some)
    models.save_anchor(torch.zeros(sum(c * h * w for c, h, w in model.shapes)), paths.anchor(RUN))
    points = agreement.measure(RUN, "val", SIZE, progress=False)
    at = {(p.start, p.solver, p.steps, p.tol, p.margin): p.differing for p in points}
    pairs = [(k, ("zero", *k[1:])) for k in at if k[0] == "anchor"]
    assert len(pairs) == 3 and all(at[a] == at[b] for a, b in pairs)  # an anchor at zero is a start at zero


def test_front_holds_what_nothing_beats():
    p = agreement.Point("zero", "naive", 1, 0.0, 0.0, 100, 9, 1.0)
    better, dear, worse = replace(p, nfe=2.0, differing=5), replace(p, nfe=3.0, differing=5), replace(p, nfe=2.5, differing=7)
    assert agreement.front([worse, dear, better, p]) == [p, better]


@pytest.mark.parametrize("bad", [dict(copies=7, chains=4)])
def test_sizes_are_checked(bad):
    with pytest.raises(config.ConfigError, match="copies"):
        agreement.Size(**bad)
