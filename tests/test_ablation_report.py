"""The ablations' tables and figures, on counts that are known."""

from dataclasses import replace
import numpy as np
import pytest
from tests import synthetic

from srs import ablation_report, ablation_tables, figures, recounts, shown, tables, variants
from srs.coverage import ITEMS
from srs.profiles import PROFILES
from srs.recounts import Key
from srs.smoothing import bounds
from srs.smoothing.bounds import Counts, Rule
from srs.store.sealed import paths, results, sealed

DIGITS = replace(PROFILES["digits"], images=4)
RUN = variants.base(DIGITS)
SMOKE = PROFILES["smoke"]
NAMES = {name for item in ITEMS if item.notebook == ablation_report.NOTEBOOK for name in item.artefacts}


@pytest.fixture
def root(srs_root):
    """Counts and cards of the profile's run and of all its variants."""
    synthetic.write_profile(replace(DIGITS, models=DIGITS.models[:1], sigmas=(0.5,)))
    recounts.write(paths.measured(RUN, recounts.NAME), synthetic.recounted(RUN))
    return srs_root


def write_main(run, **by_method):
    """Main tallies in which every method has the given ones, or one plain image."""
    for method in run.profile.methods:
        results.write_tallies(paths.tallies(run, method), by_method.get(method.name.replace("-", "_"), [synthetic.tally()]))


# ---------------------------------------------------------------------------------------------- everything


def test_all_that_coverage_lists_is_made(root):
    made, drawn = ablation_report.make(DIGITS)
    assert set(made) | set(drawn) == NAMES | {"ablation_n", "ablation_k", "ablation_alpha"}
    listed = shown.listed(paths.shown(DIGITS, "x").parent)
    assert {name: about.kind for name, about in listed.items()} == dict.fromkeys(made, "table") | dict.fromkeys(drawn, "figure")
    assert all(about.made_by == "32_ablations" and "{" not in about.caption for about in listed.values())
    for name in ("ablation_n", "ablation_n_figure"):
        assert "simulation" in listed[name].caption
    for name in ("ablation_solver", "ablation_start", "ablation_jacobian", "ablation_smoothadv"):
        assert "4 test images" in listed[name].caption
    for name, frame in made.items():
        text = frame.to_csv()
        assert ("released" in text) == ("unsound" in text), name
        assert "released" not in text or "do not hold" in listed[name].caption


def test_fewer_images_are_said_to_be_fewer(srs_root):
    assert "5 of the 25 evaluated test images, the first ones" in ablation_report._where(replace(RUN, profile=PROFILES["digits"]), 5)


def test_from_tallies_alone_elimination_and_alpha_are_made_and_the_rest_is_named(srs_root):
    synthetic.write_profile(replace(DIGITS, models=DIGITS.models[:1], sigmas=(0.5,)))
    for method in DIGITS.methods:  # as they are shipped
        target = paths.shipped_tallies(RUN, method)
        target.parent.mkdir(parents=True, exist_ok=True)
        paths.tallies(RUN, method).rename(target)
    with pytest.warns(UserWarning, match="no counts are stored for ablation_k, .*ablation_smoothadv: run `python -m srs.ablations`"):
        made, drawn = ablation_report.make(DIGITS)
    assert set(made) == {"ablation_elimination", "ablation_alpha"} and set(drawn) == {"ablation_alpha_figure"}


def test_a_model_that_is_not_trained_costs_its_own_table_only(root):
    counted = {key: tallies for key, tallies in synthetic.recounted(RUN).items() if not key.run.endswith("smoothadv")}
    recounts.write(paths.measured(RUN, recounts.NAME), counted)
    with pytest.warns(UserWarning, match="no counts are stored for ablation_smoothadv: run"):
        made, _ = ablation_report.make(DIGITS)
    assert "ablation_jacobian" in made and "ablation_smoothadv" not in made


# ---------------------------------------------------------------------------------------------- numbers


def test_elimination_is_each_rule_s_own_radius(srs_root):
    """One image: 390 SRS votes of 400 for c_A, 20 of 100 audited ones wrong; the full solve gives 320."""
    run = variants.base(replace(SMOKE, images=1, n=400))
    srs = synthetic.tally(n=400, n_a=390, k=100, m=20, n_2=98, n_1=79, n_wrong=78, n_differ=80)
    write_main(run, MDEQ_30A=[synthetic.tally(n=400, n_a=320)], SRS_MDEQ_3A=[srs])
    frame = ablation_tables.elimination(run, tables.load(ablation_tables.alone(run)))
    rows = frame[frame["method"] == "SRS-MDEQ-3A"].set_index("elimination")
    counts = Counts(n=400, n_a=390, k=100, m=20, n_2=98, n_1=79)
    for label, rule in {"audit (ours)": "audit", "theorem31 (paper)": "theorem31", "released (unsound)": "released", ablation_tables.NOTHING: "cohen"}.items():
        with tables.silent_about_released():
            radius = bounds.certify(rule, counts, 0.5, 0.001)[1]
        assert rows.loc[label, "ACR"] == tables.radius(float(radius)), label
        assert rows.loc[label, "mean p_m %"] == "20.00"
    # Without elimination the votes are believed: 390 of 400 certify more than the 320 that there are.
    assert rows["images above RS's radius"].to_dict() == {
        "audit (ours)": "0", "theorem31 (paper)": "0", "released (unsound)": "1", ablation_tables.NOTHING: "1",
    }  # fmt: skip
    assert (rows.loc[ablation_tables.NOTHING, "r=0.75"], rows.loc["audit (ours)", "r=0.75"]) == ("100.0", "0.0")


def test_alpha_is_the_one_that_the_line_names(srs_root):
    run = variants.base(replace(SMOKE, images=1))
    write_main(run, MDEQ_30A=[synthetic.tally(n=100, n_a=90)])
    frame = ablation_tables.by_alpha(run, tables.load(ablation_tables.alone(run)))
    rows = frame[frame["method"] == "MDEQ-30A"].set_index("alpha")
    assert list(rows.index) == ["0.1", "0.01", "0.001", "0.0001"]
    for alpha in rows.index:
        assert rows.loc[alpha, "ACR"] == tables.radius(float(bounds.certify("cohen", Counts(n=100, n_a=90), 0.5, float(alpha))[1]))


def test_what_is_shown_of_k_is_what_was_counted(root):
    counted = recounts.stored(RUN)
    frame = ablation_tables.by_k(RUN, counted).set_index(["method", "rule", "K"]).sort_index()
    for k in variants.ks(DIGITS):
        own = counted[Key(RUN.id, "SRS-MDEQ-1N", 400, k)]
        assert (own["k"] == np.minimum(k, own["n_a"])).all()
        row = frame.loc["SRS-MDEQ-1N", "audit (ours)", str(k)]
        assert row["ACR"] == tables.radius(ablation_tables.acr(RUN, own, Rule.AUDIT))
    assert float(frame.loc["SRS-MDEQ-1N", "audit (ours)", "400"]["ACR"]) > float(frame.loc["SRS-MDEQ-1N", "audit (ours)", "10"]["ACR"])


def test_extrapolation_keeps_the_shares_and_nothing_else():
    own = synthetic.array(
        synthetic.tally(n=400, n_a=400, n_wrong=0), synthetic.tally(idx=1, n=400, n_a=300, n_wrong=60, label=2),
        synthetic.tally(idx=2, n=400, n_a=0, n_wrong=-1),
    )  # fmt: skip
    far = ablation_tables.extrapolated(own, 100_000, 400)
    assert len(far) == 3 * ablation_tables.DRAWS and (far["n"] == 100_000).all()
    assert (far["n_a"][0::3] == 100_000).all() and (far["m"][0::3] == 0).all() and (far["n_a"][2::3] == 0).all()
    assert far["n_a"][1::3].mean() == pytest.approx(75_000, rel=0.002)
    assert far["n_wrong"][1::3].mean() == pytest.approx(15_000, rel=0.01)
    assert far["m"][1::3].mean() == pytest.approx(80, rel=0.1) and (far["k"][1::3] == 400).all()
    assert far["label"].tolist() == ablation_tables.DRAWS * [3, 2, 3]
    assert (ablation_tables.extrapolated(own, 1_000, 0)["k"] == 0).all()
    again = ablation_tables.extrapolated(own, 100_000, 400)
    assert all((again[name] == far[name]).all() for name in results.COLUMNS)


def test_stored_and_extrapolated_n_are_told_apart(root):
    counted = recounts.stored(RUN)
    frame = ablation_tables.by_n(RUN, counted)
    assert set(frame["method"]) == {"MDEQ-30A", "SRS-MDEQ-3A", "SRS-MDEQ-3N"}
    by = {source: set(frame[frame["from"] == source]["N"]) for source in ("stored votes", "extrapolated")}
    assert by == {"stored votes": {"100", "200", "400"}, "extrapolated": {"1,000", "10,000", "100,000"}}
    assert set(frame[(frame["from"] == "extrapolated") & (frame["method"] == "SRS-MDEQ-3A")]["K"]) == {"100", "400"}
    # RS gains by more votes; what SRS certifies at a fixed K is capped.
    cap = bounds.largest_radius(Rule.AUDIT, 100_000, 100, 0.5, 0.001)
    far = [own for m, source, n, k, own in ablation_tables.of_n(RUN, counted) if m.serialized and n == 100_000 and k == 100]
    assert all(ablation_tables.certificates(RUN, own, Rule.AUDIT).radius.max() <= cap for own in far)
    fig = ablation_tables.n_figure(RUN, counted)
    lines = {line.get_label(): line.get_linestyle() for line in fig.axes[0].get_lines()}
    assert {label for label, style in lines.items() if style == "-"} == {"N = 100", "N = 200", "N = 400"}
    assert len({ax.get_xlim() for ax in fig.axes}) == 1


def test_variants_are_shown_on_the_first_images(root):
    counted = recounts.stored(RUN)
    one = replace(RUN, profile=replace(DIGITS, name="smoke"))  # of which one image is drawn for
    frame = ablation_tables.varied(one, counted, "start", variants.starts(DIGITS))
    assert frame["start"].tolist() == 2 * ["zero", "clean", "previous", "centroid", "calibrated", "anchor"]
    for i, variant in enumerate(variants.starts(DIGITS)):
        own = counted[ablation_tables.usual(RUN, variant.method)][:1]
        rule = Rule.AUDIT if variant.method.serialized else Rule.COHEN
        assert frame.loc[i, "rule"] == tables.RULE_LABELS[rule]
        assert frame.loc[i, "ACR"] == tables.radius(ablation_tables.acr(RUN, own, rule))
        assert frame.loc[i, "disagreement %"] == f"{100 * own['n_differ'].sum() / own['n'].sum():.2f}"


def test_penalised_batches_are_counted_from_the_recipe(root):
    without = replace(RUN, train=variants.nojacobian_recipe(RUN))
    assert ablation_tables.penalised_batches(without) is None, "no model card"
    for run in (RUN, without):
        sealed.write_json(paths.card(run), {"steps": 416})
    assert ablation_tables.penalised_batches(without) == 0
    assert ablation_tables.penalised_batches(RUN) == pytest.approx(0.05 * 12 * 26)


def test_a_sweep_has_a_panel_per_method_and_a_line_per_rule():
    x, y = np.array([10, 100]), np.array([0.1, 0.2])
    fig = ablation_tables.swept({"A": {"RS, cohen": (x, y), "audit (ours)": (x, y)}, "B": {"RS, cohen": (x, y)}}, label="K")
    shown_axes = [ax for ax in fig.axes if ax.axison]
    assert [ax.get_title() for ax in shown_axes] == ["A", "B"] and [ax.get_xscale() for ax in shown_axes] == ["log", "log"]
    styles = [line.get_linestyle() for line in shown_axes[0].get_lines()]
    assert styles[0] == "-" and styles[1] != "-" and shown_axes[1].get_xlabel() == "K"
    assert fig.get_figwidth() == figures.WIDTH
