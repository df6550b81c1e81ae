"""method: the paper's settings come out as published."""

import pytest

from srs.experiments import method
from srs.profiles import PROFILES

SMOKE, PAPER = PROFILES["smoke"], PROFILES["paper"]
# The paper's tables of hyper-parameters for CIFAR-10, as our notes on it have them: SMALL, LARGE.
ARCHITECTURE = {
    "branches": ("3", "4"), "channels": ("8, 16, 32", "32, 64, 128, 256"), "head channels": ("7, 14, 28", "14, 28, 56, 112"),
    "final channels": ("200", "1,680"), "expansion": ("5", "5"), "groups": ("8 (4 after fusion)",) * 2,
    "downsamples": ("0", "0"), "dropout": ("0.2", "0.22"), "input": ("3 x 32 x 32",) * 2,
}  # fmt: skip
TRAINING = {
    "batch": ("96", "96"), "epochs": ("120", "220"), "optimiser": ("adam", "adam"), "lr": ("0.001", "0.001"),
    "pretrain steps": ("16,000", "16,000"), "pretrain layers": ("8", "8"), "forward steps": ("8", "8"),
    "backward steps": ("7", "7"), "jacobian weight": ("0.5", "0.4"), "jacobian frequency": ("0.05", "0.02"),
    "jacobian until": ("90 of 120", "90 of 220"),
}  # fmt: skip


def test_the_paper_s_settings_come_out_as_published():
    for made, expected in ((method.architecture(PAPER), ARCHITECTURE), (method.training(PAPER), TRAINING)):
        made = made.set_index("setting").filter(like="paper")
        assert {name: tuple(made.loc[name])[:2] for name in expected} == expected
    made = method.architecture(PAPER).set_index("setting").loc["parameters"].filter(like="paper").str.replace(",", "")
    assert made.astype(int).tolist() == pytest.approx([0.25e6, 11.1e6, 1_730_714], rel=0.02)
    methods = method.methods(PAPER).query("profile == 'paper'").set_index("method")
    assert set(methods["batch"][:6]) == {"400"}
    assert methods.loc["SRS-MDEQ-3A", ["audit", "warmup", "auditor"]].tolist() == ["400", "10", "RS-tol"]
    assert methods.loc["MDEQ-30A", ["steps", "audit", "auditor", "pilot"]].tolist() == ["30", "0", "-", "-"]


def test_tables_and_diagrams_come_out_under_their_names(srs_root):
    made = {shown.name for shown in (*method.settings_tables(SMOKE), *method.diagrams(SMOKE))}
    tables = {f"settings_{name}" for name in ("architecture", "training", "methods")}
    assert made == tables | {"diagram_srs", "diagram_votes"}
