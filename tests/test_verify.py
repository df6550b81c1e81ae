"""verify finds a row that its weights do not give; doctor says what is here and what is missing."""

import pytest

from srs import __main__ as entry
from srs import profiles, store
from srs.experiments import verify
from srs.smoothing import certify
from tests.helpers import smoke_run, untrained_root

PROFILE = smoke_run(images=2, n0=5, n=20).profile
RUN = PROFILE.runs[0]


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """A root where RUN is certified."""
    with untrained_root(tmp_path_factory, RUN):
        certify.certify(RUN, progress=False)
        yield


def test_rows_are_recomputed_and_a_forged_one_is_named(certified, monkeypatch, capsys):
    monkeypatch.setitem(profiles.PROFILES, "smoke", PROFILE)
    rows = PROFILE.images * len(PROFILE.methods)
    entry.main(["verify", "--profile", "smoke", "--rows", str(rows)])
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(f"{rows} of {rows} rows of smoke") and len(told) == rows + 1
    assert all(line.endswith(": equal") for line in told[1:])

    path = store.own(RUN, store.COUNTS)
    forged = store.read_frame(path, {"method": str} | store.KINDS, "counts", by="")
    row = (forged["method"] == "SRS-MDEQ-1A") & (forged["idx"] == 7)
    forged.loc[row, "n_differ"] += 1  # a count that no check of its own file finds
    store.save_frame(path, forged)
    count = forged.loc[row, "n_differ"].item()
    with pytest.raises(SystemExit) as end:
        entry.main(["verify", "--profile", "smoke", "--rows", str(rows)])
    captured = capsys.readouterr()
    assert end.value.code == 2 and f"1 of {rows} rows differ" in captured.err
    line, = [line for line in captured.out.splitlines()[1:] if not line.endswith(": equal")]
    assert line == f"{RUN.id} SRS-MDEQ-1A image 7: n_differ is {count - 1}, stored {count}"


def test_the_same_seed_draws_the_same_rows(certified, monkeypatch):
    monkeypatch.setattr(verify, "recompute", lambda run, name, idx, device, compared: store.Tally(idx, *[-2] * 13, 0.0))
    drawn = []
    for seed in (1, 1, 2):
        found = verify.verify(PROFILE, rows=3, seed=seed)
        next(found)  # what is drawn
        drawn.append([next(found).partition(":")[0] for _ in range(3)])
        with pytest.raises(verify.RowDiffers, match="3 of 3 rows"):
            next(found)
    assert drawn[0] == drawn[1] != drawn[2]


def test_doctor_tells_what_is_here(certified):
    told = "\n".join(verify.doctor(PROFILE))
    assert "digits test: 360 images" in told and "GB free" in told and "torch" in told
    assert "weights here     votes 14 of 14     counts of 14 rows" in told
    assert "weights missing  votes missing" in told  # of the explicit network
    assert len(told.splitlines()) == 5 + len(PROFILE.every_run)
