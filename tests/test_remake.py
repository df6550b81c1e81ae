"""remake: what `make tables` makes from stored results, also where noise levels draw fewer methods and images."""

from dataclasses import replace
import pytest
from tests import synthetic

from srs import figures, profiles, remake, report, settings, tables
from srs.store import paths

SMOKE = profiles.get_profile("smoke")
METHODS = (SMOKE.methods[0], SMOKE.method("MDEQ-30A"), *SMOKE.methods[3:])
EXTRA = replace(METHODS[-1], name="SRS-X-4A", steps=4)
MIXED = replace(
    SMOKE, sigmas=(0.25, 0.5), methods=(*METHODS, EXTRA), fewer=settings.Fewer((0.25,), tuple(m.name for m in METHODS[1:]), 3)
)  # fmt: skip


def test_everything_is_made_in_one_go(srs_root, capsys):
    with pytest.raises(SystemExit):
        remake.main(["--profile", "smoke"])
    assert "result file" in capsys.readouterr().err
    with pytest.raises(settings.ConfigError, match="processes = 0"):
        next(remake.remake(SMOKE, processes=0))
    synthetic.write_profile(SMOKE)
    remake.main(["--profile", "smoke", "--brief"])
    names = {item.name for item in report.items(SMOKE)}
    assert {"certified_accuracy_SMALL_s0.50", "mean_rrd", "curves_SMALL", "rrd_hist_SMALL"} <= names
    assert not paths.shown(SMOKE, "report").with_suffix(".html").exists() and "diagram_srs" not in names
    steps = list(remake.remake(SMOKE, processes=1))
    assert steps[0] == "remake.histograms" and steps[-2:] == ["coverage.make_coverage", "report.build"]
    assert len(steps) == len(remake.MAIN + remake.MORE + remake.LAST)
    more = {item.name for item in report.items(SMOKE)} - names
    assert {"diagram_srs", "settings_training", "comparison_smoothing", "coverage"} <= more
    assert paths.shown(SMOKE, "ablation_alpha.md").is_file()
    assert "certified_accuracy_SMALL_s0.50" in paths.shown(SMOKE, "report").with_suffix(".html").read_text()


def test_a_noise_level_with_fewer_methods_is_shown_with_its_own(srs_root):
    synthetic.write_profile(MIXED)
    made = tables.make_tables(MIXED)
    few, all_of_them = (set(made[f"certified_accuracy_SMALL_s{sigma}"]["method"]) for sigma in ("0.25", "0.50"))
    assert all_of_them - few == {"MDEQ-1A", "SRS-X-4A"} and few < all_of_them
    assert made["mean_rrd"].groupby("sigma")["method"].nunique().to_dict() == {"0.25": 3, "0.50": 4}
    tallies = tables.load(MIXED)
    assert {len(tallies[run.id, "MDEQ-30A"]) for run in MIXED.runs} == {3, SMOKE.images}

    caption = paths.shown(MIXED, "curves_SMALL").with_suffix(".json")
    drawn = figures.make_figures(MIXED)
    assert "3 images at sigma 0.25 and 4 images at sigma 0.5" in caption.read_text()
    legend = [text.get_text() for text in drawn["curves_SMALL"].legends[0].get_texts()]
    assert legend == [m.name for m in MIXED.methods]  # that of the panel with most curves
    first, second = drawn["rrd_hist_SMALL"].axes
    assert len(first.patches) == 3 * figures.BINS and len(second.patches) == 4 * figures.BINS
