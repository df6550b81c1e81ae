"""Gradients at intermediate states compared with the exact one, and the DEQ that is trained against them."""

import functools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from srs import data, settings, store
from srs.attacks import pgd
from srs.attacks.settings import Adversarial, Gradient, hardened
from srs.deq import checkpoints
from srs.experiments import white_box
from srs.experiments.white_box import CONVERGED, HARD, READY, RESIDUAL
from srs.profiles import DIGITS_PAPER, get_profile
from srs.settings import ConfigError
from srs.training import card, losses, train
from tests.helpers import smoke_run
from tests.test_pgd import MODEL, X, Y, exact, gradient_of

RECIPE = replace(DIGITS_PAPER, epochs=2, pretrain_steps=2, batch=32, pretrain_layers=2, forward_steps=3, backward_steps=2)
HARDENED = hardened(RECIPE, "adversarial", Adversarial(steps=1, vectors=2, gradient=Gradient("unrolled", 2)))
TINY = settings.Model("SMALL", (8, 16), (2, 4), 16, dropout=0.1, expansion=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch, srs_root):
    """A root of its own and little data."""
    load = functools.cache(data.load)
    monkeypatch.setattr(data, "load", lambda which, split: load(which, split)._replace(
        pixels=load(which, split).pixels[:96], labels=load(which, split).labels[:96]))  # fmt: skip
    monkeypatch.setattr(card, "QUALITY_IMAGES", 20)


def test_cosines_are_those_to_the_closed_form(monkeypatch):
    monkeypatch.setattr(white_box, "EXACT", Gradient("implicit", 60, backward=60))
    found = white_box.cosines(MODEL, X, Y, (1, 3, 40)).set_index(["state", "gradient"])["cosine"]
    assert set(found.index) == {(n, name) for n in (1, 3, 40) for name in (RESIDUAL, *white_box.COMPARED)}
    for n in (1, 3, 40):
        got = gradient_of(Gradient("implicit", n, "broyden", n))
        want = torch.nn.functional.cosine_similarity(got.flatten(1), exact().flatten(1))
        assert np.allclose(found[n, "exact, Broyden"], want, atol=1e-6)
    assert (found[40, "exact, Broyden"] > 1 - 1e-6).all() and (found[40, "adjoint, beta 1"] > 1 - 1e-3).all()
    assert (found[1, "adjoint, beta 1"] < 0.99).all() and (found[40, RESIDUAL] < 1e-3).all()


def trained(recipe):
    run = replace(smoke_run(), model=TINY, train=recipe)
    train.train(run, progress=False)
    return run, checkpoints.load(store.own(run, store.WEIGHTS), run.model, run.profile.data)


def test_adversarial_training_trains_on_attacked_copies_once_it_no_longer_unrolls(monkeypatch):
    seen, loss, harden = [], losses.loss, pgd.harden
    monkeypatch.setattr(losses, "loss", lambda model, x, y, *a, **k: seen.append(
        (k["pretrain"], len(x), len(y))) or loss(model, x, y, *a, **k))  # fmt: skip
    calls = []
    monkeypatch.setattr(pgd, "harden", lambda *a: calls.append(a) or harden(*a))
    trained(HARDENED)
    assert seen == [(True, 32, 32)] * 2 + [(False, 64, 64)] * 4 and len(calls) == 4
    assert all(a[3] == smoke_run().sigma and a[4] == HARDENED.adversarial for a in calls)


def test_adversarial_training_is_repeatable_resumes_and_has_a_card_of_its_own(srs_root):
    run, model = trained(HARDENED)
    whole = {k: v.clone() for k, v in model.state_dict().items()}
    told = json.loads(store.own(run, store.CARD).read_text())
    store.own(run, store.CARD).unlink(), store.own(run, store.WEIGHTS).unlink()
    train.train(run, progress=False, stop_after=1)
    assert not store.own(run, store.WEIGHTS).is_file()
    again, model = trained(HARDENED)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in whole.items())
    assert json.loads(store.own(again, store.CARD).read_text())["settings"] == told["settings"]
    weaker = hardened(RECIPE, "adversarial", replace(HARDENED.adversarial, radius=0.4))
    assert all(train._settings(replace(run, train=other)) != told["settings"] for other in (RECIPE, weaker))


def test_attacks_of_a_run_cost_the_same_but_for_the_converged_one():
    run = get_profile("digits").runs[0]
    suite = white_box.suite_of(run)
    cost = {attack.name: attack.steps * attack.gradient.cost for attack in suite.attacks}
    ready = suite.attacks[1]
    assert (ready.name, ready.gradient.state, ready.gradient.backward) == (READY, 6, 5)
    for attack in suite.attacks:
        if attack.name not in ("none", CONVERGED):
            assert abs(cost[attack.name] - cost[READY]) <= attack.gradient.cost / 2
    hard = white_box.both(run)[HARD].train
    assert (hard.begin, hard.recipe, hard.epochs) == (run.train, "adversarial", run.train.epochs // 4)


def points(answers):
    """Attacked images of label 3 by (gradient, image, radius), with what the base classifier answers."""
    rows = [(HARD, i, 3, name, int(r > 0), 7, r, base) for (name, i, r), base in answers.items()]
    return pd.DataFrame(rows, columns=["model", "idx", "label", "gradient", "steps", "nfe", "radius", "base"])


def test_success_is_counted_among_images_that_were_right():
    unrolled = "unrolled from z_2"
    answers = {("none", 0, 0.0): 9, ("none", 1, 0.0): 3, ("none", 2, 0.0): 3}
    for name, by_image in {READY: ((9, 9), (3, 4), (3, 3)), unrolled: ((9, 9), (4, 3), (3, 4))}.items():
        answers |= {(name, i, r): base for i, bases in enumerate(by_image) for r, base in zip((0.5, 1.0), bases)}
    table = white_box.success(points(answers)).set_index("gradient")
    assert table.loc[READY, ["images", "r=0.50", "r=1.00", "all radii"]].tolist() == [2, 0, 50, 25]
    assert table.loc[unrolled, ["all radii", "it alone", "ready-made alone"]].tolist() == [50, 2, 1]
    said = white_box.success_finding(table.reset_index())
    assert "(25.0 %)" in said and " beats " in said and "+25.0 points; it alone flips 2 pairs, the ready-made one alone 1" in said
    swapped = table.reset_index().replace({"gradient": {READY: unrolled, unrolled: READY}})
    assert "does not beat" in white_box.success_finding(swapped)
    nothing = white_box.success(points(answers | {("none", i, 0.0): 9 for i in range(3)}))
    assert nothing["images"].tolist() == [0, 0] and "equals" in white_box.success_finding(nothing)


def test_cosines_are_shown_as_their_means():
    rows = [("one", i, n, g, 0.1 * n + 0.2 * i + 0.1 * (g == "b")) for i in (0, 1) for n in (1, 2) for g in (RESIDUAL, "a", "b")]
    found = pd.DataFrame(rows, columns=["model", "idx", "state", "gradient", "cosine"])
    table = white_box.cosine_table(found).set_index("gradient")
    assert table.loc["a", ["z_1", "z_2"]].tolist() == pytest.approx([0.2, 0.3])
    assert "at z_1 'b' (mean cosine 0.300) and at z_2 'b' (mean cosine 0.400)" in white_box.cosine_finding(found)
    for before, after, said in ((0.1, 0.2, "grows"), (0.2, 0.1, "falls")):
        assert f" {said} " in white_box.residual_finding(pd.DataFrame({"residual after 5": [before, after]}))


def test_a_comparison_is_stored_once_and_shown_without_a_network(monkeypatch, srs_root):
    run = replace(smoke_run(images=2), model=TINY, train=RECIPE)
    monkeypatch.setattr(white_box, "EXACT", Gradient("implicit", 20, "anderson", 20))
    small = dict(steps=1, radii=(0.5,), states=(1, 4), progress=False)
    with pytest.raises(ConfigError, match="cosines"):
        white_box.read(run)
    white_box.measure(run, **small)
    written = {path: path.stat().st_mtime_ns for path in (srs_root / "data").rglob("attacks/**/*.csv")}
    assert len(written) == 2 * (6 + 1)
    monkeypatch.setattr(pgd, "loss_gradient", lambda *_: pytest.fail("measured again"))
    white_box.measure(run, **small)
    assert written == {path: path.stat().st_mtime_ns for path in written}
    monkeypatch.setattr(checkpoints, "load", lambda *_: pytest.fail("a network was asked for"))
    cosines, attacked = white_box.read(run)
    made = [white_box.quality(run), *white_box.nearness(cosines, run), white_box.flips(attacked, run)]
    assert [one.name for one in made] == ["white_box_models", "white_box_cosine_curves", "white_box_cosines", "white_box_success"]
    assert made[3].frame["model"].nunique() == len(made[0].frame) == 2 and set(cosines["idx"]) == set(run.profile.evaluated)
