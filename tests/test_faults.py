"""A few of the faults of `tests.faults`: nothing is lost, doubled, other than in an unbroken run, or left running."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_a_few_faults_leave_nothing_behind():
    words = [sys.executable, "-m", "tests.faults", "--short"]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    named = {line.split("|")[1].strip() for line in done.stdout.splitlines()}
    assert {"damaged npz", "two runs at once", "driver killed, two workers"} <= named
