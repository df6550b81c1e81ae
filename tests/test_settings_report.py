"""settings_report: the paper's settings come out as published, and no field of a setting is left out."""

import dataclasses
from dataclasses import replace

import pandas as pd
import pytest
from tests.test_config import other

from srs import profiles, settings, settings_report, shown
from srs.profiles import CIFAR_CONTRACTIVE, PROFILES
from srs.settings import Method, Model, Profile, Train

SMOKE, PAPER = PROFILES["smoke"], PROFILES["paper"]

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


IMAGENET = {
    "branches": "4", "channels per branch": "32, 64, 128, 256", "head channels": "28, 56, 112, 224",
    "final channels": "2,048", "expansion in the residual block": "5", "input halved (times)": "2",
    "dropout (variational)": "0.02", "batch size": "128", "epochs": "100", "optimiser": "sgd", "learning rate": "0.04",
    "weight decay": "2e-05", "unrolled pre-training (steps)": "510,000", "unrolled layers": "5",
    "forward solver steps (Broyden)": "14", "backward solver steps (Broyden)": "14", "Jacobian penalty: weight": "2.5",
    "Jacobian penalty: share of batches": "0.08", "Jacobian penalty: epochs": "100 of 100",
}  # fmt: skip


def lines(frame: pd.DataFrame, profile: str = "paper") -> dict[str, tuple[str, ...]]:
    """A profile's part of a table of settings as {name: cells}."""
    columns = [column for column in frame if column.split(":")[0] == profile]
    return {name: tuple(cells) for name, *cells in frame[["setting", *columns]].itertuples(index=False)}


def shows(made: pd.DataFrame, expected: dict[str, tuple[str, ...]]) -> None:
    assert {name: lines(made)[name][: len(expected[name])] for name in expected} == expected


def test_the_paper_s_settings_come_out_as_published():
    shows(settings_report.architecture(PAPER), ARCHITECTURE)
    shows(settings_report.training(PAPER), TRAINING)
    shows(settings_report.sampling(PAPER), {name: (value,) for name, value in SAMPLING.items()})
    methods = settings_report.methods(PAPER).query("profile == 'paper'").set_index("method")
    assert set(methods["solved together"][:3]) == {"400"} and set(methods["solved together"][3:]) == {"400 chains"}
    assert methods.loc["SRS-MDEQ-3A", "K (audited votes)"] == "400"
    assert methods.loc["SRS-MDEQ-3A", "solver steps of the first batch"] == "10"
    assert methods.loc["MDEQ-30A", "evaluations of f per vote"] == "30"
    assert methods.loc["MDEQ-30A", "K (audited votes)"] == "-"


@pytest.mark.skipif("imagenet" not in PROFILES, reason="there is no profile imagenet yet")
def test_the_paper_s_imagenet_settings_come_out_as_published():
    both = lines(settings_report.architecture(PAPER), "imagenet") | lines(settings_report.training(PAPER), "imagenet")
    assert {name: both[name] for name in IMAGENET} == {name: (value,) for name, value in IMAGENET.items()}


def test_parameters_are_counted():
    counts = (int(n.replace(",", "")) for n in lines(settings_report.architecture(PAPER))["parameters (counted)"])
    small, large, resnet = counts
    assert resnet == 1_730_714
    assert small == pytest.approx(0.25e6, rel=0.02) and large == pytest.approx(11.1e6, rel=0.02)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_the_paper_always_stands_beside(profile):
    frame = settings_report.sampling(profile)
    assert list(frame.columns[:2]) == ["setting", profile.name] and "paper" in frame.columns
    assert set(settings_report.methods(profile)["profile"]) >= {profile.name, "paper"}
    assert not settings_report.training(profile).isna().any(axis=None)


def printed(monkeypatch, profile: Profile) -> str:
    """Every table of a profile that takes another's place."""
    monkeypatch.setitem(profiles.PROFILES, profile.name, profile)
    made = (settings_report.architecture, settings_report.training, settings_report.sampling, settings_report.methods)
    return "\n".join(table(profile).to_csv() for table in made)


def with_model(model: Model) -> Profile:
    return replace(SMOKE, models=((model, SMOKE.models[0][1]),))


def with_recipe(train: Train) -> Profile:
    return replace(SMOKE, models=((SMOKE.models[0][0], train),))


def with_method(method: Method) -> Profile:
    return replace(SMOKE, methods=(*SMOKE.methods[:-1], method))


MODEL, RECIPE = SMOKE.models[0]
ANOTHER = {  # where a field cannot just be another value of its type
    "channels": (16, 16), "head_channels": (4, 12), "begin": replace(RECIPE, recipe="first"), "groups": 4,
    "fewer": settings.Fewer((0.5,), ("MDEQ-30A",), 2), "data": profiles.CIFAR10, "alpha": 0.01, "start": "clean", "jacobian_until": 0.25,
    "auditor": SMOKE.methods[0], "recipes_at": ((0.5, replace(RECIPE, epochs=3)),), "sigmas": (0.25,), "reference": "MDEQ-5A", "name": "other",
}  # fmt: skip


def fields(record: object, *less: str) -> list[str]:
    return [field.name for field in dataclasses.fields(record) if field.name not in less]


CHANGES = (
    [(with_model, MODEL, name) for name in fields(MODEL)]
    + [(with_recipe, RECIPE, name) for name in fields(RECIPE, "contraction")]
    + [(with_method, SMOKE.methods[-1], name) for name in fields(Method, "pilot")]
    + [(with_method, replace(SMOKE.methods[-1], start="centroid"), "pilot")]
    + [(lambda profile: profile, SMOKE, name) for name in fields(SMOKE, "models", "methods")]
)


@pytest.mark.parametrize(("put", "record", "name"), CHANGES, ids=[f"{type(r).__name__}.{n}" for _, r, n in CHANGES])
def test_every_field_is_printed(monkeypatch, put, record, name):
    before = printed(monkeypatch, put(record))
    changed = ANOTHER[name] if name in ANOTHER else other(getattr(record, name))
    assert printed(monkeypatch, put(replace(record, **{name: changed}))) != before


@pytest.mark.parametrize("name", fields(CIFAR_CONTRACTIVE.contraction))
def test_contraction_is_printed_where_it_is_used(monkeypatch, name):
    rule = replace(CIFAR_CONTRACTIVE.contraction, **{name: other(getattr(CIFAR_CONTRACTIVE.contraction, name))})
    changed = replace(CIFAR_CONTRACTIVE, contraction=rule)
    assert printed(monkeypatch, with_recipe(changed)) != printed(monkeypatch, with_recipe(CIFAR_CONTRACTIVE))
    assert "contraction" not in printed(monkeypatch, with_recipe(RECIPE))


def test_settings_that_a_recipe_never_reads_are_not_stated():
    made = settings_report.training(PROFILES["cifar10"]).set_index("setting")
    contractive, paper = made["cifar10: SMALL, contractive"], made["cifar10: SMALL, paper"]
    assert contractive["forward solver steps (Broyden)"] == contractive["backward solver steps (Broyden)"] == "-"
    assert paper["forward solver steps (Broyden)"] == "6" and paper["unrolled layers"] == "-"
    assert made["cifar10: SMALL, unrolled"]["Jacobian penalty: weight"] == "-"
    assert contractive["begins with"] == paper["begins with"] == "recipe unrolled"
    assert contractive["dropout (variational)"] == "0" and made["paper: SMALL, paper"]["dropout (variational)"] == "0.2"


def test_files_are_the_same_bytes_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SRS_ROOT", str(tmp_path))
    made = settings_report.make_settings(SMOKE)
    folder = tmp_path / "figures" / "smoke"
    assert {p.name for p in folder.iterdir()} == {f"{n}.{end}" for n in made for end in ("md", "tex", "csv", "json")}
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    settings_report.make_settings(SMOKE)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert all(about.made_by == "05_method" for about in shown.listed(folder).values())
