"""Training: resumed equals unbroken, what makes it begin anew, and what the model card says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from srs import data, store
from srs.deq import checkpoints, mdeq
from srs.deq.solvers import SOLVERS
from srs.profiles import DIGITS, DIGITS_PAPER
from srs.training import losses, train
from tests.helpers import make_small, smoke_run, TINY

pytestmark = pytest.mark.usefixtures("few_images")
ZOO = Path(__file__).parents[1] / "data" / "zoo"
# Three epochs of three steps, with every phase: unrolled, implicit, with the penalty and, in the last epoch, without.
RECIPE = replace(
    DIGITS_PAPER, epochs=3, pretrain_steps=4, batch=32, pretrain_layers=2, forward_steps=3, backward_steps=2,
    jacobian_frequency=0.5, jacobian_until=0.7,
)  # fmt: skip
ONE = replace(RECIPE, epochs=1)
FIRST = replace(RECIPE, recipe="first", epochs=2, pretrain_steps=100)
THEN = replace(RECIPE, recipe="then", init_from=FIRST, init_sigma=0.25, epochs=1, gradient="path_independent")


def run_of(recipe=RECIPE, **change):
    return replace(smoke_run(card_images=20, **change), model=TINY, train=recipe)


def trained(run, **more):
    return train.train(run, progress=False, **more)


def weights(run):
    return checkpoints.load(store.own(run, store.WEIGHTS), run.model, run.profile.data).state_dict()


def assert_equal(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def epochs_done(run):
    return torch.load(store.own(run, store.CHECKPOINT), weights_only=True)["epochs"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Weights and card of RECIPE trained in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRS_ROOT", str(tmp_path_factory.mktemp("unbroken")))
        make_small(patch)
        run = run_of()
        assert trained(run) == store.own(run, store.WEIGHTS)
        return weights(run), json.loads(store.own(run, store.CARD).read_text())


def test_a_consistent_recipe_learns_from_two_noisy_copies_of_each_image(monkeypatch):
    seen, loss, run = [], losses.loss, run_of(replace(ONE, consistency=1.0))
    monkeypatch.setattr(losses, "loss", lambda *args, **how: seen.append(args[1:3]) or loss(*args, **how))
    trained(run)
    for x, y in seen:
        (first, second), (classes, again) = x.chunk(2), y.chunk(2)
        assert len(first) == run.train.batch and torch.equal(classes, again)
        assert float((first - second).std()) == pytest.approx(2**0.5 * run.sigma, rel=0.1)  # each has noise of its own


def test_resumed_training_ends_with_the_same_weights(unbroken, monkeypatch):
    """Ended after an epoch, then killed within one, which is done again."""
    run, calls, loss = run_of(), [], losses.loss

    def killed(*args, **more):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return loss(*args, **more)

    trained(run, stop_after=1)
    assert not store.own(run, store.WEIGHTS).exists() and epochs_done(run) == 1
    monkeypatch.setattr(losses, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(run)
    torch.rand(7)  # what the process does between must not matter
    trained(run)
    assert len(calls) == 2 + 6
    assert_equal(weights(run), unbroken[0])
    told = json.loads(store.own(run, store.CARD).read_text())
    assert {k for k in told if told[k] != unbroken[1][k]} <= {"seconds", "sha256"} and told["seconds"] > 0
    assert not store.own(run, store.CHECKPOINT).exists()


def test_a_changed_recipe_is_trained_anew_and_a_finished_one_is_not_repeated(monkeypatch):
    run, changed = run_of(ONE), run_of(replace(ONE, lr=1e-3))
    trained(run)
    before = weights(run)
    with monkeypatch.context() as patch:
        patch.setattr(losses, "loss", lambda *_, **__: pytest.fail("trained again"))
        assert trained(run) == store.own(changed, store.WEIGHTS)
    trained(changed)
    assert not torch.equal(weights(changed)["classifier.weight"], before["classifier.weight"])
    trained(run_of(replace(ONE, epochs=2)), stop_after=1)
    trained(other := run_of(replace(ONE, epochs=2, lr=1e-3)), stop_after=1)
    assert epochs_done(other) == 1  # a checkpoint of another recipe is not gone on with


def test_card_says_what_was_made(unbroken):
    told = unbroken[1]
    assert told["run"] == run_of().id and told["recipe"] == "paper" and told["seed"] == 0
    assert told["parameters"] == sum(p.numel() for p in mdeq.build(TINY, DIGITS, 0).parameters())
    assert told["images"] == 96 and told["steps"] == 9 and {"torch", "python", "machine"} <= set(told)
    shipped = json.loads((ZOO / "cifar10/SMALL-s0.50-long/card.json").read_text())["validation"]
    for part in (told, told["validation"]):
        assert part.keys() >= shipped.keys() and part["accuracy_images"] == part["quality_images"] == 20
        assert 0 < part["clean_accuracy"] <= 1 and 0 < part["noisy_accuracy"] <= 1
        assert part["residual"].keys() == part["agreement"].keys() == shipped["residual"].keys()
        assert part["agreement"]["30"] == 1 and part["residual"]["30"] < part["residual"]["1"]
    assert told["residual"] != told["validation"]["residual"]


def test_training_mean_is_the_mean_solution_of_noisy_training_images():
    run = run_of(ONE)
    trained(run)
    train_mean = checkpoints.load_train_mean(store.own(run, store.TRAIN_MEAN))
    model = checkpoints.load(store.own(run, store.WEIGHTS), run.model, run.profile.data).requires_grad_(False)
    u = model.inject(data.load(run.profile.data, "train").x(slice(None)))
    settled = SOLVERS["anderson"](model.f, model.initial(u), u, max_steps=30).z
    assert (train_mean - settled.mean(0)).norm() < 0.6 * settled.mean(0).norm()


def test_augmentation_moves_and_flips_each_image_on_its_own():
    torch.manual_seed(0)
    x = torch.zeros(400, 3, 16, 16)
    x[:, :, 8, 5] = torch.tensor([0.2, 0.5, 1.0])
    assert torch.equal(train._augment(x, "none"), x)
    flipped, cropped = ((train._augment(x, kind)[:, 2] == 1).nonzero() for kind in ("flips", "crops"))
    assert flipped[:, 0].tolist() == cropped[:, 0].tolist() == list(range(400))
    assert set(map(tuple, flipped[:, 1:].tolist())) == {(8, 5), (8, 10)}
    assert set(cropped[:, 1].tolist()) == set(range(6, 11))  # moved by at most an eighth
    assert set(cropped[:, 2].tolist()) == set(range(3, 8)) | set(range(8, 13))  # flipped: column 10


def test_a_recipe_begins_with_the_weights_of_another_and_in_pieces_goes_through_that_one_too():
    run = run_of(THEN)
    first = run.parent
    assert run.sigma == 0.5 and store.own(first, "").name == "SMALL-s0.25-first"
    trained(run_of(replace(THEN, lr=0.0)))
    for name, value in weights(first).items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(weights(run)[name], value), name
    written = store.own(first, store.WEIGHTS).stat().st_mtime_ns
    trained(run)
    assert store.own(first, store.WEIGHTS).stat().st_mtime_ns == written  # trained once for both
    unbroken = weights(run)
    for path in (*store.own(run, "").glob("*"), *store.own(first, "").glob("*")):
        path.unlink()
    for _ in range(FIRST.epochs + THEN.epochs):
        trained(run, stop_after=1)
    assert_equal(weights(run), unbroken)


def test_a_training_is_neither_taken_for_done_nor_resumed_on_other_images(monkeypatch):
    def darker(*which):
        images = few(*which)
        return images._replace(pixels=images.pixels / 2)

    run, asked, few = run_of(), [], data.load
    trained(run, stop_after=1)
    monkeypatch.setattr(train, "_train_epoch", lambda *_: asked.append(1))
    for load, epochs in ((darker, 1), (darker, 1), (few, 2)):
        monkeypatch.setattr(data, "load", load)
        trained(run)
        assert len(asked) == epochs * run.train.epochs
    monkeypatch.setattr(data, "at_hand", lambda *_: False)  # images that are not there are not missed
    monkeypatch.setattr(data, "load", lambda *_: pytest.fail("the images were asked for"))
    trained(run)
