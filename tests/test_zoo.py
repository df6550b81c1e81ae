"""What is shipped: models of the recipes that are stated, counts that come out again; damaged, they are told and left."""

import dataclasses
import json
import shutil
from dataclasses import replace

import pytest
import torch
from tests.conftest import shared_data
from tests.test_train import ONE, run_of, trained

from srs import data, profiles, sealed, store
from srs.deq import checkpoints, inference
from srs.sealed import DamagedFile
from srs.smoothing import certify, votes
from srs.training import train

RUNS = [run for profile in profiles.PROFILES.values() if not profile.published for run in profile.runs]
SHIPPED = [run for run in RUNS if store.tracked(run, store.CARD).is_file()]
CERTIFIED = [run for run in SHIPPED if store.tracked(run, store.COUNTS).is_file()]
CHEAP = ("SRS-MDEQ-1A", "MDEQ-1A", "RS-mean-2A", "RS-mean-1A", "RS-mean-1N-bf16")
AGAIN = [  # one cheap row of each run; `srs verify` draws the others, too
    (run, [m for m in run.profile.methods if m.name in CHEAP[run.train.recipe != "paper" :]][-1]) for run in CERTIFIED
]
MODEL = (store.WEIGHTS, store.TRAIN_MEAN, store.CARD)


def known(record: dict) -> dict:
    """A record without fields that are None, as those are that were added after it was stored."""
    return {name: known(value) if isinstance(value, dict) else value for name, value in record.items() if value is not None}


def named(of: object) -> str:
    """A run's or a method's name, for the test's."""
    return getattr(of, "name", "") or f"{of.profile.name}-{of.id}"


@pytest.mark.parametrize("run", SHIPPED, ids=named)
def test_shipped_weights_are_of_the_recipe_that_is_stated(run):
    card = json.loads(store.tracked(run, store.CARD).read_text())
    assert card["recipe_key"] == store.recipe_key(run), "make would train this run anew: train and ship it again"
    assert (card["run"], card["sigma"], card["recipe"]) == (run.id, run.sigma, run.train.recipe)
    model = checkpoints.load(store.tracked(run, store.WEIGHTS), run.model, run.profile.data)
    assert sum(p.numel() for p in model.parameters()) == card["parameters"]


@pytest.mark.parametrize("run", CERTIFIED, ids=named)
def test_shipped_counts_are_of_the_shipped_weights_and_of_the_profile(run):
    digest = checkpoints.digest(store.tracked(run, store.WEIGHTS))
    made_by, counts = sealed.read_json(store.tracked(run, "counts.json"), "provenance", by=""), store.read_run(run)
    asked = json.loads(json.dumps(dataclasses.asdict(run.profile.sampling)))
    if counts is None:
        pytest.skip("not all methods of this run are shipped yet")
    for method in run.profile.methods:
        told = made_by[method.name]
        assert (told["weights"], known(told["method"])) == (digest, known(dataclasses.asdict(method)))
        assert known(asked).items() <= known(told["sampling"]).items(), method.name  # or was removed since
        assert counts[counts["method"] == method.name]["idx"].tolist() == list(run.profile.evaluated)


@pytest.mark.parametrize("run, method", AGAIN, ids=named)
def test_a_shipped_certificate_comes_out_again(run, method):
    """Votes for one image from shipped weights: the same counts on the same kind of machine, nearly the same on another."""
    told = sealed.read_json(store.tracked(run, "counts.json"), "provenance", by="")[method.name]
    images = data._folder(shared_data("cifar10", "test"), run.profile.data)  # decodes the one image that is asked for
    row = store.read_run(run).query("method == @method.name").sort_values("n", kind="stable").iloc[3]
    idx, model = int(row["idx"]), checkpoints.load(store.tracked(run, store.WEIGHTS), run.model, run.profile.data)
    model.train_mean = checkpoints.load_train_mean(store.tracked(run, store.TRAIN_MEAN))
    sampling, label = run.profile.sampling, int(images.labels[idx])
    drawn = votes.draw_votes(inference.prepare(model), images.x(idx), method, sampling, run.sigma, idx=idx, label=label)
    again = dataclasses.asdict(certify.count_votes(drawn, method, sampling))
    here = inference.device_name("cpu", rounded=bool(method.head)), torch.__version__.split("+")[0]
    same = (told["device"], told["torch"]) == here
    names = again.keys() - {"seconds", "n_wrong", "n_differ"} if same else {"c_a"}  # the last two need the reference's votes
    assert {name: again[name] for name in names} == row[[*names]].to_dict()
    assert again["n_a"] / again["n"] == pytest.approx(row["n_a"] / row["n"], abs=0.01)  # sums are rounded otherwise elsewhere


# ---------------------------------------------------------------------------------------------- taken, or told and left


def shelve(run) -> dict[str, bytes]:
    """Train a run, put it into the zoo and empty the work folder; what training made."""
    trained(run)
    made = {path.name: path.read_bytes() for path in (store.own(run, store.WEIGHTS), store.own(run, store.TRAIN_MEAN))}
    assert {path.name for path in store.ship(replace(run.profile, plan=(replace(run, profile=None),)))} == {*MODEL}
    shutil.rmtree(store.own(run, store.WEIGHTS).parent)
    return made


def test_shipped_weights_are_taken_once_unless_told_to_retrain(few_images, monkeypatch):
    run = run_of(ONE)
    made = shelve(run)
    monkeypatch.setattr(train, "_train_epoch", lambda *args: pytest.fail("trained"))
    trained(run)
    path = store.own(run, store.WEIGHTS)
    assert {p.name: p.read_bytes() for p in path.parent.glob("*.safetensors")} == made
    assert store.ship(replace(run.profile, plan=(replace(run, profile=None),))) == []  # a copy is not shipped again
    before = path.stat()
    trained(run)  # a reader keeps what it opened: what is equal is not written again
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    for other, more in ((run_of(replace(ONE, lr=1e-4)), {}), (run, {"retrain": True})):
        with pytest.raises(pytest.fail.Exception, match="trained"):
            trained(other, **more)


def test_damaged_models_in_the_zoo_are_left_and_not_copied(few_images):
    run = run_of(ONE)
    shelve(run)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    for name in MODEL:
        path = store.tracked(run, name)
        whole = path.read_bytes()
        flipped = whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:]  # one bit near the end
        for content in (pointer, flipped):
            path.write_bytes(content)
            with pytest.raises(DamagedFile, match=rf"{path.name} .*git checkout -- data/zoo"):
                trained(run)
            assert path.read_bytes() == content and {p.suffix for p in store.own(run, "").iterdir()} <= {".lock"}
        path.write_bytes(whole)
