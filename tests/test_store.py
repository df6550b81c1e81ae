"""Stored files under every kind of damage: refused or set aside in one sentence, and whole again once they are remade."""

import errno
import functools
import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from srs import profiles, settings
from srs.__main__ import main
from srs.attacks import attack
from srs.deq import checkpoints, mdeq
from srs.experiments import bench
from srs.settings import ConfigError
from srs.smoothing import certify, votes
from srs.store import counts, paths, results, sealed
from srs.store.counts import ATTACKED
from srs.store.paths import DamagedFile
from tests import synthetic
from tests.helpers import smoke_run, untrained_root

RUN, OTHER = smoke_run(images=2, n0=4, n=20), smoke_run(sigmas=(0.25,), images=2, n0=4, n=20)
METHOD, REFERENCE = RUN.profile.method("SRS-MDEQ-1A"), RUN.profile.method("MDEQ-30A")
COMMAND = r"`(make|srs |git )"


@dataclass(frozen=True)
class Kind:
    """How one kind of file is written and read, and where it lies for a run."""

    path: Callable[[settings.Run], Path]
    write: Callable[[Path], object]
    read: Callable[[Path], object]


FEW = np.arange(3)
VOTES = votes.ImageVotes(7, 3, np.int16([2, 3, 3, 1]), np.int16([3, 3, 1, 3, 2]), np.int32(FEW), np.int16(FEW), FEW + 1, FEW / 3)
TIMINGS = pd.DataFrame(
    [("a", 5, 32.0, 0.1, 1.0, 0.0, 0.25), ("b", 5, 3.0, 0.01, 10.0, 0.1, 0.25)],
    columns=["label", "repetitions", "nfe", "seconds", "ratio", "differing", "peak_share"],
)


@functools.cache
def untrained() -> mdeq.MDEQ:
    return mdeq.build(RUN.model, RUN.profile.data, 0)


def load_weights(path: Path) -> list:
    return [v.tolist() for v in checkpoints.load(path, RUN.model, RUN.profile.data).state_dict().values()]


KINDS = {
    "weights": Kind(paths.weights, lambda p: checkpoints.save(untrained(), p), load_weights),
    "anchor": Kind(paths.anchor, lambda p: checkpoints.save_anchor(torch.ones(9), p), lambda p: list(checkpoints.load_anchor(p))),
    "card": Kind(paths.card, lambda p: sealed.write_json(p, {"seconds": 3}), lambda p: sealed.read_json(p, "card", by="train")),
    "votes": Kind(lambda r: paths.votes(r, METHOD, "k") / "7.npz", lambda p: votes.write(p, VOTES), lambda p: str(votes.read(p))),
    "tallies": Kind(
        lambda run: paths.tallies(run, METHOD), lambda p: results.write_tallies(p, [synthetic.tally(), synthetic.tally(idx=7)]),
        lambda p: results.read_tallies(p).tolist(),
    ),
    "attacked": Kind(
        lambda run: paths.work(run.profile) / "attacks" / run.id / "pgd" / "00003.npz",
        lambda p: attack.write(p, {name: np.array([kind(3)]) for name, kind in ATTACKED.items()}),
        lambda p: attack.read(p).to_dict("list"),
    ),
    "table": Kind(
        lambda run: paths.measured(run, "bench"), lambda p: counts.save_frame(p, TIMINGS), lambda p: bench.read(p).to_dict("list")
    ),
}  # fmt: skip


def flip(content: bytes, at: int, bit: int = 0) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


DAMAGE = {
    "empty": lambda b: b"",
    "cut": lambda b: b[: len(b) // 2],
    "end cut": lambda b: b[:-2],
    "a line or more cut": lambda b: b.rpartition(b"\n")[0].rpartition(b"\n")[0] + b"\n",
    "longer": lambda b: b + b"\0",
    "text": lambda b: b"none of what it should be\n" * 9,
    "a pointer of Git LFS": lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "nothing but zeros": lambda b: bytes(len(b)),
}


@pytest.fixture
def stored(request, srs_root):
    """One kind, its file, and what it says."""
    kind = KINDS[request.param]
    path = kind.path(RUN)
    kind.write(path)
    return kind, path, kind.read(path)


def every(kinds=tuple(KINDS)):
    return pytest.mark.parametrize("stored", kinds, indirect=True)


def assert_told_and_remade(stored) -> None:
    """Reading is refused in a sentence, the file is kept under another name, and written again it says the same."""
    kind, path, before = stored
    content = path.read_bytes()
    with pytest.raises(DamagedFile, match=COMMAND) as caught:
        kind.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not path.exists()
    assert [p.read_bytes() for p in path.parent.glob(f"{path.name}.damaged*")] == [content]
    kind.write(path)
    assert kind.read(path) == before


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@every()
def test_a_damaged_file_is_set_aside_and_remade(stored, damage):
    path = stored[1]
    path.write_bytes(damage(path.read_bytes()))
    assert_told_and_remade(stored)


@every()
def test_a_bit_flipped_anywhere_is_found(stored):
    kind, path, _ = stored
    whole = path.read_bytes()
    for i, at in enumerate(np.linspace(0, len(whole) - 1, 40).astype(int)):
        path.write_bytes(flip(whole, at, i % 8))
        with pytest.raises(DamagedFile):
            kind.read(path)


@every()
def test_a_file_of_another_run_is_not_taken(stored):
    kind, path, _ = stored
    kind.write(kind.path(OTHER))
    shutil.copyfile(kind.path(OTHER), path)
    assert_told_and_remade(stored)


OF_OTHERS = {
    "another method's tally": ("tallies", lambda path: paths.tallies(RUN, REFERENCE)),
    "another method's votes": ("votes", lambda path: paths.votes(RUN, REFERENCE, "k") / path.name),
    "another image's votes": ("votes", lambda path: path.with_name("00008.npz")),
}


@pytest.mark.parametrize(("name", "other"), OF_OTHERS.values(), ids=OF_OTHERS)
def test_a_file_of_another_method_or_image_is_not_taken(srs_root, name, other):
    kind, path = KINDS[name], KINDS[name].path(RUN)
    kind.write(other(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(other(path), path)
    with pytest.raises(DamagedFile, match=path.name):
        kind.read(path)


@every()
def test_a_folder_in_the_files_place_is_told_and_left(stored):
    kind, path, before = stored
    path.unlink()
    path.mkdir()
    for use in (kind.read, kind.write):
        with pytest.raises(ConfigError, match="run again|remove") as caught:
            use(path)
        assert str(path) in str(caught.value)
    assert path.is_dir() and not list(path.parent.glob("*.part"))
    path.rmdir()
    kind.write(path)
    assert kind.read(path) == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
@every()
def test_a_file_that_cannot_be_read_is_told_and_left(stored, monkeypatch, number):
    kind, path, before = stored
    content = path.read_bytes()

    def fails(file, *_, **__):
        raise OSError(number, os.strerror(number), str(file))

    with monkeypatch.context() as patch:
        for name in ("open", "read_bytes", "read_text"):
            patch.setattr(Path, name, fails)
        with pytest.raises(ConfigError, match=rf"{path.name}.*{os.strerror(number)}"):
            kind.read(path)
    assert path.read_bytes() == content and kind.read(path) == before


@every()
def test_a_full_disk_is_told_and_leaves_the_file_of_before(stored):
    kind, path, before = stored
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # the system's way to let writing fail
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(ConfigError, match=rf"{path.name}.*space.*{path.parent}") as caught:
            path.unlink() if kind is KINDS["weights"] or kind is KINDS["anchor"] else None  # what is there is not written again
            kind.write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value) and not list(path.parent.glob("*.part"))
    assert not path.exists() or kind.read(path) == before


@every()
def test_what_a_killed_process_left_is_swept(stored):
    kind, path, before = stored
    path.unlink()
    child = os.fork()
    if not child:
        Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        kind.write(path)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not path.exists() and list(path.parent.iterdir())  # it was at it
    kind.write(path)
    assert [p.name for p in path.parent.glob("*part*")] == [] and kind.read(path) == before


@every(("weights", "card", "votes"))
def test_many_write_one_file_at_once(stored):
    kind, path, before = stored
    failed, start = [], threading.Barrier(4)

    def write():
        start.wait()
        try:
            for _ in range(10):
                path.unlink(missing_ok=True)
                kind.write(path)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    kind.write(path)
    assert failed == [] and kind.read(path) == before


@every()
def test_files_have_the_users_ordinary_mode(stored):
    kind, path, _ = stored
    before = os.umask(0o027)
    try:
        path.unlink()
        kind.write(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


# ------------------------------------------------------------------------------------------------ what is inside


@pytest.mark.parametrize(
    "forged",
    [
        dict(m=-3), dict(k=4, m=5), dict(k=11, m=0), dict(n_a=11), dict(n_2=11), dict(n_2=3, n_1=4), dict(c_a=-2), dict(c_a=-1),
        dict(n_wrong=11), dict(n_differ=11), dict(n=0, n_a=0), dict(n_a=-1), dict(idx=-1),
        dict(nfe_estimate=-5), dict(seconds=-1.0),
    ],
    ids=str,
)  # fmt: skip
def test_tallies_that_contradict_themselves_are_not_read(srs_root, forged):
    path = paths.tallies(RUN, METHOD)
    results.write_tallies(path, [synthetic.tally()])
    results.read_tallies(path)
    for rows in ([synthetic.tally(**forged)], 2 * [synthetic.tally(idx=7)]):
        results.write_tallies(path, rows)
        with pytest.raises(DamagedFile, match=path.name):
            results.read_tallies(path)


PAIR = replace(profiles.get_profile("smoke"), sigmas=(0.5,))


@pytest.mark.parametrize("forged", [dict(c_a=99), dict(n=10**6), dict(idx=1)], ids=str)
def test_tallies_of_other_images_or_settings_are_not_shown(srs_root, forged):
    synthetic.write_profile(PAIR)
    run, method = PAIR.runs[0], PAIR.methods[1]
    first, *others = synthetic.tallies(run, method)
    results.write_tallies(paths.tallies(run, method), [replace(first, **forged), *others])
    with pytest.raises(ConfigError, match=rf"{method.name}\.tsv.*100 votes for 10 classes.*`srs certify`"):
        counts.read_counts(PAIR)


def test_a_damaged_tally_is_not_left_out_in_silence(srs_root):
    both = replace(PAIR, sigmas=(0.25, 0.5))
    synthetic.write_profile(both)
    run, method = both.runs[0], both.methods[2]
    path = paths.tallies(run, method)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DamagedFile, match=rf"{method.name}\.tsv.*`make PROFILE=smoke`"):
        counts.read_counts(both)
    for _ in range(2):  # once it is set aside, a later call does not forget it
        with pytest.raises(ConfigError, match=rf"{method.name}\.tsv.*`srs certify`"):
            counts.read_counts(both)
    results.write_tallies(path, synthetic.tallies(run, method))
    assert len(counts.read_counts(both)) == 2 * len(both.methods) * both.images


def test_a_damaged_tracked_file_is_left_and_ends_the_command(srs_root, capsys):
    synthetic.write_profile(PAIR)
    shutil.move(srs_root / "data" / "smoke" / "tallies", srs_root / "data" / "results" / "smoke")
    path = paths.shipped_tallies(PAIR.runs[0], PAIR.methods[1])
    path.write_bytes(path.read_bytes()[:-30])
    content = path.read_bytes()
    for _ in range(2):
        with pytest.raises(SystemExit, match="2"):
            main(["show", "--profile", "smoke", "--brief", "--processes", "1"])
        assert f"git checkout -- {path.relative_to(srs_root)}" in capsys.readouterr().err.splitlines()[-1]
    assert path.read_bytes() == content and [p for p in path.parent.iterdir() if "damaged" in p.name] == []


# ------------------------------------------------------------------------------------------------ run again


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """A root where RUN is certified on an untrained model, and its counts."""
    with untrained_root(tmp_path_factory, RUN) as root:
        certify_again()
        yield root, counted()


def certify_again() -> None:
    certify.certify(RUN, methods=(REFERENCE.name, METHOD.name), progress=False)


def counted() -> list:
    return [[row.tolist()[:-1] for row in results.read_tallies(paths.tallies(RUN, m))] for m in (REFERENCE, METHOD)]


def vote_file(idx: int) -> Path:
    return certify.vote_file(RUN, METHOD, certify.vote_key(RUN), idx)


FORGED = {
    "votes for another class": lambda v: replace(v, estimate=(v.estimate + 1) % 10),
    "fewer votes": lambda v: replace(v, estimate=v.estimate[:-1]),
    "no such class": lambda v: replace(v, standard=v.standard + 10) if len(v.standard) else replace(v, select=v.select + 10),
    "audited where it pleases": lambda v: replace(v, audited=v.audited[::-1], standard=v.standard[::-1]),
    "of another image": lambda v: replace(v, idx=v.idx + 1),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_forged_votes_are_set_aside_and_drawn_again(certified, srs_root, forge):
    shutil.copytree(certified[0], srs_root, dirs_exist_ok=True)
    path = vote_file(RUN.profile.evaluated[1])
    votes.write(path, forge(votes.read(path)))
    with pytest.raises(DamagedFile, match=rf"{path.name}.*srs certify"):
        certify_again()
    certify_again()
    assert counted() == certified[1]


@pytest.mark.parametrize("which", ["tallies", "provenance", "vote", "votes' provenance"])
def test_certifying_again_remakes_what_is_damaged(certified, srs_root, which):
    shutil.copytree(certified[0], srs_root, dirs_exist_ok=True)
    path = {
        "tallies": paths.tallies(RUN, METHOD), "provenance": paths.provenance(paths.tallies(RUN, METHOD)),
        "vote": vote_file(0), "votes' provenance": vote_file(0).with_name("provenance.json"),
    }[which]  # fmt: skip
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        certify_again()
    except (ConfigError, DamagedFile) as told:
        assert str(path) in str(told)
        certify_again()
    assert counted() == certified[1]
    assert which != "provenance" or path.read_bytes() == whole


def test_a_second_certifying_says_who_is_at_work_and_waits(certified, srs_root, capfd):
    shutil.copytree(certified[0], srs_root, dirs_exist_ok=True)
    vote_file(0).unlink()
    second = threading.Thread(target=certify_again)
    with sealed.alone(next((srs_root / "data" / "smoke" / "votes" / RUN.id).glob("*.lock")), "test"):
        second.start()
        second.join(1.0)
        assert second.is_alive() and not vote_file(0).exists()
        assert f"process {os.getpid()} on" in capfd.readouterr().err
    second.join(60)
    assert counted() == certified[1]
