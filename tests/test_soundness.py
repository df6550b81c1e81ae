"""Notebook 40: its tables say what the rules say, and its findings are those of the counts."""

import re
from dataclasses import replace

import numpy as np
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
# The paper's settings, from the README of our notes on it: sigma, Theorem 3.1, released formula, plain RS.
CAPS = [(0.12, 0.238, 0.380, 0.384), (0.25, 0.496, 0.791, 0.800), (0.5, 0.991, 1.583, 1.599), (1.0, 1.982, 3.165, 3.199)]


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """The long table of made-up counts of the profile `smoke`, under a root for all tests: drawing takes a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRS_ROOT", str(tmp_path_factory.mktemp("root")))
        synthetic.write_profile(SMOKE)
        yield store.read_counts(SMOKE)


@pytest.fixture(scope="module")
def measured():
    """Failure rates at few certificates, under the names of the usual sizes."""
    some = [simulation.simulate(*setting, n=200, audit_k=50, certificates=60) for setting in simulation.SETTINGS]
    rates = pd.concat([simulation.failure_rates(one) for one in some])
    return pd.concat([rates.assign(n=n, K=k) for n, k, _ in simulation.SIZES], ignore_index=True)


@pytest.fixture(scope="module")
def shown(counted, measured):
    """All tables and figures of steps (a) to (d), by name."""
    found = simulation.audit_sizes(counted, SMOKE, ns=(SMOKE.n,))
    made = [*soundness.rates(measured, SMOKE), *soundness.caps(SMOKE), *soundness.rules_by_image(counted, SMOKE)]
    return {one.name: one for one in (*made, *soundness.size_tables(found, SMOKE))}


def test_every_table_and_figure_is_there_and_calls_released_unsound(shown, measured):
    assert list(shown) == [
        "failure_rates", "failure_rates_figure", "failure_rates_small_n", "failure_rates_small_n_figure", "caps", "caps_by_size",
        "caps_figure", "published_beyond_caps", "rules_by_image_SMALL", "audit_gain", "audit_size", "audit_size_pays",
        "audit_size_SMALL_figure",
    ]  # fmt: skip
    texts = [one.caption for one in shown.values()] + [one.frame.to_csv() for one in shown.values() if one.frame is not None]
    for text in (*texts, soundness.rates_finding(measured), soundness.caps_finding()):
        assert text.count("released") == len(re.findall(r"released\W{0,2} ?\(unsound\)", text)), text


def test_failure_rates_have_a_line_per_setting_and_rule_and_a_finding(shown, measured):
    frame = shown["failure_rates"].frame
    assert len(frame) == 4 * len(Rule) and set(frame["errors"]) == {"+20%", "+40%, -1%"}
    cell = frame.loc[frame["rule"] == "released (unsound)", "alpha = 0.1"].iloc[0]
    rate, low, high = map(float, re.fullmatch(r"(\S+) \((\S+)-(\S+)\) refuted", cell).groups())
    assert low < rate <= high and set(frame["true radius"]) == {"0.333", "0.354"}
    said = soundness.rates_finding(measured)
    assert "released (unsound) refuted in 24 of 24 settings" in said and "cohen holds in" in said
    worse = measured.assign(verdict="refuted", rate=0.5)
    assert "audit (ours) refuted in 24 of 24 settings, its failure rate is 50 to 50 %" in soundness.rates_finding(worse)


def test_caps_are_the_known_ones_to_three_decimals(shown):
    frame = shown["caps"].frame.set_index("sigma")
    for sigma, *known in CAPS:
        row = frame.loc[f"{sigma:.2f}"]
        assert list(row[["theorem31 (paper)", "released (unsound)", "cohen"]]) == [f"{radius:.3f}" for radius in known]
        assert known[0] < float(row["audit (ours)"]) < known[2]
    sizes = shown["caps_by_size"].frame.astype(float)
    assert (sizes["K"] <= sizes["N"]).all() and len(sizes) == 5 + 8 + 8
    for (_, own), rule in ((part, rule) for part in sizes.groupby("N") for rule in ("theorem31 (paper)", "audit (ours)")):
        assert own[rule].is_monotonic_increasing and own[rule].is_unique and (own[rule] < own["cohen"]).all()


def test_published_entries_beyond_the_cap():
    frame = soundness.published_beyond()
    assert list(frame.index) == ["1.00", "1.25", "1.50"]
    assert frame.loc["1.00", "SRS-MDEQ-3A LARGE, as published"] == "23 %"
    assert frame.loc["1.50", "K needed, theorem31 (paper)"] == "out of reach"
    k = int(frame.loc["1.25", "K needed, theorem31 (paper)"])
    assert k <= 2_100  # enough, as our notes say
    for audited, reached in ((k, True), (k - 1, False)):
        assert (bounds.largest_radius(Rule.THEOREM31, soundness.N, audited, 0.5, 0.001) >= 1.25) == reached
    usual, more = soundness.caps_finding(), soundness.caps_finding(k=2_100)
    assert "no radius above 0.991" in usual and "12 published SRS entries, at r = 1.00, 1.25, 1.50, lie" in usual
    assert "no radius above 1.255" in more and "4 published SRS entries, at r = 1.50, lie" in more


def test_audit_gain_by_hand(counted):
    """One image that both rules certify, one that abstains and does not count."""
    some = counted[counted["method"] == SRS.name].iloc[:2].assign(n=1_000, k=100, m=0, c_a=3)
    some = some.assign(n_a=[1_000, 300], n_2=[100, 30], n_1=[100, 30])
    row = soundness.audit_gain(some, SMOKE).iloc[0]
    paper, ours = (bounds.largest_radius(rule, 1_000, 100, 0.5, SMOKE.alpha) for rule in (Rule.THEOREM31, Rule.AUDIT))
    assert row["images"] == 1 and row["theorem31 (paper)"] == pytest.approx(paper)
    assert row["gain at 0.75 %"] == pytest.approx(100 * (ours / paper - 1)) and row["gain at 0.5 %"] > 0
    assert re.search("in 1 of 1 rows .* 0 of 1 single certificates lose", soundness.gain_finding(some, SMOKE))
    assert "Neither" in soundness.gain_finding(some.assign(n_a=0, k=0, n_2=0, n_1=0), SMOKE)


def test_line_finding_counts_points_near_the_line(counted, shown):
    rows = soundness.by_image(counted, SMOKE)
    assert set(rows["method"]) == {SRS.name} and len(rows) == 3 * SMOKE.images
    for factor, near in ((0.91, SMOKE.images), (0.89, 0), (1.11, 0)):
        made = rows.assign(radius_rs=0.5, radius=np.where(rows["rule"] == Rule.RELEASED, 0.5 * factor, 0.0))
        said = soundness.line_finding(made)
        assert f"Of {SMOKE.images} images" in said and " 0 under audit (ours)" in said and f" {near} under released" in said
    assert soundness.line_finding(rows) in shown["rules_by_image_SMALL"].caption


def sizes(*, lead=0.1, fair=-0.1, n=100, far=10_000):
    """Sizes of one SRS method at two N by hand: at the last K alone it leads plain RS."""
    run, whole = {"model": "X", "recipe": "X", "sigma": 0.5}, {"p_m %": 1.0, "RS: NFE": 900, "RS: radius": 0.5}
    own = {**run, "method": SRS.name, **whole, "radius": 0.3, OWN_RS: 0.3 - fair}
    rows = [
        {**own, "N": size, "K": k, "NFE": 10 * k, RS: 0.3 - ahead, DEAREST: most}
        for size, most in ((n, -1), (far, far)) for k, ahead in ((10, -0.2), (20, -0.05), (50, lead))
    ]  # fmt: skip
    return pd.DataFrame(rows + [{**run, "N": size, "method": SMOKE.reference, "NFE": 90, "radius": 0.2} for size in (n, far)])


def test_size_table_and_pays_finding_by_hand():
    rows = soundness.size_table(sizes()[lambda rows: rows["N"] == 100], k=22)
    row = rows.iloc[0]
    assert len(rows) == 1 and (row["K"], row["NFE"], row["best K"], row["its NFE"]) == (20, 200, 50, 500)
    assert (row["pays for K"], row[DEAREST]) == ("50", "any")
    never = soundness.size_table(sizes(lead=-0.01)[lambda rows: rows["N"] == 10_000], k=22).iloc[0]
    assert (never["pays for K"], never["best K"], never[DEAREST]) == ("none", 50, "none")
    said = soundness.pays_finding(sizes())
    assert said.startswith("At N = 100 SRS ") and "in 1 of 1 rows (SRS-MDEQ-3A on X X, sigma 0.5: K = 50)" in said
    assert "lead over RS is +0.100 (SRS-MDEQ-3A, sigma 0.5, K = 50)" in said and said.count("it pays in 0 of 1") == 2
    assert soundness.pays_finding(sizes(lead=-0.04)).count("in 0 of 1 rows; its largest lead over RS is -0.040") == 2
    assert list(soundness.pays(sizes(fair=0.01))["beside its auditor"]) == [1, 1]


def test_figures_hold_no_more_lines_than_can_be_told_apart(counted):
    srs = [replace(SRS, name=f"SRS-X-{i}A", steps=i) for i in range(1, 8)]
    own = counted[counted["method"].isin([SMOKE.reference, SRS.name])].astype({"method": object})
    many = pd.concat([own, *(own[own["needs_audit"]].assign(method=m.name) for m in srs)])
    profile = replace(SMOKE, methods=(SMOKE.method(SMOKE.reference), SMOKE.method("MDEQ-STOP"), SRS, *srs))
    made = soundness.size_tables(simulation.audit_sizes(many, profile, ns=(SMOKE.n,)), profile)
    assert [one.name for one in made] == ["audit_size", "audit_size_pays", "audit_size_SMALL_figure", "audit_size_SMALL_figure_2"]
    assert len(made[0].frame) == 8 and "pays for K" in made[1].frame


def test_a_profile_without_srs_shows_nothing_and_says_so(counted):
    plain = counted[~counted["needs_audit"]]
    found = simulation.audit_sizes(plain, SMOKE, ns=(SMOKE.n,))
    assert soundness.rules_by_image(plain, SMOKE) == soundness.size_tables(found, SMOKE) == []
    assert soundness.when_srs_pays(plain, SMOKE).empty
    alone = counted[counted["method"] == "MDEQ-5A"]
    assert soundness.size_tables(simulation.audit_sizes(alone, SMOKE), SMOKE) == [], "of a run that leaves its reference undrawn"
    assert "Neither" in soundness.gain_finding(plain, SMOKE) and "no SRS rows" in soundness.pays_finding(found)
    assert "Of 0 images" in soundness.line_finding(soundness.by_image(plain, SMOKE))


def test_exact_noise_adds_next_to_nothing_to_alpha(counted, monkeypatch):
    monkeypatch.setattr(soundness, "PIXELS", 1_000)
    frame = soundness.exact_noise(SMOKE).frame
    assert set(frame["grid"]) == {"1/16", "1/255"} and (frame["added to alpha per certificate"].astype(float) < 1e-9).all()
