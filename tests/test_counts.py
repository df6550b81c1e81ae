"""counts: a stored table is read as it was written."""

import numpy as np
import pandas as pd
import pytest

from srs import profiles
from srs.store import counts, paths

COLUMNS = {"method": str, "needs_audit": bool, "n": np.int64, "seconds": float}
FRAME = pd.DataFrame({"method": ["NA", "", "A"], "needs_audit": [True, False, True], "n": [1, 2, 3], "seconds": [0.1, np.nan, 1e-9]})


def test_what_is_not_known_comes_back_and_text_stays_text(srs_root):
    path = paths.measured(profiles.get_run("smoke", "SMALL", 0.5), "table")
    counts.save_frame(path, FRAME.assign(more=0))
    pd.testing.assert_frame_equal(counts.read_frame(path, COLUMNS, "table", by=""), FRAME, check_dtype=False)


@pytest.mark.parametrize("wrong", [FRAME.assign(n=["1", "", "3"]), FRAME.assign(seconds="fast"), FRAME.drop(columns="n")])
def test_a_table_of_other_values_is_damaged(srs_root, wrong):
    path = paths.measured(profiles.get_run("smoke", "SMALL", 0.5), "table")
    counts.save_frame(path, wrong)
    with pytest.raises(paths.DamagedFile, match="table of its own"):
        counts.read_frame(path, COLUMNS, "table", by="")
