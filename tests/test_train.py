"""Training: resumed equals unbroken, the gradient is the right one, and what the model card says."""

import functools
import json
import os
import threading
from dataclasses import replace

import pytest
import torch

from srs import data, sealed, store
from srs.deq import checkpoints, mdeq
from srs.deq.solvers import relative_residual
from srs.profiles import DIGITS, DIGITS_PAPER
from srs.settings import Contraction, Model
from srs.sealed import DamagedFile
from srs.training import card, losses, train
from tests.helpers import digits, smoke_run

# Three epochs of three steps, with every phase: unrolled, implicit, with the penalty and, in the last epoch, without.
RECIPE = replace(
    DIGITS_PAPER, epochs=3, pretrain_steps=4, batch=32, pretrain_layers=2, forward_steps=3, backward_steps=2,
    jacobian_frequency=0.5, jacobian_until=0.7,
)  # fmt: skip
ONE = replace(RECIPE, epochs=1)
TINY = Model("SMALL", (8, 16), (2, 4), 16, dropout=0.1, expansion=1)


def run_of(recipe=RECIPE, **change):
    run = smoke_run(card_images=20, **change)
    return replace(run, model=TINY, train=recipe)


def make_small(patch):
    """Train on 96 images."""
    load = functools.cache(data.load)

    def few(which, split):
        images = load(which, split)
        return images._replace(pixels=images.pixels[:96], labels=images.labels[:96])

    patch.setattr(data, "load", few)


@pytest.fixture(autouse=True)
def quick(monkeypatch, srs_root):
    """A root of its own and little data."""
    make_small(monkeypatch)


def trained(run, **more):
    return train.train(run, progress=False, **more)


def weights(run):
    return checkpoints.load(store.own(run, store.WEIGHTS), run.model, run.profile.data).state_dict()


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Weights and card of RECIPE trained in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRS_ROOT", str(tmp_path_factory.mktemp("unbroken")))
        make_small(patch)
        run = run_of()
        assert trained(run) == store.own(run, store.WEIGHTS)
        return weights(run), json.loads(store.own(run, store.CARD).read_text())


# ---------------------------------------------------------------------------------------------- resume


def test_resumed_training_ends_with_the_same_weights(unbroken):
    run = run_of()
    for epochs in (1, 2):
        trained(run, stop_after=1)
        assert not store.own(run, store.WEIGHTS).exists()
        assert torch.load(store.own(run, store.CHECKPOINT), weights_only=True)["epochs"] == epochs
        torch.rand(7)  # what the process does between must not matter
    trained(run)
    assert_equal(weights(run), unbroken[0])
    told = json.loads(store.own(run, store.CARD).read_text())
    different = {k for k in told if told[k] != unbroken[1][k]}
    assert different <= {"seconds", "sha256"} and told["seconds"] > 0
    assert not store.own(run, store.CHECKPOINT).exists()


def test_training_killed_within_an_epoch_repeats_that_epoch(unbroken, monkeypatch):
    run, calls, loss = run_of(), [], losses.loss

    def killed(*args, **more):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return loss(*args, **more)

    monkeypatch.setattr(losses, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(run)
    trained(run)
    assert len(calls) == 5 + 6
    assert_equal(weights(run), unbroken[0])


def test_finished_training_is_not_repeated(monkeypatch):
    run = run_of(ONE)
    trained(run)
    stamp = store.own(run, store.WEIGHTS).stat().st_mtime_ns
    monkeypatch.setattr(losses, "loss", lambda *_, **__: pytest.fail("trained again"))
    assert trained(run) == store.own(run, store.WEIGHTS)
    assert store.own(run, store.WEIGHTS).stat().st_mtime_ns == stamp


def test_checkpoint_of_a_changed_recipe_is_not_gone_on_with():
    recipe = replace(RECIPE, epochs=2)
    trained(run_of(recipe), stop_after=1)
    changed = run_of(replace(recipe, lr=1e-3))
    trained(changed, stop_after=1)
    assert torch.load(store.own(changed, store.CHECKPOINT), weights_only=True)["epochs"] == 1  # begun at epoch 0 again
    trained(changed)
    resumed = weights(changed)
    store.own(changed, store.WEIGHTS).unlink()
    trained(changed)
    assert_equal(resumed, weights(changed))


def test_changed_recipe_is_trained_anew():
    run = run_of(ONE)
    trained(run)
    before = weights(run)
    changed = run_of(replace(ONE, lr=1e-3))
    assert store.own(changed, store.WEIGHTS) == store.own(run, store.WEIGHTS)
    trained(changed)
    assert not torch.equal(weights(changed)["classifier.weight"], before["classifier.weight"])


def test_damaged_checkpoint_is_set_aside():
    run = run_of(replace(RECIPE, epochs=2))
    trained(run, stop_after=1)
    path = store.own(run, store.CHECKPOINT)
    whole = path.read_bytes()
    flipped = [whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :] for i in range(0, len(whole), len(whole) // 9)]
    for content in (b"", whole[: len(whole) // 2], *flipped):
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match=path.name):
            trained(run, stop_after=1)
    assert path.with_name(path.name + ".damaged").read_bytes() == content
    trained(run, stop_after=1)
    assert path.is_file()


def test_card_says_what_was_made(unbroken):
    told = unbroken[1]
    assert told["run"] == run_of().id and told["recipe"] == "paper" and told["seed"] == 0
    assert told["parameters"] == sum(p.numel() for p in mdeq.build(TINY, DIGITS, 0).parameters())
    assert told["images"] == 96 and told["steps"] == 9
    for quality in (told, told["validation"]):
        assert 0 <= quality["clean_accuracy"] <= 1 and 0 <= quality["noisy_accuracy"] <= 1
        assert set(quality["residual"]) == set(quality["agreement"]) == {str(k) for k in card.QUALITY_STEPS}
        assert quality["agreement"]["30"] == 1
    assert {"torch", "python", "machine"} <= set(told)


def test_a_second_training_says_who_is_at_work_and_waits(capfd):
    run = run_of(ONE)
    second = threading.Thread(target=trained, args=(run,))
    with sealed.alone(store.own(run, "training.lock"), "test"):
        second.start()
        second.join(1.0)
        assert second.is_alive() and not store.own(run, store.WEIGHTS).exists()
        assert f"training of {run.id}: waiting for process {os.getpid()} on" in capfd.readouterr().err
    second.join(60)
    assert store.own(run, store.WEIGHTS).is_file()


@pytest.mark.parametrize("asked", [1, 2])
def test_training_computes_with_as_many_threads_as_it_says_whatever_is_set_outside(monkeypatch, asked):
    used = []

    def stop(*_, **__):
        used.append(torch.get_num_threads())
        raise KeyboardInterrupt

    monkeypatch.setattr(losses, "loss", stop)
    torch.set_num_threads(3)
    try:
        with pytest.raises(KeyboardInterrupt):
            trained(run_of(ONE), **({} if asked == 1 else {"threads": asked}))
        assert used == [asked] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def test_anchor_is_the_mean_solution_of_noisy_training_images():
    run = run_of(ONE)
    trained(run)
    anchor = checkpoints.load_anchor(store.own(run, store.ANCHOR))
    model = checkpoints.load(store.own(run, store.WEIGHTS), run.model, run.profile.data).requires_grad_(False)
    settled, u = card._solve(model, data.load(run.profile.data, "train").x(slice(None)), run)
    z, cold = model.f(anchor.expand(len(u), -1), u), model.f(model.initial(u), u)
    assert anchor.shape == settled[0].shape
    assert (anchor - settled.mean(0)).norm() < 0.6 * settled.mean(0).norm()
    assert (z - settled).norm() < (cold - settled).norm()


# ---------------------------------------------------------------------------------------------- steps

LOSSES = {
    "unrolled": (RECIPE, dict(pretrain=True, penalise=False)),
    "implicit": (RECIPE, dict(pretrain=False, penalise=False)),
    "phantom": (replace(RECIPE, gradient="phantom"), dict(pretrain=False, penalise=False)),
    "contractive": (replace(RECIPE, gradient="contractive"), dict(pretrain=False, penalise=False)),
    "last alone": (
        replace(RECIPE, gradient="contractive", contraction=Contraction(both=False)), dict(pretrain=False, penalise=False)
    ),
    "penalised": (replace(RECIPE, jacobian_weight=0.1), dict(pretrain=False, penalise=True)),
}


@pytest.mark.parametrize(("recipe", "how"), LOSSES.values(), ids=LOSSES)
def test_loss_decreases(recipe, how):
    x, y = digits(96)
    torch.manual_seed(0)
    model = mdeq.build(replace(TINY, dropout=0.0), DIGITS, 0).train()
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    seen = []
    for _ in range(15):
        value, earlier = losses.loss(model, x, y, recipe, **how)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        seen.append(value.item())
        assert not earlier.requires_grad
        used = [p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters()]
        assert all(used)
    assert sum(seen[-3:]) < 0.8 * sum(seen[:3])


def test_penalty_adds_its_weight():
    x, y = digits(8)
    model = mdeq.build(replace(TINY, dropout=0.0), DIGITS, 0).eval()
    found = {}
    for weight in (0.0, 1.0, 3.0):
        torch.manual_seed(1)
        recipe = replace(RECIPE, jacobian_weight=weight)
        found[weight] = losses.loss(model, x, y, recipe, pretrain=True, penalise=True)[0].item()
    plain = losses.loss(model, x, y, RECIPE, pretrain=True, penalise=False)[0].item()
    assert found[0.0] == pytest.approx(plain)
    assert found[1.0] > plain
    assert found[3.0] - plain == pytest.approx(3 * (found[1.0] - plain), rel=1e-3)


def test_augmentation_moves_and_flips_each_image_on_its_own():
    torch.manual_seed(0)
    x = torch.zeros(400, 3, 16, 16)
    x[:, :, 8, 5] = torch.tensor([0.2, 0.5, 1.0])
    y = train._augment(x, "crops")
    assert y.shape == x.shape
    places = set()
    for image in y:
        (row, column), = (image[2] == 1).nonzero().tolist()
        assert torch.allclose(image[:, row, column], torch.tensor([0.2, 0.5, 1.0])) and image.count_nonzero() == 3
        places.add((row, column))
    assert {r for r, _ in places} == set(range(6, 11))  # moved by at most an eighth
    assert {c for _, c in places} == set(range(3, 8)) | set(range(8, 13))  # flipped: column 10


@pytest.mark.parametrize(("kind", "moves"), [("none", False), ("flips", True), ("crops", True)])
def test_augmentation_by_kind(kind, moves):
    torch.manual_seed(0)
    x = torch.rand(50, 3, 8, 8)
    y = train._augment(x, kind)
    same = [torch.equal(a, b) for a, b in zip(x, y)]
    mirrored = [torch.equal(a.flip(2), b) for a, b in zip(x, y)]
    assert all(same) != moves
    if kind == "flips":
        assert all(a or b for a, b in zip(same, mirrored)) and 10 < sum(mirrored) < 40


@pytest.mark.parametrize(("optimiser", "kind"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_optimiser_is_the_recipe_s(optimiser, kind):
    made = train._optimiser(mdeq.build(TINY, DIGITS, 0), replace(RECIPE, optimiser=optimiser, weight_decay=0.1))
    assert isinstance(made, kind) and made.param_groups[0]["weight_decay"] == 0.1


# ---------------------------------------------------------------------------------------------- begun with another's weights

FIRST = replace(RECIPE, recipe="first", pretrain_steps=100)
THEN = replace(RECIPE, recipe="then", begin=FIRST, epochs=1, gradient="contractive")


def test_a_recipe_begins_with_the_weights_of_another():
    run, first = run_of(replace(THEN, lr=0.0)), run_of(FIRST)
    trained(run)
    for name, value in weights(first).items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(weights(run)[name], value), name
    written = store.own(first, store.WEIGHTS).stat().st_mtime_ns
    trained(run_of(THEN))
    assert store.own(first, store.WEIGHTS).stat().st_mtime_ns == written  # trained once for both


def test_a_recipe_may_begin_with_another_noise_level():
    run = run_of(replace(THEN, lr=0.0, begin=replace(FIRST, recipe="elsewhere"), begin_sigma=0.25))
    trained(run)
    elsewhere = store.own(run.first, store.WEIGHTS)
    assert run.sigma == 0.5 and elsewhere.parent.name == "SMALL-s0.25-elsewhere" and elsewhere.is_file()
    assert not list(elsewhere.parents[1].glob("*s0.50-elsewhere*"))


def test_a_training_in_pieces_goes_through_its_first_part_too():
    whole = run_of(THEN)
    trained(whole)
    unbroken = weights(whole)
    for path in store.own(whole, store.WEIGHTS).parent.glob("*"):
        path.unlink()
    for _ in range(FIRST.epochs + THEN.epochs):
        trained(whole, stop_after=1)
    assert_equal(weights(whole), unbroken)


def test_every_start_of_a_contractive_recipe_is_drawn():
    cold, earlier = torch.zeros(4, 3), torch.arange(12.0).reshape(4, 3)
    torch.manual_seed(0)
    drawn = [losses.start_anywhere(cold, earlier, THEN) for _ in range(60)]
    for want in (cold, earlier, earlier.mean(0).expand(4, 3)):
        assert 8 < sum(torch.equal(z, want) for z in drawn) < 35
    assert all(torch.equal(losses.start_anywhere(cold, None, THEN), cold) for _ in range(20))


def test_a_contractive_recipe_lessens_the_change_of_the_last_step():
    x, y = digits(96)
    changes = {}
    for weight in (0.0, 10.0):
        torch.manual_seed(0)
        recipe = replace(THEN, contraction=Contraction(weight=weight, most_free_steps=2))
        model = mdeq.build(replace(TINY, dropout=0.0), DIGITS, 0).train()
        optimiser = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(20):
            optimiser.zero_grad()
            losses.loss(model, x, y, recipe, pretrain=False, penalise=False)[0].backward()
            optimiser.step()
        with torch.no_grad():
            u = model.eval().inject(x)
            z = model.f(model.f(model.initial(u), u), u)
            changes[weight] = float(relative_residual(z, model.f(z, u)).mean())
    assert changes[10.0] < 0.7 * changes[0.0]
