"""memory: freed buffers come back without page faults while they are kept, and only then."""

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from srs.deq import memory


def faults(times=4) -> int:
    """Page faults of making a buffer of 64 MiB anew a few times, after it was there once."""
    x = torch.ones(16 << 20)
    x + 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        x + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def count() -> None:
    """Print the page faults as usual and, after that, with memory kept: the least of a few counts, as the heap settles."""
    with memory.as_usual():
        usual = faults()
    print(usual, min(faults() for _ in range(5)))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these limits")
def test_kept_memory_is_not_asked_for_again():
    # In a process of its own: what other tests leave in the heap serves a buffer without asking the system.
    counted = subprocess.run(
        [sys.executable, "-c", "from tests.test_memory import count; count()"], cwd=Path(__file__).parents[1], check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    usual, kept = map(int, counted.stdout.split())
    assert usual > 1_000 and kept < usual / 10


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory, "LIBRARY", object())
    memory.keep_freed()
    with memory.as_usual():
        pass
