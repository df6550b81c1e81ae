"""scaling: what is measured is stored once and shown beside what would be in proportion."""

import pandas as pd
import pytest
from tests.helpers import save_untrained, smoke_run

from srs import paths, scaling, speed_report
from srs.config import ConfigError

RUN = smoke_run()


def test_larger_images_and_workers_are_measured_and_stored(srs_root):
    save_untrained(RUN)
    assert scaling.stored(RUN) is None
    scaling.measure(RUN, sides=(4, 32), workers=(1,))
    found = scaling.stored(RUN)
    assert found["what"].tolist() == ["image side", "image side", "workers"] and found["value"].tolist() == [4, 32, 1]
    small, large, alone = found["milliseconds"]
    assert large > small > 0 and alone > 0  # 64 times the pixels
    assert paths.provenance(paths.measured(RUN, "scaling")).is_file()


def test_a_side_that_cannot_be_halved_is_refused(srs_root):
    with pytest.raises(ConfigError, match="image side = 7 is refused: want a multiple of 2"):
        scaling.by_size(RUN, (8, 7))


def test_costs_stand_beside_what_is_in_proportion():
    stored = pd.DataFrame(
        [("image side", 16, 0.1), ("image side", 32, 0.5), ("workers", 1, 0.4), ("workers", 2, 0.25)],
        columns=["what", "value", "milliseconds"],
    )
    table = speed_report.scaling_table(stored)
    assert table["times the first (seconds)"].tolist() == ["1.00", "5.00", "1.00", "0.62"]
    assert table["in proportion"].tolist() == ["1.00", "4.00", "1.00", "0.50"]
