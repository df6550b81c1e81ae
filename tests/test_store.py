"""Stored files under every kind of damage: refused or set aside in one sentence, and whole again once they are remade."""

import functools
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from srs import profiles, sealed, store
from srs.__main__ import main
from srs.deq import checkpoints, mdeq
from srs.sealed import DamagedFile
from srs.settings import ConfigError, Sampling
from srs.smoothing import certify, votes
from tests import synthetic
from tests.helpers import at_sigmas, smoke_run, untrained_root

PAIR = profiles.get_profile("smoke")
RUN, OTHER = smoke_run(images=2, n0=4, n=20), smoke_run(0.25, images=2, n0=4, n=20)
METHOD, METHODS = RUN.profile.method("SRS-MDEQ-1A"), ("MDEQ-30A", "SRS-MDEQ-1A")
FEW = np.arange(3)
DRAWN = np.int16([2, 3, 3, 1]), np.int16([3, 3, 1, 3, 2]), np.int32([]), np.int16([])
VOTES = votes.ImageVotes(7, 3, *DRAWN, FEW + 1, FEW / 3)
DRAWN_BY = RUN.profile.method("MDEQ-30A"), Sampling(10, n0=4, n=5)
COUNTED = {"method": str} | store.KINDS


def rows(*counts) -> pd.DataFrame:
    return pd.DataFrame(counts).assign(method=METHOD.name)[list(COUNTED)]


@functools.cache
def untrained() -> mdeq.MDEQ:
    return mdeq.build(RUN.model, RUN.profile.data, 0)


def load_weights(path: Path) -> list:
    return [v.tolist() for v in checkpoints.load(path, RUN.model, RUN.profile.data).state_dict().values()]


KINDS = {  # what a file is called, how it is written and how it is read
    "weights": (store.WEIGHTS, lambda p: checkpoints.save_tensors(untrained().state_dict(), p), load_weights),
    "train_mean": (
        store.TRAIN_MEAN,
        lambda p: checkpoints.save_tensors({"train_mean": torch.ones(9)}, p), lambda p: checkpoints.load_train_mean(p).tolist(),
    ),
    "card": (store.CARD, lambda p: sealed.write_json(p, {"seconds": 3}), lambda p: sealed.read_json(p, "card", by="train")),
    "votes": ("votes/X-k/7.npz", lambda p: votes.write(p, VOTES), lambda p: str(votes.read(p, *DRAWN_BY))),
    "table": (
        store.COUNTS, lambda p: store.save_frame(p, rows(synthetic.image_counts(seconds=0.1), synthetic.image_counts(idx=7))),
        lambda p: store.read_frame(p, COUNTED, "table", by="").to_dict("list"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_and_that_of_another_run_image_or_method_is_set_aside_and_remade(srs_root, kind):
    name, write, read = KINDS[kind]
    path, contents = store.own(RUN, name), []
    for other in (store.own(OTHER, name), path.with_name(f"other-{path.name}")):
        write(other)
        contents.append(other.read_bytes())
    write(path)
    before, whole = read(path), path.read_bytes()
    contents += [whole[: len(whole) // 2], whole.rpartition(b"\n")[0].rpartition(b"\n")[0] + b"\n"]
    contents.append(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")  # a pointer of Git LFS
    for i, at in enumerate(np.linspace(0, len(whole) - 1, 25).astype(int)):
        contents.append(whole[:at] + bytes([whole[at] ^ 1 << i % 8]) + whole[at + 1 :])
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match=rf"^[^\n]*{path}[^\n]*`(make|srs )[^\n]*$"):
            read(path)
        assert not path.exists() and path.with_name(f"{path.name}.damaged").read_bytes() == content
        write(path)
        assert read(path) == before


def test_a_failed_write_leaves_the_file_of_before(srs_root, monkeypatch):
    path = store.own(RUN, store.CARD)
    sealed.write(path, b"before")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        sealed.write(path, bytes(99))
    assert [*path.parent.iterdir()] == [path] and path.read_bytes() == b"before"


def test_many_write_one_file_at_once(srs_root):
    path = store.own(RUN, store.CARD)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: sealed.write_json(path, {"seconds": 3}), range(40)))  # raises what a write raises
    assert sealed.read_json(path, "card", by="train") == {"seconds": 3} and [*path.parent.iterdir()] == [path]


FORGED_COUNTS = (
    dict(m=-3), dict(k=4, m=5), dict(k=4, m=-1), dict(k=11, m=0), dict(n_a=11), dict(n_2=11), dict(n_2=3, n_1=4),
    dict(c_a=-2), dict(c_a=-1), dict(n_wrong=11), dict(n_differ=11), dict(n=0, n_a=0), dict(n_a=-1), dict(idx=-1),
    dict(nfe_estimate=-5),
)  # fmt: skip


def test_counts_that_contradict_themselves_are_damage_and_those_of_other_settings_are_not(srs_root):
    path = store.own(RUN, store.COUNTS)
    for forged in (*([counts] for counts in FORGED_COUNTS), 2 * [dict(idx=7)]):  # the last image is there twice
        store.save_frame(path, rows(*(synthetic.image_counts(**counts) for counts in forged)))
        with pytest.raises(DamagedFile, match=path.name):
            store.read_run(RUN)
    synthetic.write_profile(PAIR)
    run, method = PAIR.runs[0], PAIR.methods[1]
    first, *others = synthetic.every_count(run, method)
    for forged in (dict(c_a=99), dict(n=10**6), dict(idx=1)):
        synthetic.write_counts(run, method, [replace(first, **forged), *others])
        with pytest.raises(ConfigError, match=rf"{method.name} in .*{store.COUNTS}.*100 votes for 10 classes.*`srs certify`"):
            store.read_counts(PAIR)
    synthetic.write_profile(PAIR)
    before = store.own(run, store.COUNTS).read_bytes()
    store.write_counts(run, {method.name: [first, *others]}, {})  # of one method alone: what was there is kept beside
    assert store.own(run, f"{store.COUNTS}.before").read_bytes() == before
    synthetic.write_profile(PAIR)
    settings = replace(PAIR, seed=5), replace(PAIR, n0=50), replace(PAIR, noise="grid"), at_sigmas(PAIR, run.sigma + 1e-3)
    for other in settings:  # the last has the same id
        with pytest.raises(ConfigError, match=rf"{store.COUNTS}.*want counts of these settings"):
            store.read_counts(other)


def test_what_is_not_known_comes_back_and_text_stays_text(srs_root):
    frame = pd.DataFrame({"method": ["NA", "", "A"], "needs_audit": [True, False, True], "n": [1, 2, 3]})
    frame["seconds"] = [0.1, np.nan, 1e-9]
    path, kinds = store.own(RUN, "table.csv"), {"method": str, "needs_audit": bool, "n": np.int64, "seconds": float}
    store.save_frame(path, frame.assign(more=0))
    pd.testing.assert_frame_equal(store.read_frame(path, kinds, "table", by=""), frame, check_dtype=False)
    store.save_frame(path, frame.assign(n=["1", "", "3"]))
    with pytest.raises(DamagedFile, match="table of its own"):
        store.read_frame(path, kinds, "table", by="")


def test_damaged_counts_are_not_left_out_in_silence(srs_root):
    both = at_sigmas(PAIR, 0.25, 0.5)
    synthetic.write_profile(both)
    path = store.own(both.runs[0], store.COUNTS)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DamagedFile, match=rf"{store.COUNTS}.*`srs certify`"):
        store.read_counts(both)
    with pytest.warns(UserWarning, match=f"left out of what is shown: {both.runs[0].id}"):
        assert len(store.read_counts(both)) == len(both.methods) * both.images


def test_a_damaged_tracked_file_is_left_and_ends_the_command(srs_root, capsys):
    synthetic.write_profile(PAIR)
    path = store.tracked(PAIR.runs[0], store.COUNTS)
    shutil.move(store.own(PAIR.runs[0], store.COUNTS).parent, path.parent)
    assert store.find(PAIR.runs[0], store.COUNTS) == path and len(store.read_counts(PAIR))
    content = path.read_bytes()[:-30]
    path.write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        main(["show", "--profile", "smoke", "--brief", "--workers", "1"])
    assert f"git checkout -- {path.relative_to(srs_root)}" in capsys.readouterr().err.splitlines()[-1]
    assert path.read_bytes() == content and [p for p in path.parent.iterdir() if "damaged" in p.name] == []


FORGED = {
    "votes for another class": lambda v: replace(v, estimate=(v.estimate + 1) % 10),
    "fewer votes": lambda v: replace(v, estimate=v.estimate[:-1]),
    "no such class": lambda v: replace(v, standard=v.standard + 10) if len(v.standard) else replace(v, select=v.select + 10),
    "audited where it pleases": lambda v: replace(v, audited=v.audited[::-1], standard=v.standard[::-1]),
}


def test_forged_votes_are_set_aside_and_drawn_again(tmp_path_factory):
    def counted() -> list:
        certify.certify(RUN, methods=METHODS, progress=False)
        return [[tuple(row)[:-1] for row in synthetic.counted(RUN, RUN.profile.method(name))] for name in METHODS]

    with untrained_root(tmp_path_factory, RUN):
        before, path = counted(), certify.vote_file(RUN, METHOD, certify.read_inputs(RUN), RUN.profile.evaluated[1])
        for forge in FORGED.values():
            votes.write(path, forge(votes.read(path, METHOD, RUN.profile.sampling)))
            with pytest.raises(DamagedFile, match=rf"{path.name}.*srs certify"):
                counted()
            assert counted() == before


def test_the_digest_of_code_follows_what_it_computes(tmp_path):
    def digest(source: str, *, name: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        return store.code_digest(name, home=tmp_path)

    source = '"""Said."""\nimport math\n\n# why\ndef far(a, /, *, by=2.5):\n'
    source += '    """Said, too,\n    twice."""\n    return f"{a and by}" or None\n'
    same = source.replace("too,\n    twice", "otherwise").replace("# why\n", "").replace("math\n", "math  \n\n")
    changes = [("2.5", "2.6"), ("/, ", ""), ("and", "or"), ("None", "'None'"), ("far", "near")]
    digests = {digest(source.replace(*change), name=f"changed{i}") for i, change in enumerate(changes)}
    assert digest(same, name="same") == digest(source, name="source") == "b5f45821e9c6d143"
    assert len(digests | {digest(source, name="source"), store.code_digest("source", "source", home=tmp_path)}) == 7
