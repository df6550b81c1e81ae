"""method and imagenet: the papers' models, settings and table, and the pipeline on a tiny folder of images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from srs import data, profiles, store
from srs.deq import checkpoints, mdeq
from srs.experiments import certified_accuracy, imagenet, method
from srs.profiles import IMAGENET, IMAGENET_SAMPLE, IMAGENET_SMALL
from srs.settings import Model, Run
from srs.smoothing import bounds, certify, votes
from srs.training import train

FULL, SAMPLE, PAPER = map(profiles.get_profile, ("imagenet", "imagenet_sample", "paper"))
# The pipeline in seconds: images just above the size at which they stay files, two narrow branches.
TINY = replace(
    SAMPLE, data=replace(IMAGENET_SAMPLE, classes=3, shape=(3, 72, 72)),
    plan=(Run(Model("SMALL", (8, 16), (2, 4), 16, 0.02, expansion=1, downsamples=2), SAMPLE.plan[0].train, 0.5),), stride=5,
)  # fmt: skip
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
    *deqs, resnet110 = made.astype(int)
    assert deqs == pytest.approx([0.25e6, 11.1e6], rel=0.02) and resnet110 == 1_730_714  # as in Cohen et al.'s checkpoint
    methods = method.methods(PAPER).query("profile == 'paper'").set_index("method")
    assert set(methods["batch"][:6]) == {"400"}
    assert methods.loc["SRS-MDEQ-3A", ["audit", "warmup", "auditor"]].tolist() == ["400", "10", "RS-tol"]
    assert methods.loc["MDEQ-30A", ["steps", "audit", "auditor", "pilot"]].tolist() == ["30", "0", "-", "-"]


def test_the_model_is_bai_et_al_s():
    """18 million parameters, as their MDEQ-small for ImageNet is known; a state of four branches from 56 x 56 down."""
    dimension, parameters = method.counted(IMAGENET_SMALL, IMAGENET)
    assert round(parameters / 1e6) in (18, 19)
    model = mdeq.build(IMAGENET_SMALL, IMAGENET_SAMPLE, 0).eval()
    with torch.inference_mode():
        u = model.inject(torch.rand(1, 3, 224, 224))
        z = model.f(model.initial(u), u)
        assert model.head(z).shape == (1, 100) and u.shape == (1, 32, 56, 56)
    assert dimension == z.shape[1] == 188_160


def test_the_published_table_is_at_the_sigma_that_reaches_its_radii():
    caps = {run.sigma: float(bounds.largest_radius("cohen", 10_000, 400, run.sigma, 0.001)) for run in FULL.runs}
    assert [sigma for sigma, cap in caps.items() if cap >= 3] == [imagenet.SIGMA], "only it reaches the published radii"


def test_the_pipeline_runs_from_files_to_tables(srs_root, monkeypatch):
    """Certification sees the very crop that the loader gives: votes drawn from it directly are the stored ones."""
    monkeypatch.setenv("SRS_DATA", str(srs_root / "brought"))
    rng = np.random.default_rng(0)
    for wnid in ("n01", "n02", "n03"):
        folder = srs_root / "brought" / "imagenet-sample" / "val" / wnid
        folder.mkdir(parents=True)
        for i in range(8):
            Image.fromarray(rng.integers(0, 256, (90 + i, 120 - i, 3), np.uint8)).save(folder / f"{wnid}_{i}.JPEG")
    run = TINY.runs[0]
    train.train(run, progress=False)
    certify.certify(run, progress=False)
    made = {one.name: one for one in certified_accuracy.tables(store.read_counts(TINY), TINY)}
    assert all(one.caption.startswith(SAMPLE.note) for one in made.values())
    assert set(made["cost_SMALL_s0.50"].frame["method"]) == {m.name for m in TINY.methods}
    counted, srs = store.read_counts(TINY).set_index("method"), TINY.method("SRS-MDEQ-3B")
    assert counted.loc["MDEQ-14B", "idx"].tolist() == [0, 5] and (counted["n"] == TINY.n).all()
    assert counted.loc[srs.name, "nfe_estimate"].tolist() == [4 * srs.warmup + 3 * (TINY.n - 4)] * 2
    model = checkpoints.load(store.own(run, store.WEIGHTS), run.model, TINY.data)
    drawn = votes.draw_votes(model, data.load(TINY.data, "test").x(5), TINY.method("MDEQ-5B"), TINY.sampling, run.sigma, idx=5)
    own = counted.loc["MDEQ-5B"].iloc[1]
    assert own["n_a"] == np.count_nonzero(drawn.estimate == own["c_a"])
