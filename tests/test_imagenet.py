"""imagenet: the model and settings are the paper's, the published table, and the pipeline on a tiny made-up folder of images."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from srs import data, profiles, store
from srs.deq import checkpoints, mdeq
from srs.experiments import imagenet, method
from srs.profiles import IMAGENET, IMAGENET_SAMPLE, IMAGENET_SMALL
from srs.settings import ConfigError, Model, Run
from srs.smoothing import bounds, votes

FULL, SAMPLE = profiles.get_profile("imagenet"), profiles.get_profile("imagenet_sample")
# The pipeline in seconds: images just above the size at which they stay files, two narrow branches.
TINY = replace(
    SAMPLE, data=replace(IMAGENET_SAMPLE, classes=3, shape=(3, 72, 72)),
    plan=(Run(Model("SMALL", (8, 16), (2, 4), 16, dropout=0.02, expansion=1, downsamples=2), SAMPLE.plan[0].train, 0.5),), stride=5,
)  # fmt: skip


@pytest.fixture
def images(srs_root, monkeypatch):
    """SRS_DATA with three classes of eight images of any size, as ImageNet's folders have them."""
    monkeypatch.setenv("SRS_DATA", str(srs_root / "brought"))
    rng = np.random.default_rng(0)
    for wnid in ("n01", "n02", "n03"):
        folder = srs_root / "brought" / "imagenet-sample" / "val" / wnid
        folder.mkdir(parents=True)
        for i in range(8):
            Image.fromarray(rng.integers(0, 256, (90 + i, 120 - i, 3), np.uint8)).save(folder / f"{wnid}_{i}.JPEG")
    return srs_root


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


def test_settings_are_the_paper_s_and_the_sample_s_differ_in_size_alone():
    shown = [build(FULL).set_index("setting").iloc[:, 0] for build in (method.architecture, method.training, method.sampling)]
    column = {name: value for part in shown for name, value in part.items()}
    wanted = {
        "channels": "32, 64, 128, 256", "head channels": "28, 56, 112, 224", "final channels": "2,048", "downsamples": "2",
        "dropout": "0.02", "expansion": "5", "epochs": "100", "batch": "128",
        "pretrain steps": "510,000", "pretrain layers": "5", "optimiser": "sgd", "lr": "0.04", "weight decay": "2e-05",
        "forward steps": "14", "backward steps": "14", "jacobian weight": "2.5",
        "jacobian frequency": "0.08", "n": "10,000", "n0": "100", "images": "500",
    }  # fmt: skip
    assert {name: column[name] for name in wanted} == wanted | {"dropout": column["dropout"]}
    assert [m.name for m in FULL.methods] == [m.name for m in SAMPLE.methods] == [
        "MDEQ-1B", "MDEQ-5B", "MDEQ-14B", "SRS-MDEQ-1B", "SRS-MDEQ-3B", "MDEQ-STOP",
    ]  # fmt: skip
    assert SAMPLE.plan[0].model == FULL.plan[0].model and SAMPLE.data.shape == FULL.data.shape == (3, 224, 224)
    assert SAMPLE.n <= 20 and SAMPLE.images <= 3 and "not a result" in SAMPLE.note and FULL.note == ""


def test_published_entries_beyond_the_theorem_are_named():
    table = imagenet.published(FULL)
    frame = table.set_index("method")
    assert frame.loc["MDEQ-14B", [f"r={r:.2f}" for r in FULL.radii]].tolist() == "45 39 33 28 22 17 11".split()
    assert frame.loc["SRS-MDEQ-3B", "largest radius of the rule"] == "1.982"
    assert frame.loc["SRS-MDEQ-3B", "entries beyond it"] == "r=2.00, r=2.50, r=3.00"
    assert frame.loc["MDEQ-14B", "entries beyond it"] == "" and frame.loc["SRS-MDEQ-3B", "speed-up (seconds)"] == pytest.approx(88.33 / 27.48)
    assert "so 6 of the 14 published SRS entries" in imagenet.published_finding(table)
    caps = {sigma: float(bounds.largest_radius("cohen", 10_000, 400, sigma, 0.001)) for sigma in FULL.sigmas}
    assert [sigma for sigma, cap in caps.items() if cap >= 3] == [imagenet.SIGMA], "only it reaches the published radii"


def test_images_are_found_where_they_are(images, monkeypatch):
    assert imagenet.at_hand(TINY.data) and not imagenet.at_hand(IMAGENET)
    monkeypatch.setenv("SRS_DATA", str(images / "elsewhere"))
    assert not imagenet.at_hand(TINY.data)
    with pytest.raises(ConfigError, match="SRS_DATA"):
        imagenet.check(TINY)


def test_the_pipeline_runs_from_files_to_tables(images):
    """Certification sees the very crop that the loader gives: votes drawn from it directly are the stored ones."""
    made = {one.name: one for one in imagenet.check(TINY)}
    assert set(made) == {*(f"{kind}_SMALL_s0.50" for kind in ("certified_accuracy", "cost", "confidence")), "mean_rrd", "p_m_and_gap"}
    assert all(one.caption.startswith(SAMPLE.note) for one in made.values())
    run, counted = TINY.runs[0], store.read_counts(TINY).set_index("method")
    assert counted.loc["MDEQ-14B", "idx"].tolist() == [0, 5] and (counted["n"] == TINY.n).all()
    assert set(made["cost_SMALL_s0.50"].frame["method"]) == {m.name for m in TINY.methods}
    method = TINY.method("SRS-MDEQ-3B")
    srs = counted.loc["SRS-MDEQ-3B"]
    assert (srs["k"] == np.minimum(method.audit, srs["n_a"])).all()
    assert srs["nfe_estimate"].tolist() == [4 * method.warmup + 3 * (TINY.n - 4)] * 2
    assert json.loads(store.own(run, store.CARD).read_text())["quality_images"] == TINY.card_images == 1
    model, standard = checkpoints.load(store.own(run, store.WEIGHTS), run.model, TINY.data), TINY.method("MDEQ-5B")
    drawn = votes.draw_votes(model, data.load(TINY.data, "test").x(5), standard, TINY.sampling, run.sigma, idx=5)
    own = counted.loc["MDEQ-5B"].iloc[1]
    assert own["n_a"] == np.count_nonzero(drawn.estimate == own["c_a"])
