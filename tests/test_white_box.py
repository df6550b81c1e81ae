"""Gradients at intermediate states compared with the exact one, and the DEQ that is trained against them."""

from dataclasses import replace
import functools
import json

import numpy as np
import pandas as pd
import pytest
import torch

from srs import adversary, data, points, profiles, settings, threats, white_box, white_box_report
from srs.deq import checkpoints, mdeq
from srs.points import Point
from srs.profiles import DIGITS_PAPER, get_profile
from srs.settings import ConfigError
from srs.store import paths
from srs.threats import Adversarial, CONVERGED, Gradient, hardened, READY, WhiteBox
from srs.training import losses, train
from tests.helpers import smoke_run
from tests.test_adversary import MODEL, X, Y, exact, gradient_of

RECIPE = replace(DIGITS_PAPER, epochs=2, pretrain_steps=2, batch=32, pretrain_layers=2, forward_steps=3, backward_steps=2)
HARD = hardened(RECIPE, "adversarial", Adversarial(steps=1, vectors=2, gradient=Gradient("unrolled", 2)))
TINY = settings.Model("SMALL", (8, 16), (2, 4), 16, dropout=0.1, expansion=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch, srs_root):
    """A root of its own and little data."""
    load = functools.cache(data.load)
    monkeypatch.setattr(data, "load", lambda which, split: load(which, split)._replace(
        pixels=load(which, split).pixels[:96], labels=load(which, split).labels[:96]))  # fmt: skip
    monkeypatch.setattr(train, "QUALITY_IMAGES", 20)


# ---------------------------------------------------------------------------------------------- cosines


def setting(**change):
    chosen = (("exact", Gradient("implicit", solver="broyden")), ("adjoint", Gradient("adjoint")))
    battery = threats.Battery((), 1, 0)
    plain = dict(battery=battery, states=(1, 3, 40), gradients=chosen, exact=Gradient("implicit", 60, backward=60), hardening=HARD)
    return WhiteBox(**plain | change)


def test_cosines_are_those_to_the_closed_form():
    found = white_box.cosines(MODEL, X, Y, setting())
    assert set(found) == {(n, name) for n in (1, 3, 40) for name in ("residual", "exact", "adjoint")}
    for n in (1, 3, 40):
        got = gradient_of(Gradient("implicit", n, "broyden", n))
        want = torch.nn.functional.cosine_similarity(got.flatten(1), exact().flatten(1))
        assert torch.allclose(found[n, "exact"], want, atol=1e-6)
    assert (found[40, "exact"] > 1 - 1e-6).all() and (found[40, "adjoint"] > 1 - 1e-3).all()
    assert (found[1, "adjoint"] < 0.99).all() and (found[40, "residual"] < 1e-3).all()


# ---------------------------------------------------------------------------------------------- adversarial training


def trained(recipe):
    run = replace(smoke_run(), model=TINY, train=recipe)
    train.train(run, progress=False)
    return run, checkpoints.load(paths.weights(run), run.model, run.profile.data)


def test_adversarial_training_trains_on_attacked_copies_once_it_no_longer_unrolls(monkeypatch):
    seen, loss, harden = [], losses.loss, adversary.harden
    monkeypatch.setattr(losses, "loss", lambda model, x, y, *a, **k: seen.append((k["pretrain"], len(x), len(y))) or loss(model, x, y, *a, **k))
    calls = []
    monkeypatch.setattr(adversary, "harden", lambda *a: calls.append(a) or harden(*a))
    trained(HARD)
    assert seen == [(True, 32, 32)] * 2 + [(False, 64, 64)] * 4 and len(calls) == 4
    assert all(a[3] == smoke_run().sigma and a[4] == HARD.adversarial for a in calls)


def test_adversarial_training_is_repeatable_resumes_and_has_a_card_of_its_own(srs_root):
    run, model = trained(HARD)
    whole = {k: v.clone() for k, v in model.state_dict().items()}
    card = json.loads(paths.card(run).read_text())
    paths.card(run).unlink(), paths.weights(run).unlink()
    train.train(run, progress=False, stop_after=1)
    assert not paths.weights(run).is_file()
    again, model = trained(HARD)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in whole.items())
    assert json.loads(paths.card(again).read_text())["settings"] == card["settings"]
    for other in (
        RECIPE, hardened(RECIPE, "adversarial", replace(HARD.adversarial, radius=0.4)),
        hardened(RECIPE, "adversarial", replace(HARD.adversarial, gradient=Gradient("unrolled", 3))),
    ):  # fmt: skip
        assert train._settings(replace(run, train=other)) != card["settings"]


def test_settings_of_plain_recipes_are_what_they_were():
    """Adversarial training is another class of recipe: no field of a plain one came to be, so its fingerprint stands."""
    assert not hasattr(DIGITS_PAPER, "adversarial")
    assert settings.fingerprint(hardened(DIGITS_PAPER, "paper", Adversarial())) != settings.fingerprint(DIGITS_PAPER)


# ---------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_attacks_of_a_profile_cost_what_the_ready_made_one_costs(name):
    run = get_profile(name).runs[0]
    chosen = threats.white_box(run)
    cost = {a.name: a.steps * a.gradient.cost for a in chosen.battery.attacks}
    ready = next(a for a in chosen.battery.attacks if a.name == READY)
    assert (ready.gradient.state, ready.gradient.backward) == (run.train.forward_steps, run.train.backward_steps)
    for attack in chosen.battery.attacks:
        if attack.name not in ("none", CONVERGED):
            assert abs(cost[attack.name] - cost[READY]) <= attack.gradient.cost / 2
    assert chosen.hardening.begin == run.train and chosen.hardening.recipe == "adversarial"


# ---------------------------------------------------------------------------------------------- tables


def pair(idx, attack, radius, base):
    return Point(idx, 3, attack, radius, radius, base, "MDEQ-30A", 0, -2, -2, 0, 0, -1, 0)


def test_success_is_counted_among_images_that_were_right():
    attacks = tuple(threats.Attack(name, radii=(0.5, 1.0)) for name in (READY, "unrolled from z_2"))
    answers = {READY: {1: (3, 4), 2: (3, 3)}, "unrolled from z_2": {1: (4, 3), 2: (3, 4)}}
    some = [pair(0, "none", 0.0, 9), pair(1, "none", 0.0, 3), pair(2, "none", 0.0, 3)]
    some += [pair(0, a.name, r, 9) for a in attacks for r in a.radii]
    some += [pair(i, a, r, c) for a, by_image in answers.items() for i, two in by_image.items() for r, c in zip((0.5, 1.0), two)]
    model = white_box_report.NAMES["adversarial"]
    table = white_box_report.success({model: some}, attacks).set_index("gradient")
    assert table.loc[READY, ["images", "r=0.50", "r=1.00", "all radii"]].tolist() == ["2", "0.0", "50.0", "25.0"]
    assert table.loc["unrolled from z_2", ["all radii", "it alone", "ready-made alone"]].tolist() == ["50.0", "2", "1"]
    said = white_box_report.verdict(table.reset_index())
    assert "beats" in said and "+25.0 points" in said
    swapped = table.reset_index().assign(gradient=["unrolled from z_2", READY])
    assert "does not beat" in white_box_report.verdict(swapped)


def test_cosine_table_and_curves_show_the_means():
    rows = [(i, n, g, 0.1 * n + 0.2 * i) for i in (0, 1) for n in (1, 2) for g in ("a", "residual")]
    found = {"one": pd.DataFrame(rows, columns=["idx", "state", "gradient", "cosine"])}
    table = white_box_report.cosine_table(found).set_index("gradient")
    assert table.loc["a", ["z_1", "z_2"]].tolist() == ["0.200", "0.300"]
    assert table.loc["residual", "z_1"] == "2.0e-01"
    line = white_box_report.cosine_curves(found).axes[0].lines[0]
    assert np.allclose(line.get_ydata(), [0.2, 0.3]) and line.get_label() == "a"


def test_a_comparison_is_stored_once_and_shown_without_a_network(monkeypatch, srs_root):
    run = replace(smoke_run(images=2), model=TINY, train=RECIPE)
    small = replace(threats.white_box(run), hardening=replace(HARD, begin=RECIPE))
    small = replace(small, battery=replace(small.battery, attacks=tuple(
        replace(a, steps=min(a.steps, 1)) for a in small.battery.attacks), images=2))  # fmt: skip
    monkeypatch.setattr(threats, "white_box", lambda run: small)
    with pytest.raises(ConfigError, match="cosines"):
        white_box_report.make_white_box(run)
    both = white_box.measure(run, progress=False)
    assert [one.id for one in both] == ["SMALL-s0.50-paper", "SMALL-s0.50-adversarial"]
    files = {p: p.stat().st_mtime_ns for one in both for p in points.folder(one).rglob("*.npz")}
    written = white_box.cosines_file(run).stat().st_mtime_ns
    monkeypatch.setattr(adversary, "loss_gradient", lambda *_: pytest.fail("measured again"))
    white_box.measure(run, progress=False)
    assert written == white_box.cosines_file(run).stat().st_mtime_ns
    assert files == {p: p.stat().st_mtime_ns for p in files}
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("a network was asked for"))
    made, drawn = white_box_report.make_white_box(run)
    assert set(made) == {"white_box_models", "white_box_cosines", "white_box_success"} and set(drawn) == {"white_box_cosine_curves"}
    assert (made["white_box_success"]["model"].nunique(), len(made["white_box_models"])) == (2, 2)
    for name in (*made, *drawn):
        assert paths.shown(run.profile, name).with_name(f"{name}.json").is_file()
