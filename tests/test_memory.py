"""memory: freed buffers come back without page faults while they are kept, and only then."""

import platform
import resource

import pytest
import torch

from srs import memory


def faults(times=4) -> int:
    """Page faults of making a buffer of 64 MiB anew a few times, after it was there once."""
    x = torch.ones(16 << 20)
    x + 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        x + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def fewest() -> int:
    """The least of a few counts: what other tests have left in the heap may still be cut up in the first of them."""
    return min(faults() for _ in range(5))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these limits")
def test_kept_memory_is_not_asked_for_again():
    memory.keep_freed()
    kept = fewest()
    with memory.as_usual():
        usual = max(faults() for _ in range(5))  # what the heap still holds may serve some of them
    assert usual > 1_000 and kept < usual / 10 and fewest() < usual / 10


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory, "LIBRARY", object())
    memory.keep_freed()
    with memory.as_usual():
        pass
