"""What the repository ships: weights of the recipes that config states, and certificates that come out again."""

import dataclasses
import json

import pytest
import torch
from tests.conftest import shared_data

from srs import data, profiles, sealed, store
from srs.deq import checkpoints, inference
from srs.smoothing import certify, votes

CIFAR10 = profiles.get_profile("cifar10")
SHIPPED = [run for run in CIFAR10.runs if store.tracked(run, store.CARD).is_file()]
CERTIFIED = [run for run in SHIPPED if store.tracked(run, store.COUNTS).is_file()]
NOT_COMPARED = ("seconds", "n_wrong", "n_differ")  # the last two need the reference method's votes on all copies


def test_something_is_shipped():
    assert {run.id for run in SHIPPED} >= {"SMALL-s0.25-contractive", "SMALL-s0.50-contractive"}


@pytest.mark.parametrize("run", SHIPPED, ids=lambda run: run.id)
def test_shipped_weights_are_of_the_recipe_that_config_states(run):
    card = json.loads(store.tracked(run, store.CARD).read_text())
    assert card["recipe_key"] == store.recipe_key(run), "make would train this run anew: train and ship it again"
    assert (card["run"], card["sigma"], card["recipe"]) == (run.id, run.sigma, run.train.recipe)
    model = checkpoints.load(store.tracked(run, store.WEIGHTS), run.model, CIFAR10.data)
    assert sum(p.numel() for p in model.parameters()) == card["parameters"]


@pytest.mark.parametrize("run", CERTIFIED, ids=lambda run: run.id)
def test_shipped_tallies_are_of_the_shipped_weights_and_of_the_profile(run):
    weights = checkpoints.digest(store.tracked(run, store.WEIGHTS))
    made_by, counts = sealed.read_json(store.tracked(run, "counts.json"), "provenance", by=""), store.read_run(run)
    for method in run.profile.methods:
        told = made_by[method.name]
        assert told["weights"] == weights, method.name
        assert {"stop": None} | told["sampling"] == json.loads(json.dumps(dataclasses.asdict(CIFAR10.sampling))), method.name
        assert told["method"] == dataclasses.asdict(method)
        own = counts[counts["method"] == method.name]
        assert own["idx"].tolist() == list(run.profile.evaluated) and set(own["n"]) == {CIFAR10.n}


@pytest.mark.parametrize("name", ["MDEQ-ANCHOR-2A", "SRS-MDEQ-1A"])
@pytest.mark.parametrize("run", [run for run in CERTIFIED if run.sigma == 0.5], ids=lambda run: run.id)
def test_a_shipped_certificate_comes_out_again(run, name):
    """Votes for one image from shipped weights and the image itself: the same counts, on the same kind of machine."""
    method = CIFAR10.method(name)
    told = sealed.read_json(store.tracked(run, "counts.json"), "provenance", by="")[name]
    here = inference.device_name("cpu"), torch.__version__.split("+")[0]
    if (told["device"], told["torch"].split("+")[0]) != here:
        pytest.skip(f"shipped results were made on {told['device']} with torch {told['torch']}, this is {here}")
    images = data._folder(shared_data("cifar10", "test"), CIFAR10.data)  # decodes the one image that is asked for
    row = store.read_run(run).query("method == @name").iloc[3]
    model = checkpoints.load(store.tracked(run, store.WEIGHTS), run.model, CIFAR10.data)
    model.anchor = checkpoints.load_anchor(store.tracked(run, store.ANCHOR))
    drawn = votes.draw_votes(
        inference.prepare(model), images.x(int(row["idx"])), method, CIFAR10.sampling, run.sigma, idx=int(row["idx"]),
        label=int(images.labels[int(row["idx"])]),
    )  # fmt: skip
    again = dataclasses.asdict(certify.count_votes(drawn, method, CIFAR10.sampling))
    same = {name: (int(row[name]), value) for name, value in again.items() if name not in NOT_COMPARED}
    assert {name: pair for name, pair in same.items() if pair[0] != pair[1]} == {}
