"""Tallies counted anew from stored votes: of the first n votes, with K of them audited. One file for all ablations of a run.

A line is a run, a method, K and a `results.Tally`. The file lies with what else was measured of the run, so that it is
shipped with it, and tables need neither votes nor a network.
"""

from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path
from typing import NamedTuple

import numpy as np

from srs.settings import Run
from srs.store.sealed import results, sealed, shipped

NAME = "ablations"


class Key(NamedTuple):
    """What was counted: the first n votes of a method on a run's model, k of those for c_A audited."""

    run: str
    method: str
    n: int
    k: int


Recounts = dict[Key, np.ndarray]  # tallies as `results.read_tallies` gives them, sorted by image

COLUMNS = ("run", "method", "K", *results.COLUMNS)


def write(path: Path, counted: dict[Key, Iterable[results.Tally]]) -> None:
    """Write tallies under their keys; the file appears whole or not at all."""
    lines = [COLUMNS]
    for key, tallies in counted.items():
        lines += [(key.run, key.method, key.k, *astuple(t)) for t in sorted(tallies, key=lambda t: t.idx)]
    sealed.save(path, "".join(",".join(map(str, line)) + "\n" for line in lines).encode())


def read(path: Path) -> Recounts:
    """The tallies of a file by key.

    Raises:
        paths.DamagedFile: a line does not parse; the file has been set aside.
    """
    def parse(body: bytes) -> Recounts:
        head, *lines = body.decode().splitlines()
        if tuple(head.split(",")) != COLUMNS:
            raise ValueError
        found: dict[Key, list[tuple]] = {}
        for line in lines:
            run, method, k, *counts = line.split(",")
            *whole, seconds = counts
            tally = (*map(int, whole), float(seconds))
            if len(tally) != len(results.COLUMNS):
                raise ValueError
            found.setdefault(Key(run, method, tally[results.COLUMNS.index("n")], int(k)), []).append(tally)
        return {key: results.checked(np.array(tallies, results.KINDS)) for key, tallies in found.items()}

    return sealed.read(path, "table of recounts", parse, by="srs.ablations")


def stored(run: Run) -> Recounts:
    """What was counted of a run here, or what is shipped of it; empty if there is neither."""
    path = shipped.measured(run, NAME)
    return read(path) if path else {}
