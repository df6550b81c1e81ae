"""method: the paper's settings come out as published, no field is left out; every text of a diagram stands free and inside it."""

import dataclasses
import itertools

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import stats

from srs.analysis import plots
from srs.experiments import method
from srs.profiles import CIFAR_CONTRACTIVE, PROFILES

SMOKE, PAPER = PROFILES["smoke"], PROFILES["paper"]

# ---------------------------------------------------------------------------------------------- settings

# The paper's tables of hyper-parameters for CIFAR-10, as our notes on it have them: SMALL, LARGE.
ARCHITECTURE = {
    "branches": ("3", "4"), "channels per branch": ("8, 16, 32", "32, 64, 128, 256"),
    "head channels": ("7, 14, 28", "14, 28, 56, 112"), "final channels": ("200", "1,680"),
    "expansion in the residual block": ("5", "5"), "group-norm groups": ("8 (4 after fusion)",) * 2,
    "input halved (times)": ("0", "0"), "dropout (variational)": ("0.2", "0.22"), "input": ("3 x 32 x 32",) * 2,
}  # fmt: skip
TRAINING = {
    "batch size": ("96", "96"), "epochs": ("120", "220"), "optimiser": ("adam", "adam"),
    "learning rate": ("0.001", "0.001"),
    "unrolled pre-training (steps)": ("16,000", "16,000"), "unrolled layers": ("8", "8"),
    "forward solver steps (Broyden)": ("8", "8"), "backward solver steps (Broyden)": ("7", "7"),
    "Jacobian penalty: weight": ("0.5", "0.4"), "Jacobian penalty: share of batches": ("0.05", "0.02"),
    "Jacobian penalty: epochs": ("90 of 120", "90 of 220"),
}  # fmt: skip
SAMPLING = {
    "n0 (selection)": "100", "N (estimation)": "10,000", "alpha": "0.001", "test images": "500",
    "every n-th test image": "20", "noise levels sigma": "0.12, 0.25, 0.5, 1",
}  # fmt: skip


def lines(frame: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The paper's part of a table of settings as {name: cells}."""
    columns = [column for column in frame if column.split(":")[0] == "paper"]
    return {name: tuple(cells) for name, *cells in frame[["setting", *columns]].itertuples(index=False)}


def shows(made: pd.DataFrame, expected: dict[str, tuple[str, ...]]) -> None:
    assert {name: lines(made)[name][: len(expected[name])] for name in expected} == expected


def test_the_paper_s_settings_come_out_as_published():
    shows(method.architecture(PAPER), ARCHITECTURE)
    shows(method.training(PAPER), TRAINING)
    shows(method.sampling(PAPER), {name: (value,) for name, value in SAMPLING.items()})
    methods = method.methods(PAPER).query("profile == 'paper'").set_index("method")
    assert set(methods["solved together"][:3]) == {"400"} and set(methods["solved together"][3:6]) == {"400 chains"}
    assert methods.loc["SRS-MDEQ-3A", "K (audited votes)"] == "400"
    assert methods.loc["SRS-MDEQ-3A", "solver steps of the first batch"] == "10"
    assert methods.loc["MDEQ-30A", "evaluations of f per vote"] == "30"
    assert methods.loc["MDEQ-30A", "K (audited votes)"] == "-"


def test_parameters_are_counted():
    small, large, resnet = (int(n.replace(",", "")) for n in lines(method.architecture(PAPER))["parameters (counted)"])
    assert resnet == 1_730_714
    assert small == pytest.approx(0.25e6, rel=0.02) and large == pytest.approx(11.1e6, rel=0.02)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_the_paper_always_stands_beside(profile):
    frame = method.sampling(profile)
    assert list(frame.columns[:2]) == ["setting", profile.name] and {"paper", "imagenet"} <= set(frame.columns)
    assert set(method.methods(profile)["profile"]) >= {profile.name, "paper"}
    assert not method.training(profile).isna().any(axis=None)


@pytest.mark.parametrize("profile", ["smoke", "cifar10"])
def test_every_field_is_printed(profile):
    """A new field of a model, a recipe, a profile or a method cannot be forgotten: it has a line or a column."""
    p = PROFILES[profile]
    model, recipe = p.runs[-1].model, p.runs[-1].train
    tables = {
        model: method.architecture(p)["setting"], recipe: method.training(p)["setting"], p: method.sampling(p)["setting"],
        p.methods[-1]: method.methods(PROFILES["cifar10_gpu"]).columns,
    }  # fmt: skip
    # Told in names or in words of their own, or not what is drawn.
    told = {"name", "recipe", "contraction", "plan", "methods", "auditor", "batch", "attacks", "published", "trains_more", "undrawn"}
    for record, shown in tables.items():
        names = {field.name for field in dataclasses.fields(record)} - told
        assert {method.LABELS.get(name, name.replace("_", " ")) for name in names} <= set(shown), type(record)
    rule = {f"contraction: {field.name.replace('_', ' ')}" for field in dataclasses.fields(CIFAR_CONTRACTIVE.contraction)}
    assert len(rule) == sum(name.startswith("contraction: ") for name in method.training(PROFILES["cifar10"])["setting"])


def test_settings_that_a_recipe_never_reads_are_not_stated():
    made = method.training(PROFILES["cifar10"]).set_index("setting")
    contractive, paper = made["cifar10: SMALL, contractive at sigma 0.25"], made["cifar10: SMALL, paper at sigma 0.25, 0.5"]
    assert contractive["forward solver steps (Broyden)"] == contractive["backward solver steps (Broyden)"] == "-"
    assert paper["forward solver steps (Broyden)"] == "6" and paper["unrolled layers"] == "-"
    assert made["cifar10: SMALL, unrolled"]["Jacobian penalty: weight"] == "-"
    assert contractive["begins with"] == paper["begins with"] == "recipe unrolled"
    assert contractive["dropout (variational)"] == "0" and made["paper: SMALL, paper"]["dropout (variational)"] == "0.2"


# ---------------------------------------------------------------------------------------------- diagrams

DIAGRAMS = {"srs": method.standard_and_srs, "votes": method.vote_conversion}


@pytest.fixture(params=DIAGRAMS.values(), ids=DIAGRAMS)
def drawn(request):
    """A diagram and its texts, each with the rectangle that it covers, in pixels."""
    with plots.style():
        fig = request.param()
        fig.set_dpi(200)
        FigureCanvasAgg(fig).draw()
        texts = [(text.get_text(), text.get_window_extent()) for text in fig.axes[0].texts if text.get_text()]
    return fig, texts


def test_texts_neither_overlap_nor_leave_the_picture(drawn):
    fig, texts = drawn
    assert len(texts) > 10
    for (one, here), (other, there) in itertools.combinations(texts, 2):
        assert not here.overlaps(there), f"{one!r} lies over {other!r}"
    assert fig.get_size_inches()[0] == plots.WIDTH
    for text, box in texts:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= fig.bbox.x1 and box.y1 <= fig.bbox.y1, text


def test_example_is_what_the_theorem_gives():
    """Clopper-Pearson from scipy's beta distribution, by hand."""
    e, (p_m, p_lower, radius) = method.EXAMPLE, method.example()
    assert e.n_1 <= e.n_2 <= method.K and e.n_2 <= e.n_a <= e.n
    assert p_m == pytest.approx(1 - stats.beta.ppf(method.ALPHA / 2, e.n_1, e.n_2 - e.n_1 + 1), abs=1e-9)
    kept = e.n_a - p_m * e.n_a
    by_hand = stats.beta.ppf(method.ALPHA / 2, kept, e.n - kept + 1)
    assert p_lower == pytest.approx(by_hand, abs=1e-3) and p_lower <= by_hand + 1e-9  # a fraction of a vote is no vote
    assert radius == pytest.approx(method.SIGMA * stats.norm.ppf(p_lower), abs=1e-9)


def test_files_come_out_under_their_names_and_twice_alike(srs_root):
    folder, seen = srs_root / "figures" / "smoke", []
    for _ in range(2):
        made = {shown.name for shown in (*method.settings_tables(SMOKE), *method.diagrams(SMOKE))}
        seen.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert seen[0] == seen[1] and len(seen[0]) == 4 * 3 + 2 * 2
    assert made == {f"settings_{name}" for name in ("architecture", "training", "sampling", "methods")} | {"diagram_srs", "diagram_votes"}
