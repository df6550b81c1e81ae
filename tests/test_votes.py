"""Noise streams, sampling, starts and audits, on a DEQ whose every answer is known."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from srs.settings import ConfigError, Method, Sampling
from srs.smoothing import votes
from srs.smoothing.bounds import ABSTAIN, top_class
from srs.smoothing.certify import certify_image
from srs.smoothing.noise import audit_order, Copies, noise
from srs.smoothing.votes import draw_votes, sample
from tests.helpers import LinearDEQ, three_classes

X = torch.tensor([[[0.8, 0.2], [0.4, 0.6]]])  # multiples of 1/255
SIGMA = 0.5
RS = Method("RS", "anderson", 4, batch=8)
SRS = Method("SRS", "naive", 2, start="previous", batch=8, warmup=5, audit=12)
CLEAN = Method("CLEAN", "naive", 2, start="clean", batch=8, audit=12)
PILOT = Method("PILOT", "naive", 2, start="pilot_mean", batch=50, audit=12, warmup=30, pilot=6)
CORRECTED = replace(PILOT, name="CORRECTED", start="corrected_pilot_mean")
TRAIN_MEAN = Method("TRAIN_MEAN", "naive", 2, start="train_mean", batch=50)
SAMPLING = Sampling(3, n0=20, n=100, seed=4, reference=Method("REF", "anderson", 6, batch=7))


def test_noise_is_standard_normal_and_streams_of_seeds_images_and_stages_are_independent():
    samples = noise((1, 8, 8), 0, 3, "estimate", np.arange(800)).numpy().reshape(800, 64).astype(float)
    error = samples.size**-0.5
    assert abs(samples.mean()) < 4 * error and kstest(samples.ravel(), "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(samples, rowvar=False)[np.triu_indices(64, 1)]).max() < 5.5 / len(samples) ** 0.5
    assert abs((samples[:-1] * samples[1:]).mean()) < 4 * error
    every = itertools.product((0, 1), (0, 1, 7), ("select", "estimate"))
    streams = {where: noise((1, 8, 8), *where, np.arange(200)).numpy().ravel().astype(float) for where in every}
    for (a, x), (b, y) in itertools.combinations(streams.items(), 2):
        assert abs((x * y).mean()) < 4.5 / len(x) ** 0.5, (a, b)


def test_audit_order_is_a_uniform_permutation():
    orders = np.array([audit_order(0, idx, 20) for idx in range(2_000)])
    assert (np.sort(orders, axis=1) == np.arange(20)).all()
    for place in (0, 10, 19):  # each sample equally often, within 5 standard errors
        assert np.abs(np.bincount(orders[:, place], minlength=20) - 100).max() < 5 * (100 * 0.95) ** 0.5


def test_noise_is_what_it_was():
    """Stored votes are audited with noise that is drawn again: a change of the streams would void them."""
    drawn = noise((2,), 0, 1, "estimate", np.array([0, 100, 205])).numpy()
    seeds = [np.random.SeedSequence(0, spawn_key=(1, 1, block)) for block in range(3)]
    blocks = [np.random.Generator(np.random.Philox(seed)).standard_normal((100, 2), np.float32) for seed in seeds]
    np.testing.assert_array_equal(drawn, [blocks[0][0], blocks[1][0], blocks[2][5]], strict=True)


def copies(stage="estimate", idx=0):
    return Copies(X, SIGMA, SAMPLING.seed, idx, stage)


def sampled(model, method, count=50, reference=SAMPLING.reference):
    fixed, spent = votes.fixed_start(model, copies("pilot"), method, reference=reference)
    drawn, nfe = sample(model, copies(), method, np.arange(count), fixed=fixed)
    return drawn, nfe + spent


def test_votes_are_the_classes_of_the_noisy_copies():
    model = three_classes()
    noisy = X + SIGMA * noise(tuple(X.shape), SAMPLING.seed, 0, "estimate", np.arange(50))
    wanted = model.head(noisy.flatten(1)).argmax(1).numpy().astype(np.int16)
    assert len(set(wanted)) == 3
    for method in (RS, SRS, CLEAN):
        np.testing.assert_array_equal(sampled(model, method)[0], wanted, err_msg=method.name, strict=True)


def test_a_rounded_head_gives_the_classes_of_products_in_bfloat16():
    model, rounded = three_classes(), replace(RS, head="bfloat16")
    z = copies()(np.arange(50)).flatten(1)
    wanted = (z.bfloat16() @ model.weight.mT.bfloat16()).float() + model.bias
    torch.testing.assert_close(votes.head_of(model, rounded)(z), wanted, atol=0, rtol=0)
    assert not torch.equal(wanted, model.head(z))
    np.testing.assert_array_equal(sampled(model, rounded)[0], wanted.argmax(1).numpy())


def test_previous_start_is_where_the_slot_ended():
    model = three_classes(rate=0.5)
    ends, head = [], model.head
    model.head = lambda z: ends.append(z) or head(z)
    sampled(model, replace(SRS, steps=1, warmup=3))
    starts = [z for z, _ in model.calls[2:]]
    assert not model.calls[0][0].any()  # the first batch starts cold, and takes 3 steps
    assert [len(z) for z in ends] == [8] * 6 + [2] and len(starts) == len(ends)
    for start, before in zip(starts[1:], ends):
        assert torch.equal(start, before[: len(start)])


@pytest.mark.parametrize("method", [RS, replace(RS, solver="naive"), replace(RS, solver="broyden"), SRS, CLEAN], ids=str)
def test_votes_do_not_depend_on_the_batch_and_the_first_are_those_of_a_longer_run(method):
    method = replace(method, steps=2)
    wanted, _ = sampled(three_classes(rate=0.6), method)
    for batch in (1, 3, 1000) if method.start == "zero" else ():
        np.testing.assert_array_equal(sampled(three_classes(rate=0.6), replace(method, batch=batch))[0], wanted)
    for count in (1, 9):
        np.testing.assert_array_equal(sampled(three_classes(rate=0.6), method, count=count)[0], wanted[:count])


def test_ties_go_to_the_lowest_class_and_nan_votes_for_none():
    inf, nan = float("inf"), float("nan")
    logits = torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [0.0, 1.0, nan], [0.0, inf, 1.0], [0.0, -inf, 1.0]])
    assert votes.predict(logits).tolist() == [1, 0, ABSTAIN, ABSTAIN, ABSTAIN]
    found = certify_image(LinearDEQ(torch.full((3, 4), torch.nan), torch.zeros(3)), X, SRS, SAMPLING, sigma=SIGMA)
    assert found[:3] == (ABSTAIN, 0.0, 0.0) and (found.votes.estimate == ABSTAIN).all() and len(found.votes.audited) == 0


@pytest.mark.parametrize("auditor", [None, Method("SHORT", "naive", 1, batch=9)], ids=str)
@pytest.mark.parametrize("method, k", [(CLEAN, 12), (SRS, 100)])
def test_audit_is_of_votes_for_the_top_class(method, k, auditor):
    method, rate = replace(method, audit=k, auditor=auditor), 0.8  # so that serialized votes do differ
    drawn = draw_votes(three_classes(rate), X, method, SAMPLING, SIGMA, idx=3)
    c_a = top_class(drawn.select, 3)
    assert drawn.audited.tolist() == [i for i in audit_order(SAMPLING.seed, 3, SAMPLING.n) if drawn.estimate[i] == c_a][:k]
    assert 0 < len(drawn.audited) == len(drawn.standard) < 100
    # What stand beside them are the auditor's, or else the reference method's, own votes on the same noise.
    own = auditor or replace(SAMPLING.reference, batch=13)
    standard = draw_votes(three_classes(rate), X, own, SAMPLING, SIGMA, idx=3)
    np.testing.assert_array_equal(drawn.standard, standard.estimate[drawn.audited])
    assert drawn.nfe[2] == own.steps * len(drawn.audited)


@pytest.mark.parametrize("method", [RS, SRS, CLEAN], ids=lambda m: m.name)
def test_cost_of_each_stage_is_what_was_evaluated(method):
    model = three_classes(rate=0.5)
    drawn = draw_votes(model, X, method, SAMPLING, SIGMA)
    assert drawn.nfe.sum() == model.evaluations
    first = {"RS": 0, "SRS": 8 * (5 - 2), "CLEAN": SAMPLING.reference.steps}[method.name]
    again = first if method.name == "SRS" else 0  # the clean image is solved once for both stages
    k = len(drawn.audited)
    assert drawn.nfe.tolist() == [20 * method.steps + first, 100 * method.steps + again, k * SAMPLING.reference.steps]


def squared(rate: float):
    """Three classes whose logits are not linear in the state, so that the mean solution's are not their mean."""
    model = three_classes(rate)
    model.train_mean = torch.full((4,), 0.25)
    model.head = lambda z: 4 * z @ model.weight.mT * (z @ model.weight.mT + 1)
    return model


def fixed_start(model, method=CORRECTED):
    return votes.fixed_start(model, copies("pilot"), method, reference=SAMPLING.reference)


def test_starts_are_the_solutions_they_are_named_after():
    model = three_classes(rate=0.5)
    sampled(model, replace(CLEAN, steps=1), reference=Method("R", "anderson", 40))
    assert all(torch.equal(u, X.flatten()[None]) for _, u in model.calls[:40]) and len(model.calls[40:]) == 7
    for z, _ in model.calls[40:]:
        torch.testing.assert_close(z, X.flatten().expand_as(z), atol=1e-5, rtol=0)
    model = three_classes(rate=0.5)
    _, nfe = sampled(model, PILOT)
    assert nfe == model.evaluations == 6 * 30 + 50 * 2
    pilot = copies("pilot")(np.arange(6))  # solutions of this model are the copies themselves
    for z, _ in model.calls[30::2]:
        torch.testing.assert_close(z, pilot.flatten(1).mean(0).expand_as(z), atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="train_mean"):
        sampled(model, TRAIN_MEAN)
    model = squared(rate=0.5)
    sampled(model, TRAIN_MEAN)
    assert all(torch.equal(z, model.train_mean.expand_as(z)) for z, _ in model.calls[::2])


def test_corrected_start_adds_what_the_pilot_s_logits_miss_after_as_many_steps():
    model = squared(rate=0.9)  # one step from the mean goes a tenth of the way, so the logits miss much
    fixed, spent = fixed_start(model)
    assert spent == model.evaluations == 6 * (30 + 2)
    pilot = copies("pilot")(np.arange(6)).flatten(1)
    after = [keep * pilot.mean(0) + (1 - keep) * pilot for keep in (0.9, 0.81)]
    wanted = torch.stack([(model.head(pilot) - model.head(found)).mean(0) for found in after])
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(fixed.shift, wanted, atol=0.02, rtol=0.02)  # Anderson's lambda keeps it from the last digits
    found = 0.81 * fixed.z + 0.19 * copies()(np.arange(50)).flatten(1)
    drawn, nfe = sample(model, copies(), CORRECTED, np.arange(50), fixed=fixed)
    np.testing.assert_array_equal(drawn, (model.head(found) + fixed.shift[1]).argmax(1).numpy())
    assert nfe == 50 * 2


@pytest.mark.parametrize("start", [PILOT, CORRECTED, TRAIN_MEAN], ids=lambda m: m.name)
@pytest.mark.parametrize("batch", [1, 7])
def test_votes_from_a_fixed_start_do_not_depend_on_batch_or_order(start, batch):
    model, method = squared(rate=0.6), replace(start, steps=1, warmup=2, tol=0.01, margin=0.3)
    wanted, nfe = sampled(model, method)
    drawn, cost = sampled(model, replace(method, batch=batch))
    np.testing.assert_array_equal(drawn, wanted)
    assert cost == nfe
    order = np.random.default_rng(0).permutation(50)
    shuffled, _ = sample(model, copies(), replace(method, batch=batch), order, fixed=fixed_start(model, method)[0])
    np.testing.assert_array_equal(shuffled, wanted[order])
