"""remake: what `make tables` makes from stored results; its tables are those of test_golden."""

import pytest
from tests import synthetic

from srs import __main__, profiles, settings, store
from srs.experiments import remake

SMOKE = profiles.get_profile("smoke")


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
