"""Tables of speed and agreement from stored measurements, against hand-made ones."""

import pandas as pd
import pytest
from tests.helpers import save_untrained, smoke_run

from srs import agreement, bench, paths, speed_report, votes
from srs.adaptive import Looks
from srs.agreement import Point
from srs.bench import Timing
from srs.config import ConfigError, Method, replace

RUN = smoke_run()
PROFILE = RUN.profile
POINTS = [
    Point("zero", "anderson", 1, 0.0, 0.0, 200, 80, 1.0),
    Point("zero", "anderson", 4, 0.0, 0.0, 200, 10, 4.0),
    Point("centroid", "anderson", 1, 0.0, 0.0, 200, 30, 1.0),
    Point("centroid", "naive", 8, 0.0, 0.0, 200, 0, 8.0),
    Point("zero", "safe_anderson", 30, 0.1, 0.0, 200, 4, 5.5),
    Point("zero", "safe_anderson", 30, 0.0, 0.4, 200, 12, 3.25),
]


def test_starts_and_cheapest_ways():
    starts = speed_report.starts_table(POINTS)
    assert starts.to_dict("records") == [
        {"start": "zero", "1 NFE": "40.00", "4 NFE": "5.00"}, {"start": "centroid", "1 NFE": "15.00", "4 NFE": ""},
    ]  # fmt: skip
    cheapest = speed_report.agreement_table(POINTS)
    assert list(cheapest["NFE/vote"]) == ["1.00", "3.25", "4.00", "5.50", "8.00"]
    assert list(cheapest["stops at"]) == ["1 steps", "lead > 0.4", "4 steps", "residual <= 0.1", "8 steps"]
    assert list(cheapest["disagreement %"]) == ["15.00", "6.00", "5.00", "2.00", "0.00"]


def timing(label: str, nfe: float, seconds: float) -> Timing:
    return Timing(label, 5, nfe, seconds, 1.0, 0.0, 0.5)


def test_seconds_of_a_certificate_count_selection_start_and_audit():
    ours = {
        "MDEQ-30A": timing("MDEQ-30A", 30, 0.030), "SRS-MDEQ-3A": timing("SRS-MDEQ-3A", 3, 0.004),
        "released MDEQ-30A": timing("released MDEQ-30A", 32, 0.064),
        "released SRS-MDEQ-3A": timing("released SRS-MDEQ-3A", 5, 0.010),
    }  # fmt: skip
    n0, srs = PROFILE.n0, PROFILE.method("SRS-MDEQ-3A")
    want = {
        "MDEQ-30A": (n0 + 10_000) * 0.030,
        # two first batches of the chains take warmup - steps evaluations more, each a thirtieth of a full solve
        "SRS-MDEQ-3A": (n0 + 10_000) * 0.004 + srs.audit * 0.030 + 2 * srs.batch * (srs.warmup - 3) * 0.001,
        "released MDEQ-30A": (n0 + 10_000) * 0.064,
        "released SRS-MDEQ-3A": (n0 + 10_000) * 0.010 + srs.audit * 12 * 0.002,
    }
    for label, seconds in want.items():
        assert speed_report.certificate_seconds(RUN, ours[label], ours) == pytest.approx(seconds)
    for label in ("MDEQ-30A", "SRS-MDEQ-3A"):  # compiled: half of it, audit and all
        ours[label + bench.COMPILED] = replace(ours[label], label=label + bench.COMPILED, seconds=ours[label].seconds / 2)
    for label in ("MDEQ-30A", "SRS-MDEQ-3A"):
        seconds = speed_report.certificate_seconds(RUN, ours[label + bench.COMPILED], ours)
        assert seconds == pytest.approx(want[label] / 2)


def test_an_audit_costs_what_its_auditor_costs_and_is_not_guessed():
    stop = Method("STOP", "safe_anderson", 30, tol=0.01)
    srs = replace(PROFILE.method("SRS-MDEQ-3A"), name="SRS-X", start="calibrated", steps=1, auditor=stop)
    run = replace(RUN, profile=replace(PROFILE, methods=(*PROFILE.methods, stop, srs)))
    timings = {t.label: t for t in (timing("MDEQ-30A", 30, 0.030), timing("STOP", 5, 0.005), timing("SRS-X", 1, 0.001))}
    seconds = speed_report.certificate_seconds(run, timings["SRS-X"], timings, n=1000)
    pilot = srs.pilot * (srs.warmup + 1) * 0.001
    assert seconds == pytest.approx((PROFILE.n0 + 1000) * 0.001 + srs.audit * 0.005 + pilot)
    del timings["STOP"]
    with pytest.raises(ConfigError, match="timed method = 'STOP' is refused"):
        speed_report.certificate_seconds(run, timings["SRS-X"], timings)


def test_an_audit_weighs_less_in_a_larger_sample():
    full, srs = timing("MDEQ-30A", 30, 0.030), timing("SRS-MDEQ-3A", 3, 0.003)
    rows = speed_report.cost_by_n(RUN, [full, srs], (100, 1_000_000)).set_index("method")
    assert rows.loc["MDEQ-30A"].tolist() == ["1.0", "1.0"]
    small, large = map(float, rows.loc["SRS-MDEQ-3A"])
    assert small < 6 and large == 10.0


def test_a_profile_s_tables_are_made_from_what_is_stored(srs_root):
    assert speed_report.make_agreement(PROFILE) == speed_report.make_speed(PROFILE) == {}
    agreement.write(paths.measured(RUN, "agreement-test"), POINTS)
    timings = [timing(c.label, c.method.steps, 0.01) for c in bench.contenders_of(RUN, 20)]
    bench.write(paths.measured(RUN, "bench"), timings, run=RUN.id)
    made = speed_report.make_agreement(PROFILE) | speed_report.make_speed(PROFILE)
    assert set(made) == {f"{name}_SMALL_s0.50" for name in ("starts", "cheapest_votes", "speed", "cost_by_n")}
    folder = paths.shown(PROFILE, "x").parent
    assert (folder / "agreement_SMALL_s0.50.pdf").is_file() and (folder / "agreement_SMALL_s0.50.json").is_file()
    assert len(made["speed_SMALL_s0.50"]) == len(timings)


def test_adaptive_decisions_stand_beside_those_of_fixed_n(srs_root, monkeypatch):
    save_untrained(RUN)
    method = Method("RS-2A", "anderson", 2, batch=100)
    assert speed_report.make_adaptive(PROFILE) == {}
    speed_report.measure_adaptive(RUN, method, images=3, n=120)
    stored = speed_report.stored_adaptive(RUN)
    table = speed_report.adaptive_table(stored, (0.0, 0.5), sigma=0.5, alpha=0.001)
    assert list(table["r"]) == ["0.00", "0.50"] and set(table["images"]) == {"3"}
    for _, row in table.iterrows():
        assert int(row["most votes"]) <= 120 and float(row["share of N %"]) <= 100
        assert abs(int(row["certified, fixed N"]) - int(row["certified, adaptive"])) <= int(row["decided otherwise"])
    assert set(speed_report.make_adaptive(PROFILE)) == {"adaptive_SMALL_s0.50"}
    with monkeypatch.context() as patch:  # votes are stored: the same again without the network
        patch.setattr(votes, "draw_votes", lambda *args, **more: pytest.fail("drawn again"))
        speed_report.measure_adaptive(RUN, method, images=3, n=120)
    assert speed_report.stored_adaptive(RUN).equals(stored)


def test_adaptive_decisions_are_those_of_the_stored_counts():
    """An image with 48 of 50 votes for c_A is decided at the first look, one with half of them never."""
    clear = [{"idx": 0, "n": n, "n_a": round(0.96 * n)} for n in Looks(1_000).at]
    even = [{"idx": 1, "n": n, "n_a": n // 2} for n in Looks(1_000).at]
    row = speed_report.adaptive_table(pd.DataFrame(clear + even), (0.0,), sigma=0.5, alpha=0.001).iloc[0]
    assert (row["certified, fixed N"], row["certified, adaptive"], row["decided otherwise"]) == ("1", "1", "0")
    assert row["most votes"] == "1000" and row["mean votes"] == "525"


def test_the_adaptive_method_needs_no_audit():
    with pytest.raises(ConfigError, match="method = 'SRS-MDEQ-3A' is refused: want one whose votes need no audit"):
        speed_report.measure_adaptive(RUN, PROFILE.method("SRS-MDEQ-3A"), images=1, n=10)
    chosen = speed_report.adaptive_method(PROFILE)
    assert not chosen.serialized and chosen.steps == 5
    anchored = Method("ANCHOR", "naive", 2, start="anchor")
    assert speed_report.adaptive_method(replace(PROFILE, methods=(*PROFILE.methods, anchored))) == anchored
