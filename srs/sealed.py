"""Files that last: written whole, sealed with a digest and with what they belong to, read with refusal. Standard library only.

A sealed file ends in `# sha256 <digest> <belongs>`: the last line of a table, the comment of an archive. `belongs` is where
below the profile's folder the file lies, as `SMALL-s0.50-paper/counts.csv`, so that a file of another run, method or image is
not taken for its own. JSON files hold the digest as the field `sha256`.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from srs.settings import check, ConfigError

T = TypeVar("T")
TRACKED = ("zoo", "results")  # folders of data/ that git keeps
HERE, HOUR = socket.gethostname().encode().hex(), 3600


class DamagedFile(RuntimeError):
    """The content of a file is wrong; a file of the work folder was renamed, so that nothing overwrites it."""


def environment(name: str) -> str | None:
    """The value of a variable of the environment; None where it is unset or empty."""
    return os.environ.get(name) or None


def root() -> Path:
    """The folder that holds data/ and figures/: SRS_ROOT, or the checkout this package lies in."""
    return Path(environment("SRS_ROOT") or Path(__file__).resolve().parents[1])


# ------------------------------------------------------------------------------------------------ where a file lies


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


def present(path: Path) -> bool:
    """Whether the file is there; ConfigError where something else is in its place, or one may not look."""
    try:
        with _told(path, "a file that can be read", FileNotFoundError):
            path.stat()
    except FileNotFoundError:
        return False
    check(path.is_file(), "file", str(path), "a file; remove or rename what is in its place")
    return True


@contextlib.contextmanager
def _told(path: Path, right: str, *silent: type[OSError]) -> Iterator[None]:
    """Turn the system's refusal into a sentence, but for errors that the caller knows what to do with."""
    try:
        yield
    except silent:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; it is left as it is: want {right}, then run again") from None


# ------------------------------------------------------------------------------------------------ writing


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all: under a name that no other process has, then moved into place.

    Raises:
        ConfigError: a full disk, no permission, or a folder of that name.
    """
    part = path.with_name(f"{path.name}.{HERE}-{os.getpid()}-{secrets.token_hex(4)}.part")
    with _told(path, f"space and permission to write in {path.parent}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(f"{path.name}.*.part"):
            with contextlib.suppress(FileNotFoundError):
                if _abandoned(old):
                    old.unlink()
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _abandoned(part: Path) -> bool:
    """Whether who wrote a temporary file was killed; of another machine's processes only its age tells."""
    host, process = part.name.split(".")[-2].split("-")[:2]
    if host == HERE and Path("/proc/self").exists():
        return not Path("/proc", process).exists()
    return time.time() - part.stat().st_mtime > HOUR


def write_changed(path: Path, content: bytes) -> None:
    """Write a file unless it has that content already."""
    with contextlib.suppress(OSError):  # not there, or another process is at it
        if path.read_bytes() == content:
            return
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


# ------------------------------------------------------------------------------------------------ reading


def read(path: Path, what: str, parse: Callable[[bytes], T], *, by: str, plain: bool = False) -> T:
    """What a file holds, once its seal was checked.

    Args:
        path, what: the file, and what it is in words.
        parse: makes the result of the content without its seal; any error of it means that the content is wrong.
        by: the command that makes the file; empty if only a notebook does.
        plain: the file has no seal, or `parse` checks it.

    Raises:
        ConfigError: no such file, no permission, an I/O error, a folder in its place; it is left as it is.
        DamagedFile: the content is wrong. A file of the work folder has been set aside, another is left as it is.
    """
    check(present(path), what, str(path), f"an existing file; {_command(path, by)} makes one")
    with _told(path, "a file that can be read"):
        content = path.read_bytes()
    try:
        return parse(content if plain else _opened(content, path))
    except ConfigError:
        raise
    except MemoryError:
        raise ConfigError(f"{path} does not fit in memory ({what}); it is left as it is: remove it and run again") from None
    except Exception:  # whatever a parser makes of wrong content
        raise damaged(path, what, by) from None


def _opened(content: bytes, path: Path) -> bytes:
    """The content without its seal; ValueError if the seal is not the file's own."""
    start = content.rindex(b"# sha256 ", -1000)
    if content[start:] != _seal(content[:start], path):
        raise ValueError
    return content[:start]


def damaged(path: Path, what: str, by: str) -> DamagedFile:
    """The exception that a file's content is wrong, for the caller to raise; a file of the work folder is set aside."""
    told, place = f"{path} is damaged (want a whole {what} of its own)", _place(path)
    if in_work(path):
        aside = path.with_name(f"{path.name}.damaged")
        with contextlib.suppress(FileNotFoundError):  # another process was first
            path.replace(aside)
        return DamagedFile(f"{told}; it was set aside as {aside.name}: run again to remake it, by {_command(path, by)}")
    tracked = place and place[0] in TRACKED
    new = f"get a new copy, or make one by {_command(path, by)}"
    back = f"`git checkout -- {Path('data', *place)}` brings it back" if tracked else new
    return DamagedFile(f"{told}; it was left as it is: {back}")


def was_set_aside(path: Path) -> bool:
    """Whether a damaged file was set aside and not remade since."""
    return not path.exists() and path.with_name(path.name + ".damaged").exists()


def _command(path: Path, by: str) -> str:
    """What makes a file: make, and the command of that name where there is one."""
    place = _place(path)
    make = f"`make PROFILE={place[0]}`" if in_work(path) and len(place) > 2 else "`make`"
    return f"{make} or `srs {by}`" if by else make


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file with its digest."""
    content = json.loads(json.dumps(content))  # as it will be read: tuples are lists, keys are strings
    told = content | {"sha256": digest(_canonical(content), belongs(path))}
    write(path, (json.dumps(told, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path, what: str, *, by: str) -> dict:
    """What `write_json` wrote; raises what `read` raises."""

    def parse(content: bytes) -> dict:
        told = json.loads(content)
        if told.pop("sha256") != digest(_canonical(told), belongs(path)):
            raise ValueError
        return told

    return read(path, what, parse, by=by, plain=True)


def _canonical(content: dict) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


# ------------------------------------------------------------------------------------------------ one at a time


@contextlib.contextmanager
def alone(path: Path, work: str) -> Iterator[None]:
    """Hold a lock file; while another process holds it, say which one and wait. The kernel frees it with its holder."""
    with _told(path, f"space and permission to write in {path.parent}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = lock.read().strip() or "another process"
            print(f"{work}: waiting for {who}, which is at it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: go on without
            pass
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield
