"""Weight files: written and read back, public layouts, and what is refused without running its code."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from srs import profiles
from srs.deq import checkpoints, mdeq
from srs.profiles import DIGITS, DIGITS_SMALL
from srs.sealed import DamagedFile
from srs.settings import ConfigError

ENDINGS = pytest.mark.parametrize("ending", [".safetensors", ".pth"])


@pytest.fixture(scope="module")
def small():
    """An untrained digits model."""
    return mdeq.build(DIGITS_SMALL, DIGITS, 4).eval()


def load(path):
    return checkpoints.load(path, DIGITS_SMALL, DIGITS)


def write(state, path):
    """Weights as safetensors or as torch.save writes them, by the ending."""
    (save_file if path.suffix == ".safetensors" else torch.save)({k: v.contiguous() for k, v in state.items()}, path)


PUBLIC = {
    "ours": None,
    "bare": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "best_perf": 0.5},
    "1.module.": lambda s: {"state_dict": {f"1.module.{k}": v for k, v in s.items()}},
    "model.": lambda s: {"model": {f"module.model.{k}": v for k, v in s.items()}, "args": {"lr": 0.1}},
    "copy": lambda s: s | {k.replace("fullstage.", "fullstage_copy."): v for k, v in s.items() if k.startswith("fullstage.")},
    "no batches": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("layout", PUBLIC)
def test_our_own_weights_and_public_checkpoints_load(tmp_path, small, layout):
    path = tmp_path / "deep" / ("w.safetensors" if layout == "ours" else "public.pth.tar")
    path.parent.mkdir()
    checkpoints.save(small, path) if layout == "ours" else torch.save(PUBLIC[layout](small.state_dict()), path)
    again = load(path)
    a, b = again.state_dict(), small.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) and not again.training
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no half-written file stays


class Harmful:
    """What pickle turns into a call when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_code_in_a_checkpoint_is_not_run(tmp_path, small):
    path, touched = tmp_path / "harmful.pth", tmp_path / "touched"
    torch.save({"state_dict": small.state_dict(), "x": Harmful(touched)}, path)
    with pytest.raises(ConfigError, match=r"harmful\.pth.*torch\.save\(model\.state_dict\(\), FILE\)"):
        load(path)
    assert not touched.exists()
    torch.load(path, weights_only=False)
    assert touched.exists()  # it would have been


REFUSED = {
    "SMALL on digits.*differs": lambda s: mdeq.build(profiles.DIGITS_LARGE, DIGITS, 0).state_dict(),
    r"\['classifier\.weight'\] differs": lambda s: mdeq.build(DIGITS_SMALL, replace(DIGITS, classes=7), 0).state_dict(),
    r"\['classifier\.bias'\] differs": lambda s: {k: v for k, v in s.items() if k != "classifier.bias"},
    r"\['novel'\] differs": lambda s: s | {"novel": torch.zeros(1)},
    r"finite real weights.*classifier\.bias": lambda s: s | {"classifier.bias": s["classifier.bias"] + torch.nan},
    r"finite real weights.*classifier\.bias.*": lambda s: s | {"classifier.bias": s["classifier.bias"] + 1j},
}


@ENDINGS
@pytest.mark.parametrize("message", REFUSED)
def test_weights_of_another_architecture_or_not_finite_are_refused_and_kept(tmp_path, small, ending, message):
    path = tmp_path / f"other{ending}"
    write(REFUSED[message](small.state_dict()), path)
    with pytest.raises(ConfigError, match=rf"other{ending}.*{message}"):
        load(path)
    assert path.is_file()


FOREIGN = {
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
        load(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["mine.pth"]


DAMAGE = {
    "empty": lambda b: b"", "cut": lambda b: b[: len(b) // 2], "text": lambda b: b"not weights at all\n" * 9,
    "head": lambda b: bytes([b[0] ^ 0xFF]) + b[1:],
}


@ENDINGS
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("own", [True, False], ids=["ours", "the user's"])
def test_damaged_weights_are_set_aside_if_they_are_ours(srs_root, small, damage, ending, own):
    path = (srs_root / "data" / "smoke" / "models" if own else srs_root / "mine") / f"w{ending}"
    path.parent.mkdir(parents=True)
    write(small.state_dict(), path)
    content = damage(path.read_bytes())
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=rf"w{ending} is damaged"):
        load(path)
    assert path.exists() is not own
    assert (path.with_name(path.name + ".damaged") if own else path).read_bytes() == content
