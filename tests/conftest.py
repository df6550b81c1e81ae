"""What every test may ask for: one core, a root of its own, and the development data where there is any."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

from tests.helpers import make_small

torch.set_num_threads(1)
hypothesis.settings.register_profile("same", derandomize=True)  # the same examples in every run: CI cannot flicker
hypothesis.settings.load_profile("same")


def shared_data(*parts: str) -> Path:
    """A file or folder of the development data, at SRS_DATA or ../shared/data; the test is skipped where it is absent."""
    folder = Path(os.environ.get("SRS_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not in the development data; point SRS_DATA at a folder that has it")
    return path


@pytest.fixture
def shared():
    """`shared_data`, to be called with the parts of a path."""
    return shared_data


@pytest.fixture
def srs_root(tmp_path, monkeypatch) -> Path:
    """An empty SRS_ROOT, so that nothing of the checkout is read or written."""
    monkeypatch.setenv("SRS_ROOT", str(tmp_path))
    monkeypatch.delenv("SRS_DATA", raising=False)
    return tmp_path


@pytest.fixture
def few_images(monkeypatch, srs_root) -> None:
    """A root of its own, where trainings are short."""
    make_small(monkeypatch)
