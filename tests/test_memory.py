"""memory: freed buffers come back without page faults while they are kept, and only then."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, torch
from srs.deq import memory

def faults():
    x = torch.ones(16 << 20)  # 64 MiB, made anew a few times after it was there once
    x + 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        x + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with memory.as_usual():
    usual = faults()
print(usual, min(faults() for _ in range(5)))  # the least of a few, as the heap settles
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these limits")
def test_kept_memory_is_not_asked_for_again():
    # In a process of its own: what other tests leave in the heap serves a buffer without asking the system.
    counted = subprocess.run([sys.executable, "-c", COUNT], check=True, capture_output=True, text=True)
    usual, kept = map(int, counted.stdout.split())
    assert usual > 1_000 and kept < usual / 10
