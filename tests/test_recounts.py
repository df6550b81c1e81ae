"""Counts under their keys, stored and read back."""

import numpy as np
import pytest
from tests import synthetic

from srs import recounts, variants
from srs.profiles import PROFILES
from srs.recounts import Key
from srs.store.paths import DamagedFile
from srs.store.sealed import paths

RUN = variants.base(PROFILES["smoke"])
COUNTED = {
    Key(RUN.id, "MDEQ-30A", 10, 0): [synthetic.tally(idx=7, n_a=4, seconds=float("nan")), synthetic.tally(idx=0)],
    Key(RUN.id, "SRS-MDEQ-3A", 10, 5): [synthetic.tally(idx=0, k=5, m=1, n_2=5, n_1=4)],
    Key(RUN.id, "SRS-MDEQ-3A", 10, 8): [synthetic.tally(idx=0, k=8, m=2, n_2=8, n_1=6)],
}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "counts.csv"
    recounts.write(path, COUNTED)
    found = recounts.read(path)
    assert list(found) == list(COUNTED)
    rs = found[Key(RUN.id, "MDEQ-30A", 10, 0)]
    assert rs["idx"].tolist() == [0, 7] and rs["n_a"].tolist() == [10, 4] and np.isnan(rs["seconds"][1])
    assert found[Key(RUN.id, "SRS-MDEQ-3A", 10, 8)]["m"].tolist() == [2]


def test_what_was_made_here_comes_before_what_is_shipped(srs_root):
    assert recounts.stored(RUN) == {}
    recounts.write(paths.shipped_measured(RUN, recounts.NAME), {key: COUNTED[key] for key in list(COUNTED)[:1]})
    assert len(recounts.stored(RUN)) == 1
    recounts.write(paths.measured(RUN, recounts.NAME), COUNTED)
    assert len(recounts.stored(RUN)) == 3


@pytest.mark.parametrize("spoil", [lambda t: "", lambda t: t[:-9], lambda t: t.replace("MDEQ-30A,0,7", "MDEQ-30A,0,x"), lambda t: t[3:]])
def test_a_damaged_file_is_set_aside(srs_root, spoil):
    path = paths.measured(RUN, recounts.NAME)
    recounts.write(path, COUNTED)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(DamagedFile, match="set aside"):
        recounts.read(path)
    assert not path.exists()
