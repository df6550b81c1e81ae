"""summary: what the first screen says follows the counts, and its distance to the paper is that of the entries."""

import warnings
from dataclasses import replace

import pandas as pd
import pytest
from tests import synthetic
from tests.helpers import at_sigmas

from srs import profiles, store
from srs.analysis import measures
from srs.experiments import certified_accuracy, simulation, soundness, summary

SMOKE = replace(at_sigmas(profiles.get_profile("smoke"), 0.25, 0.5), images=12, n=400)
QUESTIONS = ["How accurate is it?", "What does SRS keep?", "Do the authors' certificates hold?", "When does SRS pay at all?", "What is our rule worth?"]


def found(counted: pd.DataFrame) -> dict[str, summary.Finding]:
    """The findings by their question, the tables of audit sizes made anew."""
    for n, ending in ((SMOKE.n, ""), (soundness.N, "_large_n")):
        sizes = simulation.audit_sizes(counted, SMOKE, ns=(n,))
        path = store.shown(SMOKE, f"audit_size_pays{ending}.csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        soundness.size_table(sizes, 20).to_csv(path)
    return {finding.question: finding for finding in summary.findings(counted, SMOKE)}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The findings of made-up counts, and of counts where SRS votes are cheap, right and larger by chance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRS_ROOT", str(tmp_path_factory.mktemp("root")))
        patch.setattr(simulation, "AUDIT_KS", (20, 200))
        synthetic.write_profile(SMOKE)
        counted = store.read_counts(SMOKE)
        better = counted.copy()
        srs = better["needs_audit"]
        better.loc[srs, "n_a"] = 400
        better.loc[srs, ["m", "n_wrong", "n_differ", "nfe_audit"]] = 0
        better.loc[srs, "nfe_estimate"] //= 2
        better.loc[srs, "n_2"] = better.loc[srs, "n_1"] = 20
        better.loc[~srs, "n_a"] = better.loc[~srs, "n_a"] * 9 // 10
        yield found(counted), found(better)


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_finding_follows_the_counts(both, question):
    before, after = (findings[question] for findings in both)
    assert before.answer != after.answer and before.table == after.table
    assert "nan" not in before.answer + after.answer and list(both[0]) == QUESTIONS


def test_srs_pays_where_its_table_says_so_and_standard_votes_elsewhere(both):
    before, after = (findings["When does SRS pay at all?"].answer for findings in both)
    pays = "in 1 of 6 rows at N = 400 (SRS-MDEQ-3A on paper 0.5 with K"
    assert pays in before and pays not in after
    assert "MDEQ-STOP on SMALL paper (2.5 times fewer evaluations, 98 % kept" in before


def test_models_that_certify_nothing_are_compared_with_nothing(srs_root):
    synthetic.write_profile(SMOKE)
    counted = store.read_counts(SMOKE)
    assert [finding.question for finding in summary.findings(counted.assign(n_a=0, k=0, m=0, n_2=0, n_1=0), SMOKE)] == QUESTIONS[:1]


@pytest.fixture(scope="module")
def cifar10():
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.delenv("SRS_ROOT", raising=False)
        return store.read_counts(profiles.get_profile("cifar10"))


def test_the_distance_is_ours_minus_the_paper_s_and_its_interval_holds_it(cifar10):
    profile = profiles.get_profile("cifar10")
    frame = summary.distance(cifar10, profile).set_index(["recipe", "method", "statement"]).sort_index()
    own = cifar10.query("recipe == 'paper' and sigma == 0.5 and method == 'MDEQ-30A'")
    share = 100 * (measures.certificates(own, alpha=0.001).query("correct")["radius"] >= 0.5).sum() / len(own)
    printed = certified_accuracy.published("cifar10").sort_index().loc[("SMALL", 0.5, "MDEQ-30A"), "r=0.50"]
    rows = frame.loc["paper", "MDEQ-30A"]
    assert rows.loc["as published", "r=0.50"] == printed and rows.loc["distance", "r=0.50"] == pytest.approx(share - printed)
    low, high = map(float, rows.loc["its 95 % interval", "r=0.50"].split(" to "))
    assert low < share - printed < high
    digits = summary.distance(cifar10, replace(profile, data=profiles.DIGITS))
    assert digits.empty, "no distance between data sets"


def test_the_figure_has_a_point_per_method_and_rule(cifar10):
    rows = summary.kept(cifar10[cifar10["sigma"] == 0.5], profiles.get_profile("cifar10"))
    assert len(rows) == 2 * (6 + 3 * 6)
    reference = rows[rows["method"] == "MDEQ-30A"]
    assert reference["kept"].tolist() == pytest.approx([100, 100]) and (reference["times"] == 1).all()
