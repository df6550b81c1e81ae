"""figures: what is drawn, read back from the axes, and what is written."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tests import synthetic

from srs import figures, profiles, shown, tables

SMOKE = profiles.get_profile("smoke")


def test_curve_is_the_step_function():
    correct, radius = np.array([True, True, False, True]), np.array([0.5, 0.2, 0.9, 0.0])
    x, y = figures._steps(correct, radius)
    assert x.tolist() == [0, 0, 0.2, 0.5, 0.5]
    assert y.tolist() == [75, 75, 50, 25, 0]


def test_curve_of_nothing_certified():
    x, y = figures._steps(np.array([False]), np.array([0.3]))
    assert x.tolist() == [0, 0] and y.tolist() == [0, 0]


@pytest.mark.parametrize("panels", [1, 2, 3, 4])
def test_accuracy_curves_have_a_panel_per_sigma(panels):
    curve = (np.array([True, False]), np.array([0.4, 0.2]))
    fig = figures.accuracy_curves({f"s{i}": {"MDEQ": curve, "SRS": curve} for i in range(panels)})
    assert sum(ax.get_title() != "" for ax in fig.axes) == panels
    assert fig.get_size_inches()[0] == figures.WIDTH
    assert len({line.get_linestyle() for line in fig.axes[0].lines}) == 2


def test_histogram_shares_and_range():
    values = np.array([0.05, 0.05, 0.95, np.nan])
    fig = figures.histograms({"s": {"a": values, "b": np.array([0.5])}}, bins=10, low=0, high=1, label="x")
    heights = [bar.get_height() for bar in fig.axes[0].patches]
    assert len(heights) == 20
    assert heights[0] == pytest.approx(200 / 3) and heights[9] == pytest.approx(100 / 3) and heights[15] == 100
    assert sum(heights) == pytest.approx(200)


@pytest.mark.parametrize(
    "values, low, high, expected",
    [
        ([0.2], 0, 1, (0, 1)), ([-0.1, 1.7], 0, 1, (-0.1, 1)), ([0.2], 0, None, (0, 0.2)),
        ([], 0, None, (0, 1)), ([0.0], 0, None, (0, 1)),
    ],  # fmt: skip
)
def test_limits(values, low, high, expected):
    assert figures.limits(np.array(values, float), low, high) == expected


def test_histogram_counts_what_lies_beyond():
    fig = figures.histograms({"s": {"a": np.array([0.5, 1.5, 3.0])}}, bins=10, low=0, high=1, label="x")
    assert "images above 1\na: 2" in [text.get_text() for text in fig.axes[0].texts]


def test_histogram_without_images_says_so():
    fig = figures.histograms({"s": {"a": np.array([np.nan])}}, bins=10, label="x")
    assert "no image" in [text.get_text() for text in fig.axes[0].texts]


def test_colours_are_distinct():
    assert len(set(figures.colours("abcdef").values())) == 6


def test_make_figures_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setenv("SRS_ROOT", str(tmp_path))
    synthetic.write_profile(SMOKE)
    made = figures.make_figures(SMOKE)
    histograms = {f"{kind}_hist_SMALL" for kind in ("rrd", "p_m", "gap")}
    histograms |= {"rrd_hist_SMALL_theorem31", "rrd_hist_SMALL_released"}
    assert set(made) == histograms | {"curves_SMALL", "curves_rules_SMALL"}
    folder = tmp_path / "figures" / "smoke"
    assert {p.name for p in folder.iterdir()} == {f"{name}.{end}" for name in made for end in ("pdf", "png", "json")}
    assert (folder / "curves_SMALL.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "curves_SMALL.pdf").read_bytes().startswith(b"%PDF")
    rules = [text.get_text() for text in made["curves_rules_SMALL"].legends[0].get_texts()]
    assert "SRS-3A, released (unsound)" in rules
    assert "unsound" in made["rrd_hist_SMALL_released"].axes[-1].get_xlabel()
    # A bar's worth of the right number of images: RRD histograms hold 10 bins per method for SMALL.
    assert len(made["rrd_hist_SMALL"].axes[0].patches) == 10 * len(tables.serialized(SMOKE))


def test_save_writes_the_same_bytes_again(tmp_path):
    curve = (np.array([True, False]), np.array([0.4, 0.2]))
    for name in ("one", "two"):
        fig = figures.accuracy_curves({"s": {"MDEQ": curve}})
        figures.save(fig, tmp_path / f"{name}_s0.50", caption="c", made_by="nb")
    for end in ("pdf", "png", "json"):
        assert (tmp_path / f"one_s0.50.{end}").read_bytes() == (tmp_path / f"two_s0.50.{end}").read_bytes()
    assert shown.listed(tmp_path)["one_s0.50"] == shown.About("figure", "c", "nb")


@pytest.mark.parametrize(("longest", "columns"), [("SRS-MDEQ-1N", 3), ("SRS-CALIBRATED-1N", 2), (45 * "n", 1)])
def test_a_legend_is_no_wider_than_its_figure(longest, columns):
    with figures.style():
        fig = Figure(figsize=(figures.WIDTH, 2), layout="constrained")
        canvas, ax = FigureCanvasAgg(fig), fig.subplots()
        for i in range(6):
            ax.plot([0, 1], [i, i], label=longest)
        figures.legend_below(fig, 3)
        canvas.draw()
    assert fig.legends[0]._ncols == columns
    assert fig.legends[0].get_window_extent().width <= fig.bbox.width
