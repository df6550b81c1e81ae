"""The parts of the recipe `contractive`: what each line leaves out, and where its numbers come from."""

import json
from dataclasses import replace

import pytest
from tests.helpers import save_untrained, smoke_run

from srs import agreement, contraction, profiles, variants
from srs.profiles import PROFILES
from srs.store.sealed import paths
from srs.training import train

SMOKE = PROFILES["smoke"]
RUN = smoke_run()


def test_every_line_changes_one_part_of_the_recipe():
    whole, *less = list(contraction.recipes(RUN).values())[1:]
    rule = whole.contraction
    assert whole.gradient == "contractive" and rule.weight > 0 and rule.most_free_steps > 0 and len(rule.starts) == 3
    assert [replace(one, recipe=whole.recipe, contraction=rule) for one in less] == 4 * [whole]
    assert [one.contraction for one in less] == [
        replace(rule, starts=("zero",)), replace(rule, most_free_steps=0), replace(rule, most_free_steps=0, both=True),
        replace(rule, weight=0.0),
    ]  # fmt: skip
    assert len({one.recipe for one in (whole, *less)}) == 5


def test_a_profile_s_own_contractive_recipe_is_the_one_taken_apart():
    run = variants.base(PROFILES["cifar10"])
    recipes = contraction.recipes(run)
    assert recipes["contractive"] == profiles.get_run("cifar10", "SMALL", 0.5, "contractive").train
    assert len({one.contraction for one in recipes.values()}) == len(recipes)  # no line for a change that changes nothing


def test_ways_are_some_of_those_that_agreement_measures_at_length():
    ways = contraction.ways(10)
    assert set(ways) <= set(agreement.ways(10)) and len(ways) == len(contraction.STARTS) * len(contraction.STEPS)


def put(run, accuracy, votes=200):
    """A stored card and stored points: k-th step from each start differs on 10 / k votes."""
    path = paths.card(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"noisy_accuracy": accuracy, "quality_images": 50}))
    points = [agreement.Point(m.start, m.solver, m.steps, 0.0, 0.0, votes, 10 // m.steps, m.steps) for m in contraction.ways(10)]
    odd = [agreement.Point("zero", "naive", 2, 0.0, 0.0, votes, 99, 2), agreement.Point("zero", "anderson", 2, 0.1, 0.0, votes, 99, 2)]
    agreement.write(paths.measured(run, "agreement-test"), points + odd)


def test_the_table_holds_what_is_stored_and_names_what_is_not(srs_root):
    assert contraction.make(SMOKE) == {}
    runs = {name: replace(RUN, train=recipe) for name, recipe in contraction.recipes(RUN).items()}
    for i, name in enumerate(("paper", "contractive", "always from zero")):
        put(runs[name], 0.5 + i / 10)
    with pytest.warns(UserWarning, match="left out: SMALL-s0.50-contractive_two, SMALL-s0.50-contractive_both, SMALL-s0.50-contractive_apart: run"):
        made = contraction.make(SMOKE)[contraction.NAME]
    assert made["recipe"].tolist() == ["paper", "contractive", "always from zero"]
    assert made["noisy accuracy %"].tolist() == ["50.0", "60.0", "70.0"]
    for start in contraction.STARTS:
        assert [made.loc[0, f"{start}, k = {k}"] for k in (1, 2, 4)] == ["5.00", "2.50", "1.00"]
    caption = json.loads(paths.shown(SMOKE, contraction.NAME).with_suffix(".json").read_text())["caption"]
    assert "50 of them" in caption and "200 noisy copies" in caption


def test_nothing_is_trained_unless_asked_and_nothing_measured_twice(srs_root, monkeypatch):
    monkeypatch.setattr(train, "train", lambda *a, **k: pytest.fail("trained"))
    asked = []
    monkeypatch.setattr(agreement, "measure", lambda run, *a, **k: asked.append(run.id))
    contraction.measure(SMOKE, training=False)
    assert asked == []
    save_untrained(RUN)
    contraction.measure(SMOKE, training=False)
    assert asked == [RUN.id]
    put(RUN, 0.5)
    contraction.measure(SMOKE, training=False)
    contraction.main(["--profile", "smoke", "--stored"])
    assert asked == [RUN.id]
