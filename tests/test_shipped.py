"""Trained weights that are shipped, copied, cut or flipped: taken whole, told and left, or trained anew."""

import json
import shutil
from dataclasses import replace

import pytest
import safetensors.torch

from srs import store
from srs.sealed import DamagedFile
from srs.training import train
from tests.test_train import ONE, assert_equal, quick, run_of, trained, weights  # noqa: F401


def test_shipped_weights_of_the_same_recipe_are_taken_unless_told_to_retrain(monkeypatch):
    run = run_of(ONE)
    trained(run)
    made = weights(run)
    profile = replace(run.profile, plan=(replace(run, profile=None),))
    assert {path.name for path in store.ship(profile)} == {
        path.name for path in (store.own(run, store.WEIGHTS), store.own(run, store.ANCHOR), store.own(run, store.CARD))
    }
    for path in store.own(run, store.WEIGHTS).parent.glob("*"):
        path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(train, "_train_epoch", lambda *args: pytest.fail("trained"))
        trained(run)
        assert json.loads(store.own(run, store.CARD).read_text())["shipped"] and store.own(run, store.ANCHOR).is_file()
        assert_equal(weights(run), made)
        other = run_of(replace(ONE, lr=1e-4))
        with pytest.raises(pytest.fail.Exception, match="trained"):
            trained(other)
        with pytest.raises(pytest.fail.Exception, match="trained"):
            trained(run, retrain=True)
    assert store.ship(profile) == []  # a copy of what is shipped is not shipped again


def flip(content: bytes) -> bytes:
    """One bit near the end."""
    return content[:-40] + bytes([content[-40] ^ 1]) + content[-39:]


def shelve(run) -> dict[str, bytes]:
    """Train a run, put it into the zoo and empty the work folder; what training made."""
    trained(run)
    made = {path.name: path.read_bytes() for path in (store.own(run, store.WEIGHTS), store.own(run, store.ANCHOR))}
    store.ship(replace(run.profile, plan=(replace(run, profile=None),)))
    shutil.rmtree(store.own(run, store.WEIGHTS).parent)
    return made


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"


@pytest.mark.parametrize("ending", [store.WEIGHTS, store.ANCHOR, store.CARD])
@pytest.mark.parametrize(
    "damage", [lambda b: POINTER, lambda b: b[:-9], flip], ids=["a pointer of Git LFS", "cut", "bit"],
)  # fmt: skip
def test_damaged_weights_in_the_zoo_are_left_and_not_copied(ending, damage):
    run = run_of(ONE)
    shelve(run)
    path = store.tracked(run, ending)
    content = damage(path.read_bytes())
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(DamagedFile, match=rf"{path.name} .*git checkout -- data/zoo"):
            trained(run)
    assert path.read_bytes() == content
    assert {p.suffix for p in store.own(run, "").iterdir()} <= {".lock"}


def test_a_bit_flipped_in_weights_without_a_seal_is_found_by_their_card():
    """Weights that were shipped before there were seals."""
    run = run_of(ONE)
    shelve(run)
    path = store.tracked(run, store.WEIGHTS)
    plain = safetensors.torch.save(safetensors.torch.load(path.read_bytes()))
    path.write_bytes(plain)
    trained(run)
    path.write_bytes(flip(plain))
    with pytest.raises(DamagedFile, match=rf"{path.name} .*git checkout -- data/zoo"):
        trained(run)


@pytest.fixture
def no_training_later(monkeypatch):
    return lambda: monkeypatch.setattr(train, "_train_epoch", lambda *args: pytest.fail("trained"))


def test_shipped_weights_are_copied_only_if_they_differ(no_training_later):
    run = run_of(ONE)
    made = shelve(run)
    no_training_later()
    trained(run)
    path = store.own(run, store.WEIGHTS)
    kept = path.stat()
    with path.open("rb") as reader:  # a reader keeps what it opened
        trained(run)
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        inode = path.stat().st_ino
        trained(run)
        assert reader and path.stat().st_ino != inode
    assert {p.name: p.read_bytes() for p in path.parent.glob("*.safetensors")} == made


@pytest.mark.parametrize("damage", [None, lambda b: b[:-9], flip], ids=["missing", "cut", "bit"])
def test_an_anchor_is_remade_from_the_weights_without_training(no_training_later, damage):
    run = run_of(ONE)
    trained(run)
    no_training_later()
    path = store.own(run, store.ANCHOR)
    whole = path.read_bytes()
    path.write_bytes(damage(whole)) if damage else path.unlink()
    trained(run)
    assert path.read_bytes() == whole


def test_damaged_weights_are_told_by_training_and_trained_anew():
    run = run_of(ONE)
    trained(run)
    path = store.own(run, store.WEIGHTS)
    whole = path.read_bytes()
    path.write_bytes(flip(whole))
    with pytest.raises(DamagedFile, match=rf"{path.name} .*set aside as {path.name}\.damaged: run again"):
        trained(run)
    trained(run)
    assert path.read_bytes() == whole
