"""verify finds a row that its weights do not give; doctor says what is here and what is missing."""

import pytest

from srs import __main__ as entry
from srs import profiles, store
from srs.experiments import verify
from tests.helpers import smoke_run, untrained_root

PROFILE = smoke_run(images=2, n0=5, n=20).profile
RUN = PROFILE.runs[0]


@pytest.fixture(scope="module", autouse=True)
def certified(tmp_path_factory):
    """A root where RUN is certified."""
    with untrained_root(tmp_path_factory, RUN, tuple(m.name for m in PROFILE.methods)):
        yield


def test_doctor_tells_what_is_here():
    told = "\n".join(verify.doctor(PROFILE))
    assert "digits test: 360 images" in told and "GB free" in told and "torch" in told
    assert "weights here     votes 14 of 14     counts of 14 rows" in told
    assert "weights missing  votes missing" in told  # of the explicit network


def test_the_same_seed_draws_the_same_rows():
    drawn = [[line.partition(":")[0] for line in verify.verify(PROFILE, rows=2, seed=seed)][1:] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_rows_are_recomputed_and_a_forged_one_is_named(monkeypatch, capsys):
    monkeypatch.setitem(profiles.PROFILES, "smoke", PROFILE)
    path, rows = store.own(RUN, store.COUNTS), PROFILE.images * len(PROFILE.methods)
    forged = store.read_frame(path, {"method": str} | store.KINDS, "counts", by="")
    row = (forged["method"] == "SRS-MDEQ-1A") & (forged["idx"] == 7)
    forged.loc[row, "n_differ"] += 1  # a count that no check of its own file finds
    store.save_frame(path, forged)
    count = forged.loc[row, "n_differ"].item()
    with pytest.raises(SystemExit) as end:
        entry.main(["verify", "--profile", "smoke", "--rows", str(rows)])
    captured = capsys.readouterr()
    assert end.value.code == 2 and f"1 of {rows} rows differ" in captured.err
    told = captured.out.splitlines()
    assert told[0].startswith(f"{rows} of {rows} rows of smoke") and len(told) == rows + 1
    line, = [line for line in told[1:] if not line.endswith(": equal")]
    assert line == f"{RUN.id} SRS-MDEQ-1A image 7: n_differ is {count - 1}, stored {count}"
