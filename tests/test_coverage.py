"""coverage: numbers as published and with a source, ours as the rules give them, and a complete list of the paper's items."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests import synthetic
from tests.helpers import at_sigmas

from srs import profiles, sealed, store
from srs.experiments import coverage
from srs.experiments.coverage import OURS
from srs.profiles import PROFILES
from srs.settings import ConfigError
from srs.smoothing import bounds
from srs.smoothing.bounds import Counts

SMOKE = replace(at_sigmas(profiles.get_profile("smoke"), 0.25, 0.5), images=30)
ITEMS = coverage.read("items").set_index("item", drop=False)
LIPSCHITZ = [0, 36 / 255, 72 / 255, 108 / 255, 1]  # the radii of that literature


def numbers(name: str) -> np.ndarray:
    """Certified accuracy as others published it."""
    return coverage.read(name).filter(like="r=").apply(pd.to_numeric).to_numpy()


def test_numbers_are_those_of_our_notes_and_of_the_public_log(shared):
    """The one difference is known: at 36/255 the notes have another value for SLL than the survey."""
    assert all((coverage.read(name)["source"] != "").all() for name in ("lipschitz", "smoothing"))
    notes = json.loads(shared("..", "paper", "published.json").read_text())
    theirs, differ = notes["lipschitz_cifar10"], set()
    for name, row in zip(coverage.read("lipschitz")["method"], numbers("lipschitz")):
        known = np.array(theirs.get(name.replace(" + ", "+"), [None] * 5), float)
        differ |= {(name, i) for i in range(5) if not np.array_equal(known[i], row[i], equal_nan=True)}
    assert differ == {("SLL X-Large", 1)} and LIPSCHITZ == pytest.approx(theirs["eps"], abs=1e-4)
    paper = notes["cifar10"]["large_sigma0.50"] | notes["cifar10"]["small_sigma0.50"]
    for row, percent in zip(coverage.read("smoothing").itertuples(), numbers("smoothing").tolist()):
        if row.ACR:
            assert notes["smoothing_cifar10_sigma0.50"][row.method] == [*percent, float(row.ACR)]
        else:
            assert paper[row.method.replace(" SMALL, SmoothAdv", " (SmoothAdv)")]["acc"] == percent
    log = pd.read_csv(shared("golden", "cohen_resnet110_cifar10_sigma0.50.tsv"), sep="\t")
    right, resnet = log["correct"] == 1, coverage.read("smoothing").set_index("method").loc["ResNet-110"].filter(like="r=")
    shares = [100 * (right & (log["radius"] >= r)).mean() for r in np.arange(7) / 4]
    assert [str(int(share)) for share in shares] == resnet.tolist()  # without its decimals


def test_ours_are_what_the_rules_give_image_by_image(srs_root):
    none = coverage.compare(SMOKE, "lipschitz")
    assert len(none) == len(coverage.read("lipschitz")) + 4 and OURS not in set(none["source"]), "without counts"
    assert set(none[none["method"].str.startswith("SRS")]["certificate"]) == {coverage.UNSTATED}
    synthetic.write_profile(SMOKE)
    run = SMOKE.runs[1]
    sealed.write_json(store.own(SMOKE.runs[0], store.CARD), store.card(SMOKE.runs[0]) | {"data": "digits, JPEG copies"})
    ours = coverage.compare(SMOKE, "lipschitz").query("source == @OURS").set_index(["method", "sigma"])
    assert ours["data"].tolist() == ["digits, JPEG copies, 30 images"] * 2 + ["digits, 30 images"] * 2
    t = pd.DataFrame(synthetic.counted(run, SMOKE.method("SRS-MDEQ-3A")))
    counts = Counts(**{name: t[name].to_numpy() for name in ("n", "n_a", "k", "m")})
    p_lower, radius = bounds.certify("audit", counts, run.sigma, SMOKE.alpha)
    right, row = (p_lower > 0.5) & (t["c_a"] == t["label"]), ours.loc["SRS-MDEQ-3A SMALL", run.sigma]
    assert row.filter(like="r=").tolist() == pytest.approx([100 * (right & (radius >= r)).mean() for r in LIPSCHITZ])
    assert row["certificate"] == "audit"


def test_28_tables_and_12_figures_each_once_in_profiles_with_the_model_the_sigma_and_the_data():
    assert list(ITEMS["item"]) == [f"T{i}" for i in range(1, 29)] + [f"F{i}" for i in range(1, 13)]
    assert ITEMS.loc[ITEMS["imagenet"] == "", "artefact"].is_unique, "one artefact stands for two items"
    assert all((Path(__file__).parents[1] / "notebooks" / f"{name}.ipynb").is_file() for name in ITEMS["notebook"])
    made = {number: [name for name, p in PROFILES.items() if coverage.wanted(p, item)] for number, item in ITEMS.iterrows()}
    assert made["T1"] == made["F3"] == made["T25"] == ["digits", "cifar10_gpu", "paper"]
    assert made["T2"] == ["digits", "cifar10", "cifar10_gpu", "paper", "smoke"] and made["T15"] == made["T2"][:-1]
    t16 = [coverage.wanted(PROFILES[name], ITEMS.loc["T16"]) for name in ("imagenet", "smoke")]
    assert t16 == ["certified_accuracy_SMALL_s0.25", "imagenet_published"]


def test_a_profile_is_complete_only_with_everything(srs_root):
    """A file of the right name and kind stands for each item; ImageNet's published figures stand in for its tables."""
    with pytest.raises(ConfigError, match=r"T22 \(mean_rrd\)"):
        coverage.require_complete(SMOKE)
    for _, item in ITEMS.iterrows():
        sealed.write(store.shown(SMOKE, item["artefact"] + {"T": ".csv", "F": ".pdf"}[item["item"][0]]), b"")
    coverage.require_complete(SMOKE)
    state = coverage.items(SMOKE).set_index("item").iloc[:, -1]
    assert state[["T2", "T16", "T1"]].tolist() == ["yes", "published figures only", "not in this profile"]
    store.shown(SMOKE, "mean_rrd.csv").rename(store.shown(SMOKE, "mean_rrd.pdf"))  # a figure is no table
    assert "T22 (mean_rrd)" in coverage.coverage(SMOKE).caption
