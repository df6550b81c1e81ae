"""Stored results: integer tallies per image, Cohen et al.'s rows, and provenance. Standard library and numpy.

A tally holds every count that a certificate, a table or a histogram needs, so alpha, the rule and the radii can
change without a network. Files are tab-separated, one line per image, sorted by image.
"""

import ast
import functools
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from srs.store import sealed


@dataclass(frozen=True)
class Tally:
    """The counts of one image under one method; -1 where a count was not taken."""

    idx: int  # position in the test split
    label: int
    c_a: int  # most frequent class of the selection samples; ABSTAIN if no sample had a class
    n: int  # estimation samples
    n_a: int  # of them, votes for c_A
    k: int  # votes for c_A that the auditor (the reference method, or the method's own) solved again, drawn uniformly
    m: int  # of them, those that the auditor calls otherwise
    n_2: int  # votes for c_A among K samples drawn uniformly from all n (Theorem 3.1)
    n_1: int  # of them, those that the auditor calls c_A too
    n_wrong: int  # of the n_a votes, those that the auditor does not give (all n, same noise)
    n_differ: int  # of the n votes, those that differ from the reference method's (same noise)
    nfe_select: int
    nfe_estimate: int
    nfe_audit: int
    seconds: float  # wall time of all three stages


COLUMNS = tuple(f.name for f in fields(Tally))


KINDS = np.dtype([(f.name, np.float64 if f.type is float else np.int64) for f in fields(Tally)])


def write_tallies(path: Path, tallies: Iterable[Tally]) -> None:
    """Write tallies, sorted by image; the file appears whole or not at all."""
    sealed.save(path, _lines([COLUMNS, *(astuple(t) for t in sorted(tallies, key=lambda t: t.idx))]))


def read_tallies(path: Path) -> np.ndarray:
    """The tallies of a file as a structured array: counts["n_a"] is an integer array over images.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
        paths.DamagedFile: a line does not parse, or its counts contradict each other.
    """

    def parse(body: bytes) -> np.ndarray:
        head, *lines = body.decode().splitlines()
        if tuple(head.split("\t")) != COLUMNS:
            raise ValueError
        return checked(np.array([_parse(line) for line in lines], KINDS))

    return sealed.read(path, "result file", parse, by="certify")


def checked(t: np.ndarray) -> np.ndarray:
    """The tallies themselves; ValueError if their counts contradict each other or an image is there twice."""
    taken = {name: t[name] >= 0 for name in ("k", "m", "n_2", "n_1", "n_wrong", "n_differ")}  # -1: not taken
    right = [
        t["idx"] >= 0, t["c_a"] >= -1, t["n"] >= 1, t["n_a"] >= 0, t["n_a"] <= t["n"], (t["c_a"] >= 0) | (t["n_a"] == 0),
        *(taken[name] | (t[name] == -1) for name in taken), t["k"] <= t["n_a"], t["m"] <= t["k"], t["n_2"] <= t["n_a"],
        t["n_1"] <= t["n_2"], t["n_wrong"] <= t["n_a"], t["n_differ"] <= t["n"],
        *(t[name] >= 0 for name in ("nfe_select", "nfe_estimate", "nfe_audit")), ~(t["seconds"] < 0),
        np.diff(t["idx"]) > 0,
    ]  # fmt: skip
    if not all(map(np.all, right)):
        raise ValueError
    return t


def write_rows(path: Path, tallies: np.ndarray, predict: np.ndarray, radius: np.ndarray) -> None:
    """Write certificates in Cohen et al.'s columns (idx label predict radius correct time), full precision."""
    header = ("idx", "label", "predict", "radius", "correct", "time")
    body = [
        (int(t["idx"]), int(t["label"]), int(p), float(r), int(p == t["label"]), float(t["seconds"]))
        for t, p, r in zip(tallies, predict, radius)
    ]
    sealed.write(path, _lines([header, *body]))  # no seal: others read these columns


def provenance(**facts: object) -> dict:
    """What made a result: the given facts with the versions and the machine kind they were computed on."""
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "torch")}
    return {**facts, "python": platform.python_version(), "machine": platform.machine(), **versions}


@functools.cache  # the code that runs is the code that was imported, whatever is edited meanwhile
def code_digest(*places: str) -> str:
    """Sixteen hex digits of what modules or folders of this package compute: they change with the code, not with its comments."""
    home = Path(__file__).parents[1]
    files = [file for place in places for file in ([home / f"{place}.py"] if (home / f"{place}.py").is_file() else sorted((home / place).glob("*.py")))]
    return digest_of_code(*(file.read_text(encoding="utf-8") for file in files))


def digest_of_code(*sources: str) -> str:
    """Sixteen hex digits of what Python sources compute, the same under every release of Python that reads them."""
    return hashlib.sha256("".join(map(_plain_code, map(ast.parse, sources))).encode()).hexdigest()[:16]


def _plain_code(node: object) -> str:
    """A syntax tree as text without docstrings, places and empty fields, in which releases of Python differ; so does `ast.dump`."""
    if isinstance(node, list):
        return f"[{', '.join(map(_plain_code, node))}]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    values = dict(ast.iter_fields(node))
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
        values["body"] = node.body[1:]
    if isinstance(node, ast.JoinedStr):
        values["values"] = [part for part in node.values if getattr(part, "value", None) != ""]  # Python 3.12 adds empty ones
    told = (f"{name}={_plain_code(values[name])}" for name in sorted(values) if values[name] not in (None, []))
    return f"{type(node).__name__}({', '.join(told)})"


def _lines(rows: list[tuple]) -> bytes:
    return "".join("\t".join(map(_text, row)) + "\n" for row in rows).encode()


def _parse(line: str) -> tuple:
    return tuple(f.type(v) for f, v in zip(fields(Tally), line.split("\t"), strict=True))


def _text(value: object) -> str:
    return repr(value) if isinstance(value, float) else str(value)
