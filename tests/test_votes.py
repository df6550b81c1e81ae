"""Noise streams, sampling and audits, on a DEQ whose every answer is known."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from srs.settings import Method, Sampling
from srs.smoothing import votes
from srs.smoothing.bounds import ABSTAIN, top_class
from srs.smoothing.noise import audit_order, Copies, noise
from srs.smoothing.votes import draw_votes, sample
from srs.sealed import DamagedFile
from tests.helpers import LinearDEQ, three_classes

SHAPE = (1, 2, 2)
X = torch.tensor([[[0.7, 0.2], [0.4, 0.5]]])
SIGMA = 0.5
RS = Method("RS", "anderson", 4, batch=8)
SRS = Method("SRS", "naive", 2, start="previous", batch=8, warmup=5, audit=12)
CLEAN = Method("CLEAN", "naive", 2, start="clean", batch=8, audit=12)
SAMPLING = Sampling(3, n0=20, n=100, seed=4, reference=Method("REF", "anderson", 6, batch=7))


# ---------------------------------------------------------------------------------------------- noise streams


@pytest.fixture(scope="module")
def long_stream():
    """A stream of 51,200 values, many blocks long."""
    return noise((1, 8, 8), 0, 3, "estimate", np.arange(800)).numpy()


def test_noise_is_standard_normal(long_stream):
    values = long_stream.ravel().astype(float)
    error = len(values) ** -0.5
    assert abs(values.mean()) < 4 * error
    assert abs(values.var() - 1) < 4 * 2**0.5 * error
    assert abs((values**3).mean()) < 4 * 15**0.5 * error
    assert abs((values**4).mean() - 3) < 4 * 96**0.5 * error
    assert kstest(values, "norm").pvalue > 0.01


def test_pixels_and_samples_of_a_stream_are_uncorrelated(long_stream):
    samples = long_stream.reshape(800, 64).astype(float)
    for table in (samples, samples.T[:, :64]):
        correlation = np.corrcoef(table, rowvar=False)[np.triu_indices(64, 1)]
        assert np.abs(correlation).max() < 5.5 / len(table) ** 0.5
    neighbours = (samples[:-1] * samples[1:]).mean()
    assert abs(neighbours) < 4 / samples.size**0.5


def test_streams_of_seeds_images_and_stages_are_independent():
    every = itertools.product((0, 1), (0, 1, 7), ("select", "estimate"))
    streams = {where: noise((1, 8, 8), *where, np.arange(200)).numpy().ravel().astype(float) for where in every}
    for (a, x), (b, y) in itertools.combinations(streams.items(), 2):
        assert abs((x * y).mean()) < 4.5 / len(x) ** 0.5, (a, b)
        assert not np.isin(x, y).all()


@pytest.mark.parametrize("picked", [[], [99, 100], [250, 3, 3, 101, 0], list(range(299, -1, -1))])
def test_any_sample_can_be_drawn_again(picked):
    drawn = noise(SHAPE, 5, 2, "estimate", np.arange(300))
    assert torch.equal(noise(SHAPE, 5, 2, "estimate", np.array(picked, int)), drawn[picked])


def test_noise_is_what_it_was():
    """Stored votes are audited with noise that is drawn again: a change of the streams would void them."""
    drawn = noise((2,), 0, 1, "estimate", np.array([0, 100, 205])).numpy()
    seeds = [np.random.SeedSequence(0, spawn_key=(1, 1, block)) for block in range(3)]
    blocks = [np.random.Generator(np.random.Philox(seed)).standard_normal((100, 2), np.float32) for seed in seeds]
    wanted = [blocks[0][0], blocks[1][0], blocks[2][5]]
    np.testing.assert_array_equal(drawn, wanted)
    assert drawn.dtype == np.float32


# ---------------------------------------------------------------------------------------------- sampling


def copies(stage="estimate", idx=0):
    return Copies(X, SIGMA, SAMPLING.seed, idx, stage)


def sampled(model, method, count=50, reference=SAMPLING.reference):
    fixed, spent = votes.fixed_start(model, copies("pilot"), method, reference=reference)
    drawn, nfe = sample(model, copies(), method, np.arange(count), fixed=fixed)
    return drawn, nfe + spent


def test_votes_are_the_classes_of_the_noisy_copies():
    model = three_classes()
    noisy = X + SIGMA * noise(SHAPE, SAMPLING.seed, 0, "estimate", np.arange(50))
    assert torch.equal(copies()(np.arange(50)), noisy)
    wanted = model.head(noisy.flatten(1)).argmax(1).numpy()
    assert len(set(wanted)) == 3
    for method in (RS, SRS, CLEAN):
        drawn, _ = sampled(model, method)
        np.testing.assert_array_equal(drawn, wanted, err_msg=method.name)
        assert drawn.dtype == np.int16


def test_previous_start_is_where_the_slot_ended():
    model = three_classes(rate=0.5)
    sampled(model, replace(SRS, steps=1, warmup=3))
    starts, ends = [z for z, _ in model.calls[2:]], model.heads
    assert not model.calls[0][0].any()  # the first batch starts cold, and takes 3 steps
    assert [len(z) for z in ends] == [8] * 6 + [2]
    for start, before in zip(starts[1:], ends):
        assert torch.equal(start, before[: len(start)])
    assert len(starts) == len(ends)


def test_tolerance_and_margin_save_evaluations_and_keep_easy_votes():
    """The surest copies stop first; what stops is the vote that the same copy would give later."""
    model = three_classes(rate=0.5)
    long = replace(RS, solver="naive", steps=40)
    wanted, full = sampled(model, long)
    for change in (dict(tol=1e-3), dict(margin=0.6)):
        drawn, nfe = sampled(model, replace(long, **change))
        assert nfe < full / 2
        assert np.mean(drawn == wanted) > 0.9


@pytest.mark.parametrize("batch", [1, 3, 1000])
@pytest.mark.parametrize("solver", ["naive", "anderson", "broyden"])
def test_standard_votes_do_not_depend_on_the_batch(solver, batch):
    method = replace(RS, solver=solver, steps=2)
    wanted, _ = sampled(three_classes(rate=0.6), method)
    drawn, _ = sampled(three_classes(rate=0.6), replace(method, batch=batch))
    np.testing.assert_array_equal(drawn, wanted)


@pytest.mark.parametrize("count", [1, 8, 9])
@pytest.mark.parametrize("method", [RS, SRS, CLEAN], ids=lambda m: m.name)
def test_first_votes_are_those_of_a_longer_run(method, count):
    long, _ = sampled(three_classes(rate=0.6), method, count=60)
    short, _ = sampled(three_classes(rate=0.6), method, count=count)
    np.testing.assert_array_equal(short, long[:count])


def test_serialized_votes_carry_what_came_before():
    """With one step and a slow f, an SRS vote is nearly its predecessor's: what the audit is for."""
    slow = dict(rate=0.9)
    chain, _ = sampled(three_classes(**slow), replace(SRS, solver="naive", steps=1, warmup=60, batch=1), count=100)
    standard, _ = sampled(three_classes(**slow), replace(RS, steps=60, solver="naive"), count=100)
    assert 0.1 < np.mean(chain != standard) < 0.9


def test_ties_go_to_the_lowest_class_and_nan_votes_for_none():
    inf, nan = float("inf"), float("nan")
    logits = torch.tensor([
        [1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [nan, 1.0, 0.0], [0.0, 1.0, nan], [0.0, inf, 1.0], [0.0, -inf, 1.0], [-1.0, -2.0, 0.0],
    ])  # fmt: skip
    assert votes.predict(logits).tolist() == [1, 0, ABSTAIN, ABSTAIN, ABSTAIN, ABSTAIN, 2]


def test_nan_model_gets_no_class():
    broken = LinearDEQ(torch.full((3, 4), torch.nan), torch.zeros(3))
    drawn = draw_votes(broken, X, SRS, SAMPLING, SIGMA)
    assert (drawn.select == ABSTAIN).all() and (drawn.estimate == ABSTAIN).all()
    assert len(drawn.audited) == len(drawn.standard) == drawn.nfe[2] == 0


# ---------------------------------------------------------------------------------------------- one image


def test_selection_and_estimation_see_different_noise():
    model = three_classes()
    drawn = draw_votes(model, X, replace(RS, solver="naive", steps=1, batch=20), SAMPLING, SIGMA, idx=6)
    seen = torch.cat([u for _, u in model.calls])
    wanted = [copies(stage, 6)(np.arange(n)) for stage, n in (("select", 20), ("estimate", 100))]
    assert torch.equal(seen[:120], torch.cat(wanted).flatten(1))
    assert not torch.equal(seen[:20], seen[20:40])
    assert len(drawn.select) == 20 and len(drawn.estimate) == 100
    assert len(drawn.audited) == 0  # K = 0


@pytest.mark.parametrize("method, k", [(SRS, 12), (CLEAN, 12), (SRS, 100), (SRS, 1)])
def test_audit_is_of_votes_for_the_top_class(method, k):
    method = replace(method, audit=k)
    rate = 0.8  # so that serialized votes do differ
    drawn = draw_votes(three_classes(rate), X, method, SAMPLING, SIGMA, idx=3)
    c_a = top_class(drawn.select, 3)
    for_a = np.flatnonzero(drawn.estimate == c_a)
    assert 12 < len(for_a) < 100
    assert len(drawn.audited) == len(drawn.standard) == min(method.audit, len(for_a))
    assert len(set(drawn.audited)) == len(drawn.audited)
    assert (drawn.estimate[drawn.audited] == c_a).all()
    order = audit_order(SAMPLING.seed, 3, SAMPLING.n)
    assert drawn.audited.tolist() == [i for i in order if drawn.estimate[i] == c_a][: method.audit]
    # What stands beside them are the reference method's own votes on the same noise.
    standard = draw_votes(three_classes(rate), X, replace(SAMPLING.reference, batch=13), SAMPLING, SIGMA, idx=3)
    np.testing.assert_array_equal(drawn.standard, standard.estimate[drawn.audited])


def test_an_auditor_of_its_own_gives_the_standard_votes():
    """What is certified is then that solve's classifier, so its votes are what the audit must draw."""
    auditor = Method("SHORT", "naive", 1, batch=9)
    drawn = draw_votes(three_classes(0.8), X, replace(SRS, audit=100, auditor=auditor), SAMPLING, SIGMA, idx=3)
    own, reference = (draw_votes(three_classes(0.8), X, m, SAMPLING, SIGMA, idx=3) for m in (auditor, SAMPLING.reference))
    np.testing.assert_array_equal(drawn.standard, own.estimate[drawn.audited])
    assert (drawn.standard != reference.estimate[drawn.audited]).any()
    assert drawn.nfe[2] == len(drawn.audited)


def test_audit_order_is_a_uniform_permutation():
    n, images = 20, 2_000
    orders = np.array([audit_order(0, idx, n) for idx in range(images)])
    assert (np.sort(orders, axis=1) == np.arange(n)).all()
    # First place and any other place: each sample equally often, within 5 standard errors.
    for place in (0, 1, n // 2, n - 1):
        counts = np.bincount(orders[:, place], minlength=n)
        assert np.abs(counts - images / n).max() < 5 * (images / n * (1 - 1 / n)) ** 0.5
    assert not np.array_equal(audit_order(0, 0, n), audit_order(1, 0, n))


@pytest.mark.parametrize("method", [RS, SRS, CLEAN], ids=lambda m: m.name)
def test_cost_of_each_stage_is_what_was_evaluated(method):
    model = three_classes(rate=0.5)
    drawn = draw_votes(model, X, method, SAMPLING, SIGMA)
    assert drawn.nfe.sum() == model.evaluations
    first = {"RS": 0, "SRS": 8 * (5 - 2), "CLEAN": SAMPLING.reference.steps}[method.name]
    again = first if method.name == "SRS" else 0  # the clean image is solved once for both stages
    k = len(drawn.audited)
    assert drawn.nfe.tolist() == [20 * method.steps + first, 100 * method.steps + again, k * SAMPLING.reference.steps]
    assert (drawn.seconds >= 0).all() and drawn.seconds.shape == (3,)


# ---------------------------------------------------------------------------------------------- files


@pytest.fixture
def stored(srs_root):
    """Votes of one image, written to a file of the work folder."""
    drawn = draw_votes(three_classes(), X, SRS, SAMPLING, SIGMA, idx=9, label=2)
    path = srs_root / "data" / "smoke" / "votes" / "run" / "SRS-key" / "00009.npz"
    votes.write(path, drawn)
    return drawn, path


def test_stored_votes_come_back(stored):
    drawn, path = stored
    again = votes.read(path)
    assert (again.idx, again.label) == (9, 2)
    for name, value in vars(drawn).items():
        np.testing.assert_array_equal(getattr(again, name), value)
        assert np.asarray(getattr(again, name)).dtype == np.asarray(value).dtype
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no half-written file stays


DAMAGE = {
    "cut": lambda path, drawn: path.write_bytes(path.read_bytes()[:200]),
    "another archive": lambda path, drawn: np.savez(path, idx=1),
    "objects": lambda path, drawn: np.savez(path, **(vars(drawn) | {"select": np.array([{"code": 1}], dtype=object)})),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_votes_are_set_aside(stored, damage):
    drawn, path = stored
    damage(path, drawn)
    content = path.read_bytes()
    with pytest.raises(DamagedFile, match=r"00009\.npz is damaged.*00009\.npz\.damaged: run again"):
        votes.read(path)
    assert not path.exists()
    assert path.with_name("00009.npz.damaged").read_bytes() == content
