"""Weight files: written and read back, public layouts, and what is refused without running its code."""

import argparse
import io
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from srs import profiles
from srs.deq import checkpoints, mdeq
from srs.profiles import DIGITS, DIGITS_SMALL
from srs.settings import ConfigError
from srs.sealed import DamagedFile


@pytest.fixture
def small():
    """An untrained digits model."""
    return mdeq.build(DIGITS_SMALL, DIGITS, 4).eval()


def assert_same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_saved_weights_load(tmp_path, small):
    path = tmp_path / "deep" / "w.safetensors"
    checkpoints.save(small, path)
    again = checkpoints.load(path, DIGITS_SMALL, DIGITS)
    assert_same_weights(again, small)
    assert not again.training
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]  # no half-written file stays


PUBLIC = {
    "bare": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "best_perf": 0.5},
    "module.": lambda s: {f"module.{k}": v for k, v in s.items()},
    "1.": lambda s: {f"1.{k}": v for k, v in s.items()},
    "module.1.": lambda s: {"state_dict": {f"module.1.{k}": v for k, v in s.items()}},
    "1.module.": lambda s: {"state_dict": {f"1.module.{k}": v for k, v in s.items()}},
    "model.": lambda s: {"model": {f"module.model.{k}": v for k, v in s.items()}, "args": {"lr": 0.1}},
    "copy": lambda s: s | {k.replace("fullstage.", "fullstage_copy."): v for k, v in s.items() if k.startswith("fullstage.")},
    "no batches": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("ending", [".pth", ".pth.tar"])
@pytest.mark.parametrize("wrap", PUBLIC.values(), ids=PUBLIC)
def test_public_checkpoints_load(tmp_path, small, wrap, ending):
    path = tmp_path / f"public{ending}"
    torch.save(wrap(small.state_dict()), path)
    assert_same_weights(checkpoints.load(path, DIGITS_SMALL, DIGITS), small)


class Harmful:
    """What pickle turns into a call when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("write", [lambda o: pickle.dumps(o, 2), lambda o: (b := io.BytesIO(), torch.save(o, b))[0].getvalue()])
def test_code_in_a_checkpoint_is_not_run(tmp_path, small, write):
    path, touched = tmp_path / "harmful.pth", tmp_path / "touched"
    content = write({"state_dict": small.state_dict(), "x": Harmful(touched)})
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"harmful\.pth.*torch\.save\(model\.state_dict\(\), FILE\)"):
        checkpoints.load(path, DIGITS_SMALL, DIGITS)
    assert not touched.exists()
    pickle.loads(content) if content[:2] != b"PK" else torch.load(io.BytesIO(content), weights_only=False)
    assert touched.exists()  # it would have been


def write(state, path):
    """Weights as safetensors or as torch.save writes them, by the ending."""
    (save_file if path.suffix == ".safetensors" else torch.save)({k: v.contiguous() for k, v in state.items()}, path)


OTHER = {
    "larger": lambda s: mdeq.build(profiles.DIGITS_LARGE, DIGITS, 0).state_dict(),
    "classes": lambda s: mdeq.build(DIGITS_SMALL, replace(DIGITS, classes=7), 0).state_dict(),
    "missing": lambda s: {k: v for k, v in s.items() if k != "classifier.bias"},
    "extra": lambda s: s | {"novel": torch.zeros(1)},
}


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_weights_of_another_architecture_are_refused_and_kept(tmp_path, small, ending, change):
    path = tmp_path / f"other{ending}"
    write(change(small.state_dict()), path)
    with pytest.raises(ConfigError, match=rf"other{ending}.*SMALL on digits.*\['.+'\] differs"):
        checkpoints.load(path, DIGITS_SMALL, DIGITS)
    assert path.is_file()


FOREIGN = {
    "numpy.*scalar": lambda s: {"state_dict": s, "best": np.float64(0.5)},
    "argparse.Namespace": lambda s: {"state_dict": s, "args": argparse.Namespace(lr=1)},
    "torch.nn.modules.linear.Linear": lambda s: torch.nn.Linear(2, 2),
    "'epoch'": lambda s: s | {"epoch": 3},
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_of_more_than_tensors_is_left_and_the_sentence_says_how_to_convert_it(tmp_path, small, name, zipped):
    path = tmp_path / "mine.pth"
    torch.save(FOREIGN[name](small.state_dict()), path, _use_new_zipfile_serialization=zipped)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=rf"mine\.pth.*torch\.save\(model\.state_dict\(\), FILE\).*{name}"):
        checkpoints.load(path, DIGITS_SMALL, DIGITS)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["mine.pth"]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1j])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_weights_that_are_not_finite_and_real_are_refused(tmp_path, small, value, ending):
    state = small.state_dict()
    write(state | {"classifier.bias": state["classifier.bias"] + value}, tmp_path / f"w{ending}")
    with pytest.raises(ConfigError, match=r"w\..*finite real weights.*classifier\.bias"):
        checkpoints.load(tmp_path / f"w{ending}", DIGITS_SMALL, DIGITS)


DAMAGE = {
    "empty": lambda b: b"", "cut": lambda b: b[: len(b) // 2], "text": lambda b: b"not weights at all\n" * 9,
    "zeros": lambda b: bytes(500), "head": lambda b: bytes([b[0] ^ 0xFF]) + b[1:],
}


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("own", [True, False], ids=["ours", "the user's"])
def test_damaged_weights_are_set_aside_if_they_are_ours(srs_root, small, damage, ending, own):
    path = (srs_root / "data" / "smoke" / "models" if own else srs_root / "mine") / f"w{ending}"
    path.parent.mkdir(parents=True)
    write(small.state_dict(), path)
    content = damage(path.read_bytes())
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=rf"w{ending} is damaged"):
        checkpoints.load(path, DIGITS_SMALL, DIGITS)
    assert path.exists() is not own
    assert (path.with_name(path.name + ".damaged") if own else path).read_bytes() == content
