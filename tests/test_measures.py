"""measures: hand-worked examples; Cohen et al.'s published log is in test_coverage."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, norm

from srs.analysis import measures
from srs.smoothing.bounds import ABSTAIN, Rule
from tests.synthetic import counts

ALL = dict(by=["model", "sigma"])  # one group


def certified(*pairs, method="MDEQ-30A", needs_audit=False, label=1):
    """Certificates (predict, radius) of one method, image by image."""
    rows = counts(*({} for _ in pairs), method=method, needs_audit=needs_audit)
    predict, radius = zip(*pairs)
    correct = [p == label and p != ABSTAIN for p in predict]
    return rows.assign(rule=str(Rule.COHEN), predict=predict, radius=np.array(radius, float), correct=correct)


@pytest.mark.parametrize("sigma", [0.12, 0.5])
def test_certificates_under_cohen_are_closed_form(sigma):
    votes = counts(dict(n=100, n_a=100), dict(n=100, n_a=90), dict(n=100, n_a=50), dict(n=100, n_a=0, c_a=-1), sigma=sigma)
    found = measures.certificates(votes, alpha=0.001)
    assert found["predict"].tolist() == [3, 3, ABSTAIN, ABSTAIN] and found["correct"].tolist() == [True, True, False, False]
    expected = [sigma * norm.ppf(0.001**0.01), sigma * norm.ppf(beta.ppf(0.001, 90, 11)), 0, 0]
    np.testing.assert_allclose(found["radius"], expected, rtol=1e-12)


def test_certified_accuracy_counts_all_images_in_the_order_of_categories():
    rows = certified((1, 0.5), (1, 0.25), (2, 9.0), (1, 0.0))
    assert measures.held(rows, [0, 0.25, 0.3, 0.5, 0.51], **ALL).iloc[0].tolist() == [3, 2, 1, 1, 0, 4]
    assert measures.certified_accuracy(rows, [0, 0.25], **ALL).iloc[0].tolist() == [75, 50, 0.75 / 4]
    both = pd.concat([certified((1, 0.5), method="Z"), certified((1, 0.1), method="A")])
    both["method"] = measures.in_order(both["method"])
    assert list(measures.certified_accuracy(both, [0], ["method"]).index) == ["Z", "A"]


def test_rrd_by_hand():
    rs = certified((1, 0.4), (1, 0.4), (1, 0.4), (-1, 0.0), (2, 0.2))
    srs = certified((1, 0.3), (2, 0.4), (-1, 0.0), (1, 0.9), (2, 0.5), method="SRS", needs_audit=True)
    # smaller, another class, abstains, (not certified by RS: left out), larger
    np.testing.assert_allclose(measures.rrd(pd.concat([rs, srs]))["rrd"], [0.25, 1, 1, 1.5])


def test_p_m_and_gap_by_hand():
    """Votes of which a quarter is wrong, none for c_A, none measured, all wrong and missed; the paper's K = 400 give 1.88 %."""
    sizes = dict(n=100, n_a=80, n_2=40, n_1=40)
    rows = [sizes | dict(n_wrong=20), dict(n=100, n_a=0), sizes | dict(n_wrong=-1), sizes | dict(n_a=100, n_wrong=100)]
    votes = counts(*rows, dict(n=10_000, n_a=10_000, n_2=400, n_1=400))
    np.testing.assert_array_equal(measures.p_m(votes), [0.25, np.nan, np.nan, 1.0, 0.0])
    upper, gap = 1 - 0.0005 ** (1 / 40), measures.gap(votes, 0.001)
    np.testing.assert_allclose(gap[:4], [upper - 0.25, np.nan, np.nan, upper - 1], rtol=1e-12)
    assert gap[4] == pytest.approx(0.0188, abs=5e-5)


def test_cost():
    slow = counts(dict(n=10, nfe_select=30, nfe_estimate=300, nfe_audit=-1, seconds=2.0, n_differ=0))
    fast = dict(n=10, nfe_select=1, nfe_estimate=20, nfe_audit=12, method="SRS")
    table = pd.concat([slow, counts(fast | dict(seconds=0.5, n_differ=1), fast | dict(seconds=1.5, n_differ=-1))])
    found = measures.cost(table).droplevel(["model", "recipe", "sigma"])
    assert found.loc["MDEQ-30A", ["NFE/image", "NFE/vote", "audit NFE"]].tolist() == [330, 30, 0]
    assert found.loc["SRS", ["NFE/image", "NFE/vote", "seconds/image"]].tolist() == [33, 2, 1]
    assert found.loc["SRS", "disagreement %"] == 10  # votes that were not compared do not count
