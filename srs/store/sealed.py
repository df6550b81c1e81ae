"""Files that last: written whole, sealed with a checksum and with what they belong to, read with refusal. Standard library.

A sealed file ends in `# sha256 <digest> <belongs>`: the last line of a table, the comment of an archive. `belongs` is where
below data/<profile>/<kind> the file lies, as `SMALL-s0.50-paper/MDEQ-30A.tsv`, so a file of another run, method or image is
not taken for its own. JSON files hold the digest as the field `sha256`.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from srs.profiles import get_run
from srs.settings import check, ConfigError
from srs.store.paths import DamagedFile, root

T = TypeVar("T")
TRACKED = ("zoo", "results")  # folders of data/ that git keeps
NOT_WORK = (*TRACKED, "raw")  # and the user's own images: nothing there is renamed
LFS = b"version https://git-lfs"
HOUR = 3600  # a temporary file of another machine this old is nobody's any more
_SEAL = re.compile(rb"# sha256 ([0-9a-f]{64}) ([^\n]*)\n\Z")


# ------------------------------------------------------------------------------------------------ where a file lies


def _below(path: Path, folder: str) -> tuple[str, ...]:
    """The parts of a path below a folder of the root; none for a file that lies elsewhere."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(root() / folder))
    return path.relative_to(folder).parts if path.is_relative_to(folder) else ()


def _place(path: Path) -> tuple[str, ...]:
    return _below(path, "data")


def in_work(path: Path) -> bool:
    """Whether the file is one that this package made and may rename: not the user's own, not a tracked one."""
    place, shown = _place(path), _below(path, "figures")
    return bool(place and place[0] not in NOT_WORK or shown and shown[0] != "readme")


def belongs(path: Path) -> str:
    """What a file belongs to; the same for a computed file and its tracked copy. Empty for a file outside data/."""
    return "/".join(_place(path)[2:] or _place(path)[-1:])


def present(path: Path) -> bool:
    """Whether the file is there.

    Raises:
        ConfigError: there is something else in its place, or no permission to look.
    """
    with _told(path, "read"):
        path.stat()
        check(path.is_file(), "file", str(path), "a file; remove or rename what is in its place")
        return True
    return False


@contextlib.contextmanager
def _told(path: Path, done: str) -> Iterator[None]:
    """Turn the system's refusal into a sentence; a file that is missing passes silently when it is to be read."""
    try:
        yield
    except FileNotFoundError if done == "read" else ():
        pass
    except OSError as error:
        why = error.strerror or str(error)
        right = f"space and permission to write in {path.parent}" if done == "written" else "a file that can be read"
        raise ConfigError(f"{path} cannot be {done} ({why}); it is left as it is: want {right}, then run again") from None


# ------------------------------------------------------------------------------------------------ writing


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all: under a name that no other process has, then moved into place.

    Raises:
        ConfigError: a full disk, no permission, or a folder of that name.
    """
    host, part = socket.gethostname(), None
    with _told(path, "written"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path, host)
            part = path.with_name(f"{path.name}.{host}-{os.getpid()}-{secrets.token_hex(4)}.part")
            part.write_bytes(content)
            part.replace(path)
        except BaseException:
            if part:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
            raise


def write_changed(path: Path, content: bytes) -> None:
    """Write a file unless it has that content already."""
    with contextlib.suppress(OSError):  # not there, or another process is at it
        if path.read_bytes() == content:
            return
    write(path, content)


def save(path: Path, body: bytes) -> None:
    """Write a sealed file: a table of lines, or a zip archive as numpy and torch make them."""
    write(path, sealed(body, belongs(path)))


def sealed(body: bytes, owner: str) -> bytes:
    """The content with its seal."""
    if body.startswith(b"PK"):  # the archive's last two bytes say how long its comment is
        body = body[:-2] + len(_seal(b"", owner)).to_bytes(2, "little")
    return body + _seal(body, owner)


def digest(body: bytes, owner: str) -> str:
    """The SHA-256 of a content and of what it belongs to."""
    return hashlib.sha256(owner.encode() + b"\n" + body).hexdigest()


def _seal(body: bytes, owner: str) -> bytes:
    return f"# sha256 {digest(body, owner)} {owner}\n".encode()


def _sweep(path: Path, host: str) -> None:
    """Remove what killed processes left of this file."""
    for entry in os.scandir(path.parent):
        if entry.name.startswith(path.name + ".") and entry.name.endswith(".part"):
            where, _, rest = entry.name.removeprefix(path.name + ".").rpartition("-")[0].rpartition("-")
            with contextlib.suppress(FileNotFoundError):
                own = where == host and rest.isdigit()
                if not _alive(int(rest)) if own else time.time() - entry.stat().st_mtime > HOUR:
                    os.unlink(entry.path)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# ------------------------------------------------------------------------------------------------ reading


def read(path: Path, what: str, parse: Callable[[bytes], T], *, by: str, plain: bool = False) -> T:
    """What a file holds, once its seal was checked.

    Args:
        path: the file.
        what: it is, in words.
        parse: makes the result of the content without its seal; any error of it means that the content is wrong.
        by: the command that makes the file; empty if only a notebook does.
        plain: the file has no seal, or `parse` checks it.

    Raises:
        ConfigError: no such file, no permission, an I/O error, a folder in its place; it is left as it is.
        DamagedFile: the content is wrong. A file of the work folder has been set aside, another is left as it is.
    """
    content = None
    with _told(path, "read"):
        content = path.read_bytes()
    check(content is not None, what, str(path), f"an existing file; {_command(path, by)} makes one")
    try:
        if content.startswith(LFS):
            raise DamagedFile
        return parse(content if plain else _opened(content, path))
    except ConfigError:
        raise
    except MemoryError:
        raise ConfigError(f"{path} does not fit in memory ({what}); it is left as it is: remove it and run again") from None
    except Exception:  # whatever a parser makes of wrong content
        raise damaged(path, what, by, pointer=content.startswith(LFS)) from None


def _opened(content: bytes, path: Path) -> bytes:
    """The content without its seal; ValueError if the seal is not the file's own."""
    tail = content[-1000:]
    seal = _SEAL.search(tail)
    if seal is None and not _place(path) and b"# sha256 " not in tail:
        return content  # a file that the user brought
    body = content[: -len(seal[0])] if seal else content
    owner = seal[2].decode() if seal else ""
    if seal is None or seal[1].decode() != digest(body, owner) or (_place(path) and owner != belongs(path)):
        raise ValueError
    return body


def damaged(path: Path, what: str, by: str, *, pointer: bool = False) -> DamagedFile:
    """The exception that a file's content is wrong, for the caller to raise; a file of the work folder is set aside."""
    if pointer and not in_work(path):
        return DamagedFile(f"{path} is a pointer of Git LFS, not a {what}; it was left as it is: `git lfs pull` brings the file")
    told = f"{path} is damaged (want a whole {what} of its own)"
    if in_work(path):
        aside = next(a for i in range(1, 1000) if not (a := path.with_name(f"{path.name}.damaged{i if i > 1 else ''}")).exists())
        try:
            path.replace(aside)
        except FileNotFoundError:  # another process was first
            pass
        except OSError as error:
            return DamagedFile(f"{told} and cannot be set aside ({error.strerror}): remove it, then run {_command(path, by)}")
        return DamagedFile(f"{told}; it was set aside as {aside.name}: run again to remake it, by {_command(path, by)}")
    if _place(path) and _place(path)[0] in TRACKED:
        inside = Path("data", *_place(path))
        return DamagedFile(f"{told}; it was left as it is: `git checkout -- {inside}` brings it back")
    return DamagedFile(f"{told}; it was left as it is: get a new copy, or make one by {_command(path, by)}")


def was_set_aside(path: Path) -> bool:
    """Whether a damaged file was set aside and not remade since."""
    return not path.exists() and path.with_name(path.name + ".damaged").exists()


def _command(path: Path, by: str) -> str:
    """What makes a file: make, and the command of that name where there is one and it knows the run."""
    place, run = _place(path), None
    if not in_work(path) or not place:
        return f"`make` or `srs {by}`" if by else "`make`"
    if len(place) > 2 and by:
        run = re.match(r"(\w+)-s(\d+\.\d\d)-([a-z]\w*)", place[2])
    with contextlib.suppress(ConfigError):  # a run of an ablation has no command line of its own
        if run and get_run(place[0], run[1], float(run[2]), run[3]):
            names = f"--profile {place[0]} --model {run[1]} --sigma {float(run[2])} --recipe {run[3]}"
            return f"`make PROFILE={place[0]}` or `srs {by} {names}`"
    return "`make`" if len(place) < 3 else f"`make PROFILE={place[0]}`"


# ------------------------------------------------------------------------------------------------ JSON


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file with its digest."""
    content = json.loads(json.dumps(content))  # as it will be read: tuples are lists, keys are strings
    told = content | {"sha256": digest(_canonical(content), belongs(path))}
    write(path, (json.dumps(told, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path, what: str, *, by: str) -> dict:
    """What `write_json` wrote; raises what `read` raises."""

    def parse(content: bytes) -> dict:
        told = json.loads(content)
        claimed = told.pop("sha256", None)
        if claimed != digest(_canonical(told), belongs(path)) and (claimed or in_work(path)):
            raise ValueError
        return told

    return read(path, what, parse, by=by, plain=True)


def _canonical(content: dict) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


# ------------------------------------------------------------------------------------------------ one at a time


@contextlib.contextmanager
def alone(path: Path, work: str) -> Iterator[None]:
    """Hold a lock file; while another process holds it, say which one and wait. The kernel frees it with its holder.

    Args:
        path: the lock file; it stays, empty of meaning.
        work: what is done under the lock, in words.
    """
    lock = None
    with _told(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            print(f"{work}: waiting for {lock.read().strip() or 'another process'}, which is at it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # a file system without locks: go on without
                raise
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield
