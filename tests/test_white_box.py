"""Attacks by intermediate-state gradients beside the exact one, and the DEQ that is trained against them."""

import functools
import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from srs import data, store
from srs.attacks.settings import Adversarial, Gradient, hardened
from srs.deq import checkpoints
from srs.experiments import white_box
from srs.experiments.white_box import CONVERGED, HARD, PLAIN, READY
from srs.profiles import DIGITS_PAPER, get_profile
from srs.settings import ConfigError
from srs.training import card, losses, train
from tests.helpers import smoke_run, TINY

RECIPE = replace(DIGITS_PAPER, epochs=2, pretrain_steps=2, batch=32, pretrain_layers=2, forward_steps=3, backward_steps=2)
HARDENED = hardened(RECIPE, "adversarial", Adversarial(steps=1, vectors=2, gradient=Gradient("unrolled", 2)))


@pytest.fixture(autouse=True)
def quick(monkeypatch, srs_root):
    """A root of its own and little data."""
    load = functools.cache(data.load)
    monkeypatch.setattr(data, "load", lambda which, split: load(which, split)._replace(
        pixels=load(which, split).pixels[:96], labels=load(which, split).labels[:96]))  # fmt: skip
    monkeypatch.setattr(card, "QUALITY_IMAGES", 20)


def test_adversarial_training_attacks_after_the_unrolled_phase_and_goes_on_after_a_kill(monkeypatch):
    seen, loss = [], losses.loss
    monkeypatch.setattr(losses, "loss", lambda model, x, y, *a, **k: seen.append(
        (k["pretrain"], len(x), len(y))) or loss(model, x, y, *a, **k))  # fmt: skip
    run = replace(smoke_run(), model=TINY, train=HARDENED)
    train.train(run, progress=False)
    assert seen == [(True, 32, 32)] * 2 + [(False, 64, 64)] * 4
    weights, settings = store.own(run, store.WEIGHTS), json.loads(store.own(run, store.CARD).read_text())["settings"]
    whole = checkpoints.read_tensors(weights, "weight file")
    store.own(run, store.CARD).unlink(), weights.unlink()
    train.train(run, progress=False, stop_after=1)
    assert not weights.is_file()
    train.train(run, progress=False)
    again = checkpoints.read_tensors(weights, "weight file")
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    weaker = hardened(RECIPE, "adversarial", replace(HARDENED.adversarial, radius=0.4))
    assert all(train._settings(replace(run, train=other)) != settings for other in (RECIPE, weaker))


def test_attacks_of_a_run_cost_the_same_but_for_the_converged_one():
    run = get_profile("digits").runs[0]
    suite = white_box.suite_of(run)
    cost = {attack.name: attack.steps * attack.gradient.cost for attack in suite.attacks}
    assert (suite.attacks[1].name, suite.attacks[1].gradient.state, suite.attacks[1].gradient.backward) == (READY, 6, 5)
    for one in suite.attacks:
        assert one.name in ("none", CONVERGED) or abs(cost[one.name] - cost[READY]) <= one.gradient.cost / 2


def test_success_is_counted_among_images_that_were_right(srs_root):
    run, unrolled = smoke_run(), "unrolled from z_2"
    answers = {("none", 0, 0.0): 9, ("none", 1, 0.0): 3, ("none", 2, 0.0): 3}  # by gradient, image and radius; the label is 3
    for name, by_image in {READY: ((9, 9), (3, 4), (3, 3)), unrolled: ((9, 9), (4, 3), (3, 4))}.items():
        answers |= {(name, i, r): base for i, bases in enumerate(by_image) for r, base in zip((0.5, 1.0), bases)}
    plain = dict(label=3, nfe=7, distance=0.5, n=0, own=0, further="")
    rows = [plain | dict(attack=name, idx=i, radius=r, steps=int(r > 0), base=base) for (name, i, r), base in answers.items()]
    for one in white_box.both(run).values():
        store.save_frame(store.own(one, "white_box.csv"), pd.DataFrame(rows))
    points = white_box.read(run)
    table = white_box.success(points).set_index(["model", "gradient"])
    assert table.loc[(HARD, READY), ["images", "r=0.50", "r=1.00", "all radii"]].tolist() == [2, 0, 50, 25]
    assert table.loc[(PLAIN, unrolled), "all radii"] == 50
    said = white_box.finding(table.reset_index())
    assert said.count("ready-made exact one 25.0 %") == said.count("+25.0 points") == 2
    swapped = table.reset_index().replace({"gradient": {READY: unrolled, unrolled: READY}})
    assert white_box.finding(swapped).count("-25.0 points") == 2
    nothing = points.iloc[:0]
    assert white_box.shown(nothing, run) == [] and "Neither" in white_box.finding(white_box.success(nothing))


def test_both_models_are_attacked_and_compared_without_a_network(monkeypatch):
    run = replace(smoke_run(images=2), model=TINY, train=RECIPE)
    with pytest.raises(ConfigError, match="attack results"):
        white_box.read(run)
    white_box.measure(run, white_box.suite_of(run, steps=1, radii=(0.5,)), progress=False)
    monkeypatch.setattr(checkpoints, "load", lambda *_: pytest.fail("a network was asked for"))
    points = white_box.read(run)
    assert set(points["idx"]) <= set(run.profile.evaluated)
