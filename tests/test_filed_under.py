"""What a stored result is filed under: another image, weight, device or release of torch is never taken for the same."""

import shutil
from dataclasses import replace

import pytest
import torch

from srs import data, settings, store
from srs.attacks import attack
from srs.deq import inference
from srs.experiments import ablations
from srs.settings import ConfigError
from srs.smoothing import certify, votes
from srs.training import train
from tests import synthetic
from tests.helpers import save_untrained, smoke_run, untrained_root

RUN = smoke_run(images=2, n0=4, n=20)
METHODS = ("MDEQ-30A", "MDEQ-5A", "SRS-MDEQ-1A")
ALL = len(METHODS) * RUN.profile.images
LOAD = data.load


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A root where RUN is certified on an untrained model, and its counts."""
    with untrained_root(tmp_path_factory, RUN, METHODS) as root:
        yield root, counts()


@pytest.fixture
def done(finished, srs_root):
    """A copy of it, and its counts."""
    shutil.copytree(finished[0], srs_root, dirs_exist_ok=True)
    return finished[1]


def certified(run: settings.Run = RUN, methods=METHODS) -> list[str]:
    return certify.certify(run, methods=methods, progress=False)


def counts() -> dict:
    return {name: [tuple(row)[:-1] for row in synthetic.counted(RUN, RUN.profile.method(name))] for name in METHODS}


def vote_files() -> dict:
    return {file: file.read_bytes() for file in store.own(RUN, "votes").rglob("*.npz")}


def change_images(patch, change):
    patch.setattr(data, "load", lambda which, split: change(LOAD(which, split)))


def darker(images):
    return images._replace(pixels=images.pixels / 2)


def drawn_by(call, patch):
    draw, drawn = votes.draw_votes, []
    patch.setattr(votes, "draw_votes", lambda *a, **k: drawn.append(k["idx"]) or draw(*a, **k))
    call()
    return len(drawn)


@pytest.mark.parametrize("change", [darker, lambda images: images._replace(labels=(images.labels + 1) % 10)])
def test_other_images_are_certified_anew(done, monkeypatch, change):
    old = vote_files()
    with monkeypatch.context() as patch:
        change_images(patch, change)
        assert certify.count_run(RUN) == []
        assert drawn_by(certified, patch) == ALL
    assert vote_files().items() >= old.items()  # nobody's votes are lost
    assert drawn_by(certified, monkeypatch) == 0 and counts() == done


def test_only_what_is_new_is_drawn_and_counted_in_any_order_of_methods(done, monkeypatch):
    where = RUN.profile.evaluated[1]
    with monkeypatch.context() as patch:
        change_images(patch, lambda images: images._replace(pixels=images.pixels.index_fill(0, torch.tensor(where), 0.5)))
        assert drawn_by(certified, patch) == len(METHODS)
    assert drawn_by(lambda: certified(replace(RUN, profile=replace(RUN.profile, images=4))), monkeypatch) == 2 * len(METHODS)
    store.own(RUN, store.COUNTS).unlink()
    assert drawn_by(lambda: [certified(methods=(name,)) for name in METHODS[::-1]], monkeypatch) == 0 and counts() == done


@pytest.mark.parametrize("where", [(inference, "device_name", lambda device: "another CPU"), (torch, "__version__", "9.9")])
def test_another_device_and_another_torch_have_votes_of_their_own(done, monkeypatch, where):
    monkeypatch.setattr(*where)
    assert certify.count_run(RUN) == []
    assert drawn_by(certified, monkeypatch) == ALL


def test_weights_that_change_meanwhile_are_not_mixed_up(done, monkeypatch):
    """What is read when the key is made is what votes are drawn from."""
    shutil.rmtree(store.own(RUN, "votes"))
    read = certify.read_inputs
    with monkeypatch.context() as patch:
        patch.setattr(certify, "read_inputs", lambda *a: (read(*a), save_untrained(RUN, seed=1))[0])
        certified()
    assert counts() == done and certify.count_run(RUN) == []  # the old model's votes, all of them


def test_a_training_is_neither_taken_for_done_nor_resumed_on_other_images(srs_root, monkeypatch):
    def few(which, split):
        images = LOAD(which, split)
        return images._replace(pixels=images.pixels[:48], labels=images.labels[:48])

    run, asked = smoke_run(card_images=2), []
    monkeypatch.setattr(data, "load", few)
    train.train(run, progress=False, stop_after=1)
    monkeypatch.setattr(train, "_train_epoch", lambda *_: asked.append(1))
    for load, epochs in ((lambda *which: darker(few(*which)), 1), (lambda *which: darker(few(*which)), 1), (few, 2)):
        monkeypatch.setattr(data, "load", load)
        train.train(run, progress=False)
        assert len(asked) == epochs * run.train.epochs
    monkeypatch.setattr(data, "at_hand", lambda *_: False)  # images that are not there are not missed
    monkeypatch.setattr(data, "load", lambda *_: pytest.fail("the images were asked for"))
    train.train(run, progress=False)


@pytest.mark.parametrize("device", ["cuda:99", "meta", "", None])
@pytest.mark.parametrize("call", [
    lambda device: certify.certify(RUN, methods=METHODS, device=device, progress=False),
    lambda device: train.train(RUN, device=device, progress=False),
    lambda device: attack.run_suite(RUN, RUN.profile.attacks, device=device, progress=False),
    lambda device: ablations.measure(RUN.profile, device=device, progress=False),
], ids=["certify", "train", "attacks", "ablations"])  # fmt: skip
def test_a_device_that_is_not_here_is_refused_before_work(srs_root, device, call):
    with pytest.raises(ConfigError, match=f"^device = {device!r} is refused: want cpu"):
        call(device)
    assert [*srs_root.iterdir()] == []


def test_the_digest_of_code_follows_what_it_computes(tmp_path):
    def digest(source: str, *, name: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        return store.code_digest(name, home=tmp_path)

    source = '"""Said."""\nimport math\n\n# why\ndef far(a, /, *, by=2.5):\n'
    source += '    """Said, too,\n    twice."""\n    return f"{a and by}" or None\n'
    same = source.replace("too,\n    twice", "otherwise").replace("# why\n", "").replace("math\n", "math  \n\n")
    changes = [("2.5", "2.6"), ("/, ", ""), ("and", "or"), ("None", "'None'"), ("far", "near")]
    digests = {digest(source.replace(*change), name=f"changed{i}") for i, change in enumerate(changes)}
    assert digest(same, name="same") == digest(source, name="source") == "b5f45821e9c6d143"
    assert len(digests | {digest(source, name="source"), store.code_digest("source", "source", home=tmp_path)}) == 7
