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
from srs.settings import ConfigError


@pytest.fixture(scope="module")
def small():
    """An untrained digits model."""
    return mdeq.build(DIGITS_SMALL, DIGITS, 4).eval()


def load(path):
    return checkpoints.load(path, DIGITS_SMALL, DIGITS)


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
    ours, theirs = small.state_dict(), PUBLIC.get(layout)
    checkpoints.save_tensors(ours, path) if layout == "ours" else torch.save(theirs(ours), path)
    again = load(path)
    a, b = again.state_dict(), small.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) and not again.training
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no half-written file stays


def test_what_holds_more_than_tensors_is_left_no_code_of_it_is_run_and_the_sentence_says_how_to_convert_it(tmp_path, small):
    path, touched = tmp_path / "mine.pth", tmp_path / "touched"
    harmful = type("Harmful", (), {"__reduce__": lambda _: (Path.touch, (touched,))})()  # a call, once pickle reads it
    for content in (torch.nn.Linear(2, 2), {"state_dict": {}, "args": argparse.Namespace(lr=1)}, {"x": harmful}):
        torch.save(content, path)
        with pytest.raises(ConfigError, match=r"mine\.pth.*torch\.save\(model\.state_dict\(\), FILE\)"):
            load(path)
        assert [p.name for p in tmp_path.iterdir()] == ["mine.pth"]
    torch.load(path, weights_only=False)
    assert touched.exists()  # it would have been


REFUSED = {
    "weights of SMALL on digits": lambda s: mdeq.build(profiles.DIGITS_LARGE, DIGITS, 0).state_dict(),
    "size mismatch for classifier.weight": lambda s: mdeq.build(DIGITS_SMALL, replace(DIGITS, classes=7), 0).state_dict(),
    'Missing key.* "classifier.bias"': lambda s: {k: v for k, v in s.items() if k != "classifier.bias"},
    'Unexpected key.* "novel"': lambda s: s | {"novel": torch.zeros(1)},
    "finite weights.*classifier.bias": lambda s: s | {"classifier.bias": s["classifier.bias"] + torch.nan},
}


@pytest.mark.parametrize("message", REFUSED)
def test_weights_of_another_architecture_or_not_finite_are_refused_and_kept(tmp_path, small, message):
    path = tmp_path / "other.safetensors"
    save_file({k: v.contiguous() for k, v in REFUSED[message](small.state_dict()).items()}, path)
    with pytest.raises(ConfigError, match=rf"other\.safetensors.*{message}"):
        load(path)
    assert path.is_file()
