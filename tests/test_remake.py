"""remake: what `make tables` makes from stored results, also where noise levels draw fewer methods and images."""

from dataclasses import replace

import pytest
from tests import synthetic

from srs import __main__, profiles, settings, store
from srs.experiments import certified_accuracy, consistency, remake

SMOKE = profiles.get_profile("smoke")
MIXED = replace(SMOKE, plan=(replace(SMOKE.plan[0], sigma=0.25, methods=SMOKE.methods[2:], images=3), SMOKE.plan[0]))


def test_the_main_tables_and_figures_are_made_in_one_go(srs_root, capsys):
    with pytest.raises(SystemExit):
        __main__.main(["show", "--profile", "smoke"])
    assert "result file" in capsys.readouterr().err
    with pytest.raises(settings.ConfigError, match="workers = 0"):
        next(remake.remake(SMOKE, workers=0))
    synthetic.write_profile(SMOKE)
    assert list(remake.remake(SMOKE, brief=True)) == list(remake.BRIEF)
    made = {path.name for path in store.shown(SMOKE, "x").parent.iterdir()}
    figures = {"curves_SMALL.pdf", "rrd_hist_SMALL.pdf"}
    assert {"certified_accuracy_SMALL_s0.50.csv", "mean_rrd.csv", "model_quality.csv"} | figures <= made


def test_a_noise_level_with_fewer_methods_is_shown_with_its_own(srs_root):
    synthetic.write_profile(MIXED)
    counted = store.read_counts(MIXED)
    table = certified_accuracy.accuracy(counted, MIXED)
    few, all_of_them = (set(table[table["sigma"] == sigma]["method"]) for sigma in (0.25, 0.5))
    assert all_of_them - few == {"MDEQ-1A", "MDEQ-5A"} and few < all_of_them
    compared = consistency.mean_rrd(counted, MIXED).groupby("sigma", observed=True)["method"].nunique()
    assert compared.to_dict() == {0.25: 3, 0.5: 3}
    assert certified_accuracy.images_of(counted) == "3 to 4 images"
