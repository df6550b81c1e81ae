"""Files that last: written whole, sealed with a digest and with what they belong to, read with refusal. Standard library only.

A sealed file ends in `# sha256 <digest> <belongs>`: the last line of a table, the comment of an archive; in JSON it is a field.
`belongs` is its place in the profile's folder, as `SMALL-s0.50-paper/counts.csv`: no file is taken for that of another run.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from srs.settings import check, ConfigError

T = TypeVar("T")
TRACKED = ("zoo", "results")  # folders of data/ that git keeps


class DamagedFile(RuntimeError):
    """The content of a file is wrong; a file of the work folder was renamed, so that nothing overwrites it."""


def root() -> Path:
    """The folder that holds data/ and figures/: SRS_ROOT, or the checkout this package lies in."""
    return Path(os.environ.get("SRS_ROOT") or Path(__file__).resolve().parents[1])


def _place(path: Path) -> tuple[str, ...]:
    """The parts of a path below data/; none for a file that lies elsewhere."""
    path, data = Path(os.path.abspath(path)), Path(os.path.abspath(root() / "data"))
    return path.relative_to(data).parts if path.is_relative_to(data) else ()


def in_work(path: Path) -> bool:
    """Whether the file is one that this package made and may rename: not the user's own, not a tracked one."""
    return bool(place := _place(path)) and place[0] not in (*TRACKED, "raw")


def belongs(path: Path) -> str:
    """What a file belongs to; the same for a computed file and its tracked copy. Empty for a file outside data/."""
    place = _place(path)
    return "/".join(place[2:] if place[:1] and place[0] in TRACKED else place[1:])


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all: under a name of its own, then moved into place."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_changed(path: Path, content: bytes) -> None:
    """Write a file unless it has that content already."""
    if not path.is_file() or path.read_bytes() != content:
        write(path, content)


def save(path: Path, body: bytes) -> None:
    """Write a sealed file: a table of lines, or a zip archive as numpy and torch make them."""
    if body.startswith(b"PK"):  # the archive's last two bytes say how long its comment is
        body = body[:-2] + len(_seal(b"", path)).to_bytes(2, "little")
    write(path, body + _seal(body, path))


def _seal(body: bytes, path: Path) -> bytes:
    return f"# sha256 {digest(body, belongs(path))} {belongs(path)}\n".encode()


def digest(body: bytes, owner: str) -> str:
    """The SHA-256 of a content and of what it belongs to."""
    return hashlib.sha256(owner.encode() + b"\n" + body).hexdigest()


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file with its digest."""
    content = json.loads(json.dumps(content))  # as it will be read: tuples are lists, keys are strings
    sealed = content | {"sha256": digest(json.dumps(content, sort_keys=True).encode(), belongs(path))}
    write(path, (json.dumps(sealed, indent=1, sort_keys=True) + "\n").encode())


def read(path: Path, what: str, parse: Callable[[bytes], T], *, by: str, plain: bool = False) -> T:
    """What `parse` makes of a file's content without its seal: ConfigError without a file, DamagedFile where `parse` fails.

    `what` is the file in words, `by` the command that makes it, empty if only a notebook does; a `plain` file has no seal.
    """
    makes = f"`make` or `srs {by}`" if by else "`make`"
    check(path.is_file(), what, str(path), f"an existing file; {makes} makes one")
    content = path.read_bytes()
    try:
        if not plain:
            start = content.rindex(b"# sha256 ", -1000)
            content, seal = content[:start], content[start:]
            if seal != _seal(content, path):
                raise ValueError
        return parse(content)
    except ConfigError:
        raise
    except Exception:  # whatever a parser makes of wrong content
        if in_work(path):
            aside = path.with_name(f"{path.name}.damaged")
            with contextlib.suppress(FileNotFoundError):  # another process was first
                path.replace(aside)
            remedy = f"set aside as {aside.name}: run again to remake it, by {makes}"
        else:
            tracked = _place(path)[:1] and f"`git checkout -- {Path('data', *_place(path))}` brings it back"
            remedy = f"left as it is: {tracked or 'get a new copy'}"
        raise DamagedFile(f"{path} is damaged (want a whole {what} of its own); it was {remedy}") from None


def read_json(path: Path, what: str, *, by: str) -> dict:
    """What `write_json` wrote; raises what `read` raises."""

    def parse(content: bytes) -> dict:
        found = json.loads(content)
        if found.pop("sha256") != digest(json.dumps(found, sort_keys=True).encode(), belongs(path)):
            raise ValueError
        return found

    return read(path, what, parse, by=by, plain=True)


@contextlib.contextmanager
def alone(path: Path, work: str) -> Iterator[None]:
    """Hold a lock file; while another process holds it, say so and wait. The kernel frees it with its holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{work}: waiting for another process, which is at it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: go on without
            pass
        yield
