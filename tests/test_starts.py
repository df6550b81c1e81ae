"""Starts that are one state for every copy of an image: what they are, and that votes from them are independent."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from srs import settings
from srs.settings import Method
from srs.smoothing import votes
from srs.smoothing.votes import sample
from tests.helpers import three_classes
from tests.test_votes import CLEAN, copies, SAMPLING, sampled, X

CENTROID = Method("CENTROID", "naive", 2, start="centroid", batch=50, audit=12, warmup=30, pilot=6)
CALIBRATED = replace(CENTROID, name="CALIBRATED", start="calibrated")
ANCHOR = Method("ANCHOR", "naive", 2, start="anchor", batch=50)


def squared(rate: float):
    """Three classes whose logits are not linear in the state, so that the mean solution's are not their mean."""
    model = three_classes(rate)
    model.anchor = torch.full((4,), 0.25)
    model.head = lambda z: 4 * z @ model.weight.mT * (z @ model.weight.mT + 1)
    return model


def fixed_start(model, method=CALIBRATED):
    return votes.fixed_start(model, copies("pilot"), method, reference=SAMPLING.reference)


def test_starts_are_the_solutions_they_are_named_after():
    model = three_classes(rate=0.5)
    sampled(model, replace(CLEAN, steps=1), reference=Method("R", "anderson", 40))
    assert all(torch.equal(u, X.flatten()[None]) for _, u in model.calls[:40]) and len(model.calls[40:]) == 7
    for z, _ in model.calls[40:]:
        torch.testing.assert_close(z, X.flatten().expand_as(z), atol=1e-5, rtol=0)
    model = three_classes(rate=0.5)
    _, nfe = sampled(model, CENTROID)
    assert nfe == model.evaluations == 6 * 30 + 50 * 2
    pilot = copies("pilot")(np.arange(6))  # solutions of this model are the copies themselves
    for z, _ in model.calls[30::2]:
        torch.testing.assert_close(z, pilot.flatten(1).mean(0).expand_as(z), atol=1e-5, rtol=0)
    with pytest.raises(settings.ConfigError, match="anchor"):
        sampled(model, ANCHOR)
    model = squared(rate=0.5)
    sampled(model, ANCHOR)
    assert all(torch.equal(z, model.anchor.expand_as(z)) for z, _ in model.calls[::2])


def test_calibrated_start_adds_what_the_pilot_s_logits_miss_after_as_many_steps():
    model = squared(rate=0.9)  # one step from the mean goes a tenth of the way, so the logits miss much
    fixed, spent = fixed_start(model)
    assert spent == model.evaluations == 6 * (30 + 2)
    pilot = copies("pilot")(np.arange(6)).flatten(1)
    after = [keep * pilot.mean(0) + (1 - keep) * pilot for keep in (0.9, 0.81)]
    wanted = torch.stack([(model.head(pilot) - model.head(found)).mean(0) for found in after])
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(fixed.shift, wanted, atol=0.02, rtol=0.02)  # Anderson's lambda keeps it from the last digits
    found = 0.81 * fixed.z + 0.19 * copies()(np.arange(50)).flatten(1)
    drawn, nfe = sample(model, copies(), CALIBRATED, np.arange(50), fixed=fixed)
    np.testing.assert_array_equal(drawn, (model.head(found) + fixed.shift[1]).argmax(1).numpy())
    assert nfe == 50 * 2


def test_calibrated_votes_that_lead_stop_at_the_first_step():
    model, method = squared(rate=0.5), replace(CALIBRATED, steps=4, margin=0.2)
    fixed, _ = fixed_start(model, method)
    drawn, nfe = sample(model, copies(), method, np.arange(50), fixed=fixed)
    lead = (model.head(0.5 * fixed.z + 0.5 * copies()(np.arange(50)).flatten(1)) + fixed.shift[0]).softmax(1).topk(2, dim=1)
    sure = (lead.values[:, 0] - lead.values[:, 1] > 0.2).numpy()
    assert 0 < sure.sum() < 50 and 50 + (~sure).sum() <= nfe <= 50 + 3 * (~sure).sum()
    np.testing.assert_array_equal(drawn[sure], lead.indices[:, 0].numpy()[sure])


@pytest.mark.parametrize("start", [CENTROID, CALIBRATED, ANCHOR], ids=lambda m: m.name)
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_votes_from_a_fixed_start_do_not_depend_on_batch_or_order(start, batch):
    model, method = squared(rate=0.6), replace(start, steps=1, warmup=2, tol=0.01, margin=0.3)
    wanted, nfe = sampled(model, method)
    drawn, cost = sampled(model, replace(method, batch=batch))
    np.testing.assert_array_equal(drawn, wanted)
    assert cost == nfe
    order = np.random.default_rng(0).permutation(50)
    shuffled, _ = sample(model, copies(), replace(method, batch=batch), order, fixed=fixed_start(model, method)[0])
    np.testing.assert_array_equal(shuffled, wanted[order])
