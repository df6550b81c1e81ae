"""What a stored result is filed under: another image, weight, device or release of torch is never taken for the same."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from srs import data, profiles, settings, store
from srs.attacks import attack
from srs.deq import inference, memory
from srs.experiments import ablations, bench, speed
from srs.settings import ConfigError, Method, Sampling
from srs.smoothing import certify, votes
from srs.training import train
from tests.helpers import save_untrained, smoke_run
from tests.test_certify import (
    CHAIN, METHODS, RUN, SAMPLING, all_counts, certified, done, finished, half_space, vote_files,
)  # fmt: skip  # noqa: F401
from tests.test_train import make_small, run_of

LOAD = data.load


def change_images(patch, change):
    """Let the same positions of every split be other images."""
    patch.setattr(data, "load", lambda which, split: change(LOAD(which, split)))


def darker(images):
    return images._replace(pixels=images.pixels / 2)


def relabelled(images):
    return images._replace(labels=(images.labels + 1) % 10)


def elsewhere(images):
    return images._replace(source="the same images from another folder")


def drawn_by(call, patch):
    """How many images a call draws votes of."""
    draw, drawn = votes.draw_votes, []
    patch.setattr(votes, "draw_votes", lambda *a, **k: drawn.append(k["idx"]) or draw(*a, **k))
    call()
    return len(drawn)


@pytest.mark.parametrize("change", [darker, relabelled, elsewhere])
def test_other_images_are_certified_anew(done, monkeypatch, change):  # noqa: F811
    old = {file: file.read_bytes() for file in vote_files()}
    with monkeypatch.context() as patch:
        change_images(patch, change)
        assert certify.tally(RUN) == []
        assert drawn_by(certified, patch) == len(METHODS) * len(RUN.profile.evaluated)
        assert (all_counts() != done) == (change is not elsewhere)
        told = json.loads(vote_files()[0].with_name("provenance.json").read_text())
        assert told["data"] == change(LOAD(profiles.DIGITS, "test")).source
    assert {file: file.read_bytes() for file in old} == old  # nobody's votes are lost
    assert drawn_by(certified, monkeypatch) == 0 and all_counts() == done


def test_one_other_image_is_certified_alone(done, monkeypatch):  # noqa: F811
    where = RUN.profile.evaluated[1]
    change_images(monkeypatch, lambda images: images._replace(pixels=images.pixels.index_fill(0, torch.tensor(where), 0.5)))
    assert drawn_by(certified, monkeypatch) == len(METHODS)


def test_further_images_leave_the_votes_of_the_first_alone(done, monkeypatch):  # noqa: F811
    more = replace(RUN, profile=replace(RUN.profile, images=4))
    assert drawn_by(lambda: certified(more), monkeypatch) == len(METHODS)


@pytest.mark.parametrize("where", [(inference, "device_name", lambda device: "another CPU"), (torch, "__version__", "9.9")])
def test_another_device_and_another_torch_have_votes_of_their_own(done, monkeypatch, where):  # noqa: F811
    monkeypatch.setattr(*where)
    assert certify.tally(RUN) == []
    assert drawn_by(certified, monkeypatch) == len(METHODS) * len(RUN.profile.evaluated)


def test_stored_votes_are_counted_without_their_images(done, monkeypatch):  # noqa: F811
    certified()
    monkeypatch.setattr(data, "at_hand", lambda *_: False)
    monkeypatch.setattr(data, "load", lambda *_: pytest.fail("the images were asked for"))
    assert set(certified()) == set(METHODS) and all_counts() == done


def test_images_that_change_meanwhile_are_refused(done, monkeypatch):  # noqa: F811
    shutil.rmtree(store.own(RUN, "votes"))
    monkeypatch.setattr(memory, "keep_freed", lambda: change_images(monkeypatch, darker))  # after the key is made
    with pytest.raises(ConfigError, match="image 0 = 'another one than a moment ago'"):
        certified()
    assert not list(store.own(RUN, "votes").rglob("*.npz"))


def test_votes_are_filed_under_the_weights_that_drew_them(done, monkeypatch):  # noqa: F811
    """A training that ends after the key is made and before the model is loaded."""
    shutil.rmtree(store.own(RUN, "votes"))
    old = vote_files()
    monkeypatch.setattr(memory, "keep_freed", lambda: save_untrained(RUN, seed=1))
    assert set(certified()) == set(METHODS)
    assert all(file.is_file() for file in old) and all_counts() == done  # the old model's votes, all of them
    assert not set(old) & set(vote_files()) and certify.tally(RUN) == []


@pytest.mark.parametrize("order", [METHODS, METHODS[::-1], ("SRS-MDEQ-1A", "MDEQ-5A", "MDEQ-30A")])
def test_tallies_do_not_depend_on_the_order_of_methods(done, order):  # noqa: F811
    store.own(RUN, store.COUNTS).unlink()
    hidden = {name: vote_files(name=name)[0].parent for name in METHODS}
    for name, folder in hidden.items():
        folder.rename(folder.with_name(f"hidden-{name}"))
    for name in order:
        hidden[name].with_name(f"hidden-{name}").rename(hidden[name])
        assert set(certify.certify(RUN, methods=(name,), progress=False)) == {name}
    assert all_counts() == done


def test_another_training_set_is_trained_on_anew(srs_root, monkeypatch):
    make_small(monkeypatch)
    few, run = data.load, run_of()
    first = train.train(run, progress=False).read_bytes()
    asked = []
    monkeypatch.setattr(train, "_train_epoch", lambda *_: asked.append(1))
    train.train(run, progress=False)
    with monkeypatch.context() as patch:  # images that are not there are not missed
        patch.setattr(data, "at_hand", lambda *_: False)
        patch.setattr(data, "load", lambda *_: pytest.fail("the images were asked for"))
        train.train(run, progress=False)
    assert not asked and store.own(run, store.WEIGHTS).read_bytes() == first
    monkeypatch.setattr(data, "load", lambda which, split: darker(few(which, split)))
    train.train(run, progress=False)
    assert len(asked) == run.train.epochs


def test_a_training_is_not_resumed_on_other_images(srs_root, monkeypatch):
    make_small(monkeypatch)
    few, run = data.load, run_of()
    train.train(run, progress=False, stop_after=1)
    assert store.own(run, store.CHECKPOINT).is_file()
    asked = []
    monkeypatch.setattr(train, "_train_epoch", lambda *a: asked.append(a[-2]))
    monkeypatch.setattr(data, "load", lambda which, split: darker(few(which, split)))
    train.train(run, progress=False)
    assert asked == [0, 1, 2]


# ---------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
@pytest.mark.parametrize(
    "call",
    [
        lambda device: certify.certify(RUN, methods=METHODS, device=device, progress=False),
        lambda device: certify.load_model(RUN, device),
        lambda device: train.train(RUN, device=device, progress=False),
        lambda device: attack.run_suite(RUN, RUN.profile.attacks, device=device, progress=False),
        lambda device: ablations.measure(RUN.profile, device=device, progress=False),
        lambda device: speed.measure_agreement(RUN, device=device, progress=False),
        lambda device: bench.compare(RUN, bench.contenders_of(RUN, 4), repetitions=1, copies=4, device=device, progress=False),
    ],
    ids=["certify", "load", "train", "attacks", "ablations", "agreement", "bench"],
)
def test_a_device_that_is_not_here_is_refused_before_work(done, srs_root, device, call):  # noqa: F811
    before = {path: path.stat().st_mtime_ns for path in srs_root.rglob("*")}
    with pytest.raises(ConfigError, match=f"^device = {device!r} is refused: want cpu"):
        call(device)
    assert {path: path.stat().st_mtime_ns for path in srs_root.rglob("*")} == before  # no provenance, either


@pytest.mark.parametrize("device", ["meta", "CPU", "", None, 0, *([] if torch.cuda.is_available() else ["cuda"])])
def test_nothing_is_computed_on_what_is_no_device(device):
    inference.check_device("cpu")
    with pytest.raises(ConfigError, match="^device = .* is refused: want cpu"):
        inference.check_device(device)


def test_devices_are_named_as_what_they_are():
    for device, named in {"cpu": "CPU ", "cpu:0": "CPU ", "mps": "mps", "xpu:1": "xpu", "meta": "meta"}.items():
        assert inference.device_name(device).startswith(named)
    assert inference.computed_on("cpu").endswith(f"torch {torch.__version__}")


# ---------------------------------------------------------------------------------------------- numpy's numbers


def test_numpy_scalars_are_settings_like_any_other():
    plain, scalars = Method("M", "anderson", 3, tol=0.1), Method("M", "anderson", np.int64(3), tol=np.float32(0.1))
    assert scalars == plain and type(scalars.steps) is int and type(scalars.tol) is float
    small = Sampling(10, np.int16(5), np.int64(100), np.int64(0), plain)
    same = Sampling(10, 5, 100, 0, plain)
    assert small == same and settings.fingerprint(small) == settings.fingerprint(same)
    assert profiles.get_run("cifar10", "SMALL", np.float32(0.12)) is not None
    assert smoke_run(n=np.int64(40), alpha=np.float64(0.001)) == smoke_run(n=40)
    assert type(smoke_run(np.float32(0.5)).sigma) is float
    assert settings.fingerprint([np.int64(1), np.float32(0.5)]) == settings.fingerprint([1, 0.5])
    for wrong in (np.float64(3), np.bool_(True), np.array([3]), "3"):
        with pytest.raises(ConfigError, match="steps of M"):
            Method("M", "anderson", wrong)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_numpy_noise_levels_are_those_that_they_show(kind):
    assert settings.check_sigma(kind(0.12)) == 0.12
    for wrong in (kind(0), kind("nan"), kind("inf"), np.bool_(True)):
        with pytest.raises(ConfigError, match="sigma = "):
            settings.check_sigma(wrong)


def test_one_image_is_certified_alike_with_numpy_scalars():
    model, x = half_space(0.5)
    a = certify.certify_image(model, x, CHAIN, SAMPLING, sigma=0.5, alpha=0.001)
    b = certify.certify_image(model, x, CHAIN, SAMPLING, sigma=np.float32(0.5), alpha=np.float32(0.001))
    assert (a.predict, a.radius, a.p_lower) == (b.predict, b.radius, b.p_lower) and a.radius > 0


# ---------------------------------------------------------------------------------------------- code

SOURCE = '''
"""A docstring."""
import math  # a comment

LIMIT: float = 1e-3

class Point:
    """Another one."""

    x: int = 0

    def far(self, *others, by=2.5, **more):
        """And another."""
        found = [f"{o.x!r:>{by}} of {self.x}" for o in others if o is not None and o.x != -1]
        return found or {"π": None, **more}, (lambda a, /: a ** 2)(self.x), b"\\x00", 1j, ...
'''


def test_the_digest_of_code_is_that_of_every_release_of_python():
    assert store.digest_of_code(SOURCE) == "83656524f7734577"


def test_the_digest_of_code_follows_what_it_computes():
    other = SOURCE.replace('"""And another."""', '"""Said otherwise."""').replace("# a comment", "").replace("math  ", "math")
    assert other != SOURCE and store.digest_of_code(other) == store.digest_of_code(SOURCE)
    changes = [("2.5", "2.6"), ("is not None", "is None"), ("/: a", ": a"), ("**more}", "'m': more}"), ("or {", "and {")]
    digests = {store.digest_of_code(SOURCE.replace(*change)) for change in changes}
    assert len(digests | {store.digest_of_code(SOURCE)}) == len(changes) + 1
    assert len({store.digest_of_code("a", "b"), store.digest_of_code("b", "a"), store.digest_of_code("a\nb")}) == 3
