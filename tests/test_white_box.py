"""Attacks by intermediate-state gradients beside the exact one, and the DEQ that is trained against them."""

from dataclasses import replace

import pytest
import torch

from srs import store
from srs.attacks.settings import Adversarial, Gradient, hardened
from srs.deq import checkpoints
from srs.experiments import white_box
from srs.experiments.white_box import CONVERGED
from srs.profiles import DIGITS_PAPER, get_profile
from srs.settings import ConfigError
from srs.training import losses, train
from tests.test_train import run_of

pytestmark = pytest.mark.usefixtures("few_images")
RECIPE = replace(DIGITS_PAPER, epochs=2, pretrain_steps=2, batch=32, pretrain_layers=2, forward_steps=3, backward_steps=2)
HARDENED = hardened(RECIPE, "adversarial", Adversarial(steps=1, vectors=2, gradient=Gradient("unrolled", 2)))


def test_adversarial_training_attacks_after_the_unrolled_phase_and_goes_on_after_a_kill(monkeypatch):
    seen, loss, run = [], losses.loss, run_of(HARDENED)
    monkeypatch.setattr(losses, "loss", lambda model, x, y, *a, **k: seen.append(
        (k["pretrain"], len(x), len(y))) or loss(model, x, y, *a, **k))  # fmt: skip
    train.train(run, progress=False)
    assert seen == [(True, 32, 32)] * 2 + [(False, 64, 64)] * 4
    weights = store.own(run, store.WEIGHTS)
    whole = checkpoints.read_tensors(weights, "weight file")
    store.own(run, store.CARD).unlink(), weights.unlink()
    train.train(run, progress=False, stop_after=1)
    assert not weights.is_file()
    train.train(run, progress=False)
    again = checkpoints.read_tensors(weights, "weight file")
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_both_models_are_attacked_at_the_same_cost_and_compared_without_a_network(monkeypatch):
    run = run_of(RECIPE, images=2)
    with pytest.raises(ConfigError, match="table of attacked images"):
        white_box.read(run)
    white_box.measure(run, white_box.suite_of(run, steps=1, radii=(0.5,)), progress=False)
    monkeypatch.setattr(checkpoints, "load", lambda *_: pytest.fail("a network was asked for"))
    points = white_box.read(run)
    assert set(points["idx"]) <= set(run.profile.evaluated) and white_box.shown(points.iloc[:0], run) == []
    none, ready, *others = white_box.suite_of(get_profile("digits").runs[0]).attacks
    assert (none.nfe, ready.gradient.state, ready.gradient.backward) == (0, 6, 5)
    assert all(one.name == CONVERGED or abs(one.nfe - ready.nfe) <= one.gradient.cost / 2 for one in others)
