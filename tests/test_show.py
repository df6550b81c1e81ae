"""show and plots: what is printed and what is written; curves are those of certified accuracy."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srs import profiles, store
from srs.analysis import plots, show

SMOKE = profiles.get_profile("smoke")


@pytest.mark.parametrize("column, value, text", [
    ("r=0.25", 100 * 326 / 500, "65.2"), ("r=0.25", 100 / 16, "6.3"), ("r=0.25", 100 / 160, "0.6"), ("r=0.25", "62", "62"),
    ("noisy accuracy %", 66.666, "66.7"), ("disagreement %", 0.125, "0.13"), ("ACR", 0.5389, "0.538"), ("ACR", 0.3, "0.300"),
    ("ACR", np.nan, ""), ("sigma", 0.5, "0.50"), ("rule", "audit", "audit (ours)"), ("images", 12, "12"),
    ("residual", 0.0012, "1.2e-03"), ("NFE/image", np.float64(1100.5), "1101"), ("anything", None, ""),
])  # fmt: skip
def test_cells(column, value, text):
    assert show.cells(pd.DataFrame({column: [value]})).iloc[0, 0] == text


@given(value=st.floats(0, 10), digits=st.integers(0, 6))
def test_round_down_never_rounds_up(value, digits):
    printed = show.round_down(value, digits)
    assert float(printed) <= value < float(printed) + 10.0**-digits * (1 + 1e-9)
    assert show.round_down(float(printed), digits) == printed


def test_tables_escape_keep_digits_and_are_written_whole(srs_root):
    frame = pd.DataFrame({"share %": [65.2], "a_b": ["x & y"]})
    shown = show.table(SMOKE, "t_s0.50", frame, "50 % of c_A > 0")
    tex, md, csv = (store.shown(SMOKE, f"t_s0.50.{kind}").read_text() for kind in ("tex", "md", "csv"))
    assert r"share \%" in tex and r"\caption{50 \% of c\_A $>$ 0}" in tex and "{rl}" in tex
    assert "|      65.2 |" in md and md.endswith("50 % of c_A > 0\n") and csv == "share %,a_b\n65.2,x & y\n"
    assert shown.caption == "50 % of c_A > 0"
    sample = profiles.get_profile("imagenet_sample")
    assert show.table(sample, "t", frame, "Of it.").caption == f"{sample.note} Of it."


@pytest.mark.parametrize("n", [80, 800])
def test_curves_are_those_of_certified_accuracy_with_an_interval_where_images_are_few(n):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({
        "sigma": np.repeat([0.25, 0.5], n // 2), "method": np.tile(["MDEQ-30A", "SRS-MDEQ-3A"], n // 2),
        "correct": rng.random(n) < 0.7, "radius": rng.random(n),
    })  # fmt: skip
    for ax, sigma in zip(plots.accuracy_curves(rows, hue="method").axes, (0.25, 0.5)):
        assert len(ax.collections) == (n == 80)  # of the black line
        for line in ax.get_lines():
            own = rows[(rows["sigma"] == sigma) & (rows["method"] == line.get_label())]
            x, y = line.get_data()
            for r in (0.1, 0.4, 0.8):
                assert np.append(y, 0)[np.searchsorted(x, r)] == pytest.approx((own["correct"] & (own["radius"] >= r)).mean())
