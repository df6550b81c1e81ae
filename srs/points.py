"""What attacks did, as stored: a line per attacked image, radius and method. Tables and figures are made from these alone."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from srs import paths, store
from srs.bounds import ABSTAIN
from srs.config import Run
from srs.threats import Attack

NOT_DRAWN = ABSTAIN - 1


@dataclass(frozen=True)
class Point:
    """One attacked image as one method sees it; classes are NOT_DRAWN where nobody was asked."""

    idx: int
    label: int
    attack: str
    radius: float  # allowed
    distance: float  # taken
    base: int  # the base classifier's answer, without noise
    method: str
    n: int  # votes by the method's own sampling; 0: only the base classifier was attacked
    own: int  # the most frequent class among them
    c_a: int  # the class that the method's stored votes select for the image before the attack
    n_confirm: int  # further votes of the reference method, where its first ones contradicted a certificate
    n_c_a: int  # of them, for c_a
    rival: int  # the most frequent other class among them
    n_rival: int  # of them, for it


COLUMNS = tuple(f.name for f in fields(Point))


def folder(run: Run) -> Path:
    """Where all of a run's attacks lie."""
    return paths.work(run.profile) / "attacks" / run.id


def points_file(run: Run, attack: Attack) -> Path:
    """The lines of one attack."""
    return folder(run) / f"{attack.name.replace(' ', '-')}.tsv"


def write(path: Path, points: Iterable[Point]) -> None:
    """Write lines, tab-separated; the file appears whole or not at all."""
    lines = [COLUMNS, *map(astuple, points)]
    store.save(path, "".join("\t".join(map(str, line)) + "\n" for line in lines).encode())


def read(path: Path) -> list[Point]:
    """Read lines.

    Raises:
        config.ConfigError: there is no such file.
        paths.DamagedFile: a line does not parse; the file has been set aside.
    """
    def parse(body: bytes) -> list[Point]:
        head, *lines = body.decode().splitlines()
        if tuple(head.split("\t")) != COLUMNS:
            raise ValueError
        return [Point(*(f.type(v) for f, v in zip(fields(Point), line.split("\t"), strict=True))) for line in lines]

    return store.read(path, "file of attack results", parse, by="srs.attacks")
