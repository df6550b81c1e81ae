"""Notebook 40: its tables say what the rules say, and its findings are those of the counts."""

import re

import pandas as pd
import pytest
from tests import synthetic

from srs import profiles, store
from srs.experiments import simulation, soundness
from srs.experiments.simulation import DEAREST, OWN_RS, RS
from srs.smoothing import bounds
from srs.smoothing.bounds import Rule

SMOKE = profiles.get_profile("smoke")
SRS = SMOKE.method("SRS-MDEQ-3A")


@pytest.fixture
def counted(srs_root):
    """The long table of made-up counts of the profile `smoke`."""
    synthetic.write_profile(SMOKE)
    return store.read_counts(SMOKE)


def test_failure_rates_have_a_line_per_setting_and_rule_and_a_finding(srs_root):
    some = [simulation.simulate(one, n=200, audit_k=50, certificates=60) for one in simulation.SURROGATES]
    measured = pd.concat(map(simulation.failure_rates, some))
    shown = soundness.rates(measured, SMOKE)
    assert len(shown.frame) == 2 * len(Rule) and set(shown.frame["errors"]) == {"+20%", "+40%, -1%"}
    cell = shown.frame.loc[shown.frame["rule"] == "released (unsound)", "alpha = 0.1"].iloc[0]
    rate, low, high = map(float, re.fullmatch(r"(\S+) \((\S+)-(\S+)\) refuted", cell).groups())
    assert low < rate <= high and "released (unsound) refuted in 6 of 6 settings" in soundness.rates_finding(measured)


def test_published_entries_beyond_the_cap():
    frame = soundness.published_beyond()
    assert list(frame.index) == ["1.00", "1.25", "1.50"] and frame.loc["1.00", "SRS-MDEQ-3A LARGE, as published"] == "23 %"
    theirs = frame["K needed, theorem31 (paper)"]
    assert theirs["1.50"] == "out of reach" and int(theirs["1.25"]) <= 2_100  # enough, as our notes say
    for audited, reached in ((int(theirs["1.25"]), True), (int(theirs["1.25"]) - 1, False)):
        assert (bounds.largest_radius(Rule.THEOREM31, soundness.N, audited, 0.5, 0.001) >= 1.25) == reached
    usual, more = soundness.caps_finding(), soundness.caps_finding(k=2_100)
    assert "no radius above 0.991" in usual and "12 published SRS entries, at r = 1.00, 1.25, 1.50, lie" in usual
    assert "no radius above 1.255" in more and "4 published SRS entries, at r = 1.50, lie" in more


def test_gain_by_hand(counted):
    """One image that both rules certify, one that neither does."""
    some = counted[counted["method"] == SRS.name].iloc[:2].assign(n=1_000, k=100, m=0, c_a=3)
    some = some.assign(n_a=[1_000, 300], n_2=[100, 30], n_1=[100, 30])
    paper, ours = (bounds.largest_radius(rule, 1_000, 100, 0.5, SMOKE.alpha) for rule in (Rule.THEOREM31, Rule.AUDIT))
    said = soundness.gain_finding(some, SMOKE)
    assert f"in 1 of 1 rows; over all of them {ours / 2:.3f} against {paper / 2:.3f}" in said and ours > paper
    assert "Neither" in soundness.gain_finding(some.assign(n_a=0, k=0, n_2=0, n_1=0), SMOKE)


def test_size_table_and_pays_finding_by_hand():
    """One SRS method at two N: at the last K alone it leads plain RS, and never plain RS by its auditor."""
    own = {"model": "X", "recipe": "X", "sigma": 0.5, "method": SRS.name, "radius": 0.3, OWN_RS: 0.4}
    sizes = pd.DataFrame([
        own | {"N": n, "K": k, "NFE": 10 * k, RS: 0.3 - lead, DEAREST: most}
        for n, most in ((100, -1), (10_000, 10_000)) for k, lead in ((10, -0.2), (20, -0.05), (50, 0.1))
    ])  # fmt: skip
    row = soundness.size_table(sizes.query("N == 100")).iloc[0]
    assert (row["best K"], row["its NFE"], row["pays for K"], row[DEAREST]) == (50, 500, "50", "any")
    never = soundness.size_table(sizes.query("N == 10_000").assign(**{RS: 0.4})).iloc[0]
    assert (never["pays for K"], never[DEAREST]) == ("none", "none")
    said = soundness.pays_finding(sizes)
    assert said.count("in 1 of 1 rows; its largest lead is +0.100 (SRS-MDEQ-3A, sigma 0.5, K = 50)") == 2
    assert said.count("it pays in 0 of 1") == 2
    assert soundness.pays_finding(sizes.assign(**{RS: 0.4})).count("in 0 of 1 rows;") == 2


def test_a_profile_without_srs_shows_nothing_and_says_so(counted):
    plain = counted[~counted["needs_audit"]]
    found = simulation.audit_sizes(plain, SMOKE)
    assert soundness.size_tables(found, SMOKE) == [] and "no SRS rows" in soundness.pays_finding(found)
    assert "Neither" in soundness.gain_finding(plain, SMOKE)


def test_exact_noise_adds_next_to_nothing_to_alpha():
    for profile in (SMOKE, profiles.get_profile("cifar10")):
        assert float(re.search(r"at most (\S+) to the alpha", soundness.rounding_finding(profile))[1]) < 1e-9
