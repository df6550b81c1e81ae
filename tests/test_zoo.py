"""What the repository ships: weights of the recipes that config states, and certificates that come out again."""

import dataclasses
import json

import pytest
import torch
from tests.conftest import shared_data

from srs import data, profiles, sealed, store
from srs.deq import checkpoints, inference
from srs.smoothing import certify, votes

RUNS = [run for profile in profiles.PROFILES.values() if not profile.published for run in profile.runs]
SHIPPED = [run for run in RUNS if store.tracked(run, store.CARD).is_file()]
CERTIFIED = [run for run in SHIPPED if store.tracked(run, store.COUNTS).is_file()]
AGAIN = [  # certificates of at most 1,000 votes; `srs verify` draws the longer ones, too
    (run, method) for run in CERTIFIED for method in run.profile.methods
    if run.sigma == 0.5 and method.name in ("MDEQ-ANCHOR-2A", "SRS-MDEQ-1A") and (run.profile.n <= 1_000 or run.profile.adaptive)
]  # fmt: skip


def named(of: object) -> str:
    """A run's or a method's name, for the test's."""
    return getattr(of, "name", "") or f"{of.profile.name}-{of.id}"
NOT_COMPARED = ("seconds", "n_wrong", "n_differ")  # the last two need the reference method's votes on all copies


def test_something_is_shipped():
    assert {run.id for run in SHIPPED} >= {"SMALL-s0.25-contractive", "SMALL-s0.50-contractive"}


@pytest.mark.parametrize("run", SHIPPED, ids=named)
def test_shipped_weights_are_of_the_recipe_that_config_states(run):
    card = json.loads(store.tracked(run, store.CARD).read_text())
    assert card["recipe_key"] == store.recipe_key(run), "make would train this run anew: train and ship it again"
    assert (card["run"], card["sigma"], card["recipe"]) == (run.id, run.sigma, run.train.recipe)
    model = checkpoints.load(store.tracked(run, store.WEIGHTS), run.model, run.profile.data)
    assert sum(p.numel() for p in model.parameters()) == card["parameters"]


@pytest.mark.parametrize("run", CERTIFIED, ids=named)
def test_shipped_tallies_are_of_the_shipped_weights_and_of_the_profile(run):
    weights = checkpoints.digest(store.tracked(run, store.WEIGHTS))
    made_by, counts = sealed.read_json(store.tracked(run, "counts.json"), "provenance", by=""), store.read_run(run)
    for method in run.profile.methods:
        told = made_by[method.name]
        assert told["weights"] == weights, method.name
        asked = json.loads(json.dumps(dataclasses.asdict(run.profile.sampling)))
        assert {name: told["sampling"].get(name) for name in asked} == asked, method.name
        assert told["method"] == dataclasses.asdict(method)
        own = counts[counts["method"] == method.name]
        assert own["idx"].tolist() == list(run.profile.evaluated)
        assert run.profile.adaptive or set(own["n"]) == {run.profile.n}


@pytest.mark.parametrize("run, method", AGAIN, ids=named)
def test_a_shipped_certificate_comes_out_again(run, method):
    """Votes for one image from shipped weights and the image itself: the same counts, on the same kind of machine."""
    sampling = run.profile.sampling
    told = sealed.read_json(store.tracked(run, "counts.json"), "provenance", by="")[method.name]
    here = inference.device_name("cpu"), torch.__version__.split("+")[0]
    if (told["device"], told["torch"].split("+")[0]) != here:
        pytest.skip(f"shipped results were made on {told['device']} with torch {told['torch']}, this is {here}")
    images = data._folder(shared_data("cifar10", "test"), run.profile.data)  # decodes the one image that is asked for
    row = store.read_run(run).query("method == @method.name and n <= 1_000").iloc[3]
    model = checkpoints.load(store.tracked(run, store.WEIGHTS), run.model, run.profile.data)
    model.anchor = checkpoints.load_anchor(store.tracked(run, store.ANCHOR))
    drawn = votes.draw_votes(
        inference.prepare(model), images.x(int(row["idx"])), method, sampling, run.sigma, idx=int(row["idx"]),
        label=int(images.labels[int(row["idx"])]),
    )  # fmt: skip
    again = dataclasses.asdict(certify.count_votes(drawn, method, sampling))
    assert {name: int(row[name]) for name in again if name not in NOT_COMPARED} == {
        name: value for name, value in again.items() if name not in NOT_COMPARED
    }
