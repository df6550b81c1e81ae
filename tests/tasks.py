"""Work for the tests' workers, in a module that is imported in no time: each of them imports it."""

import os
import time
from pathlib import Path

from srs.settings import ConfigError


def troubled(number: int, folder: Path) -> int:
    """A task that leaves its mark, and at its first try ends its worker (1) or hangs (0); 7 is refused."""
    first = not (folder / str(number)).exists()
    (folder / str(number)).touch()
    (folder / f"by-{os.getpid()}").touch()
    if number == 7:
        raise ConfigError("seven is refused: want another number")
    if number < 2 and first:
        os._exit(1) if number else time.sleep(120)
    return 10 * number


def at_odds(number: int, folder: Path) -> None:
    """A task that goes on for minutes, and one that is refused once the other is at it."""
    while number == 7 and not any(folder.iterdir()):
        time.sleep(0.05)
    troubled(number, folder)
