"""imagenet: its settings against the paper's, the published table, and the pipeline on a tiny made-up folder of images."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from srs import data, profiles, store
from srs.deq import checkpoints, mdeq
from srs.experiments import imagenet
from srs.profiles import IMAGENET, IMAGENET_SAMPLE, IMAGENET_SMALL
from srs.settings import ConfigError, Model, Run
from srs.smoothing import bounds, certify, votes
from srs.training import train
from tests import synthetic

SMOKE = profiles.get_profile("smoke")
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
    table = imagenet.settings_table((FULL, SAMPLE)).set_index("setting")
    assert round(int(table.loc["parameters", "imagenet"].replace(",", "")) / 1e6) in (18, 19)
    model = mdeq.build(IMAGENET_SMALL, IMAGENET_SAMPLE, 0).eval()
    assert table.loc["parameters", "imagenet_sample"] == f"{sum(p.numel() for p in model.parameters()):,}"
    with torch.inference_mode():
        u = model.inject(torch.rand(1, 3, 224, 224))
        z = model.f(model.initial(u), u)
        assert model.head(z).shape == (1, 100)
    assert u.shape == (1, 32, 56, 56)
    assert table.loc["numbers in the state z of an image", "imagenet"] == f"{z.shape[1]:,}" == "188,160"


def test_settings_are_the_paper_s_and_the_sample_s_differ_in_size_alone():
    column = imagenet.settings_table((FULL,)).set_index("setting")["imagenet"]
    wanted = {
        "channels": "32, 64, 128, 256", "head channels": "28, 56, 112, 224", "final channels": "2048", "input halved, times": "2",
        "variational dropout": "0.02", "expansion in the residual block": "5",
        "epochs, batch": "100, 128", "unrolled pre-training": "510,000 steps of 5 layers",
        "optimiser, learning rate, weight decay": "sgd, 0.04 (cosine), 2e-05", "sigma": "0.25, 0.5, 1.0",
        "solver steps in training, forward / backward": "14 / 14, Broyden", "n0, N": "100, 10,000",
        "Jacobian penalty, weight and frequency": "2.5, 0.08", "methods": "MDEQ-1B, MDEQ-5B, MDEQ-14B, SRS-MDEQ-1B, SRS-MDEQ-3B",
        "chains, warm-up steps, K": "400, 10, 400", "images, every so many of the test split": "500, 100",
        "radii": "0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0", "image (channels, height, width)": "3, 224, 224",
    }  # fmt: skip
    assert {name: column[name] for name in wanted} == wanted and FULL.plan[0].train.jacobian_until == 1
    assert SAMPLE.plan[0].model == FULL.plan[0].model and SAMPLE.data.shape == FULL.data.shape
    assert [m.name for m in SAMPLE.methods] == [m.name for m in FULL.methods]
    assert SAMPLE.n <= 20 and SAMPLE.images <= 3 and "not a result" in SAMPLE.note and FULL.note == ""


def test_published_entries_beyond_the_theorem_are_named():
    table = imagenet.published(FULL)
    frame = table.set_index("method")
    assert frame.loc["MDEQ-14B", [f"r={r:.2f}" for r in FULL.radii]].tolist() == "45 39 33 28 22 17 11".split()
    assert frame.loc["SRS-MDEQ-3B", "largest radius of the rule"] == "1.982"
    assert frame.loc["SRS-MDEQ-3B", "entries beyond it"] == "r=2.00, r=2.50, r=3.00"
    assert frame.loc["MDEQ-14B", "entries beyond it"] == "" and frame.loc["SRS-MDEQ-3B", "speed-up (seconds)"] == pytest.approx(88.33 / 27.48)
    assert "so 6 of the 14 published SRS entries" in imagenet.published_finding(table)
    table.loc[table["method"] == "SRS-MDEQ-3B", "entries beyond it"] = ""
    assert "so 3 of the 14 published SRS entries" in imagenet.published_finding(table)
    caps = {sigma: float(bounds.largest_radius("cohen", 10_000, 400, sigma, 0.001)) for sigma in FULL.sigmas}
    assert [sigma for sigma, cap in caps.items() if cap >= 3] == [imagenet.SIGMA], "only it reaches the published radii"


def test_tables_need_no_images(srs_root):
    assert [table.name for table in imagenet.tables(SMOKE, FULL, SAMPLE)] == ["imagenet_settings", "imagenet_published"]
    assert all(store.shown(SMOKE, f"imagenet_{name}.csv").is_file() for name in ("settings", "published"))


def test_images_are_found_where_they_are(images, monkeypatch):
    assert imagenet.at_hand(TINY.data) and not imagenet.at_hand(IMAGENET)
    monkeypatch.setenv("SRS_DATA", str(images / "elsewhere"))
    assert not imagenet.at_hand(TINY.data)
    with pytest.raises(ConfigError, match="SRS_DATA"):
        imagenet.check(SMOKE, TINY)


def test_the_pipeline_runs_from_files_to_figures(images):
    table, figure = imagenet.check(SMOKE, TINY)
    assert len(table.frame) == 3 + 2 * 2 and set(table.frame["method"]) == {m.name for m in TINY.methods}
    row, run = table.frame.set_index("method").loc["MDEQ-14B"], TINY.runs[0]
    own = synthetic.counted(run, TINY.method("MDEQ-14B"))
    assert own["idx"].tolist() == [0, 5] and own["label"].tolist() == [0, 0] and (own["n"] == TINY.n).all()
    assert row["NFE/image"] == str(14 * (TINY.n0 + TINY.n)) and row["votes for c_A %"] == f"{100 * own['n_a'].sum() / (2 * TINY.n):.1f}"
    method = TINY.method("SRS-MDEQ-3B")
    srs = synthetic.counted(run, method)
    assert (srs["k"] == np.minimum(method.audit, srs["n_a"])).all()
    assert srs["nfe_estimate"].tolist() == [4 * method.warmup + 3 * (TINY.n - 4)] * 2
    assert json.loads(store.own(run, store.CARD).read_text())["quality_images"] == TINY.card_images == 1
    counted = store.read_counts(TINY)
    assert imagenet.check_finding(counted) in table.caption and imagenet.check_finding(counted.assign(n_a=0)).startswith("0 % of all votes")
    assert table.caption.count(SAMPLE.note) == figure.caption.count(SAMPLE.note) == 1
    assert SAMPLE.note in store.shown(TINY, "mean_rrd.md").read_text(), "the sample's own tables bear its note, too"


def test_votes_of_a_large_image_are_those_of_its_pixels(images):
    """Certification sees the very crop that the loader gives: votes drawn from it directly are the stored ones."""
    run = TINY.runs[0]
    train.train(run, progress=False)
    certify.certify(run, methods=("MDEQ-5B",), progress=False)
    model = checkpoints.load(store.own(run, store.WEIGHTS), run.model, TINY.data)
    x = data.load(TINY.data, "test").x(5)
    drawn = votes.draw_votes(model, x, TINY.method("MDEQ-5B"), TINY.sampling, run.sigma, idx=5)
    own = synthetic.counted(run, TINY.method("MDEQ-5B"))[1]
    assert own["n_a"] == np.count_nonzero(drawn.estimate == own["c_a"])
