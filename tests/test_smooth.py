"""Models of one's own: three kinds of model are certified, tables resume, and what would not hold is refused."""

import functools
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import srs
from srs import __main__ as entry
from srs import data, profiles, store
from srs.sealed import DamagedFile
from srs.settings import ConfigError, Method, Sampling
from srs.smoothing import smooth
from tests.helpers import three_classes

SIGMA = 0.25
SRS = Method("SRS-3A", "anderson", 3, start="previous", batch=50, warmup=10, audit=100)
IMAGE = torch.tensor([[[0.8, 0.2], [0.5, 0.4]]])
PER_BATCH = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(4, 3)).eval()


@functools.cache
def digits(split: str) -> data.Images:
    return data.load(profiles.DIGITS, split)


def trained(model: nn.Module, seed: int, steps: int = 40) -> nn.Module:
    """The model after a few steps on noisy digits."""
    torch.manual_seed(seed)
    model.apply(lambda layer: layer.reset_parameters() if hasattr(layer, "reset_parameters") else None)
    optimiser, train = torch.optim.Adam(model.parameters(), 0.01), digits("train")
    for _ in range(steps):
        some = torch.randint(len(train.labels), (64,))
        x = train.pixels[some]
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x + SIGMA * torch.randn_like(x)), train.labels[some]).backward()
        optimiser.step()
    return model.eval()


class Equilibrium(nn.Module):
    """A DEQ as torchdeq's users write it: its own solver in `forward`, and z of two resolutions."""

    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():  # it warns of what is not ours
            warnings.simplefilter("ignore")
            self.deq = pytest.importorskip("torchdeq", reason="torchdeq is not installed").get_deq(f_max_iter=8, b_max_iter=4)
        self.embed, self.fine, self.coarse = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 16)
        self.out = nn.Linear(4 * 64 + 16, 10)

    def inject(self, x):
        return self.embed(x)

    def initial(self, u):
        return torch.zeros_like(u), u.new_zeros(len(u), 16)

    def f(self, z, u):
        fine, coarse = z
        return torch.tanh(u + 0.5 * self.fine(fine)), torch.tanh(self.coarse(fine.mean(dim=(2, 3))) + 0.3 * coarse)

    def head(self, z):
        return self.out(torch.cat([part.flatten(1) for part in z], dim=1))

    def forward(self, x):
        u = self.inject(x)
        return self.head(self.deq(lambda *z: self.f(z, u), self.initial(u))[0][-1])


def test_a_plain_cnn_and_a_torchdeq_model_are_certified_in_every_seed():
    cnn = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    deq, test = Equilibrium(), digits("test")
    for seed in range(20):
        adapted = srs.from_torchdeq(trained(deq, seed).inject, deq.f, deq.head, initial=deq.initial)
        for model in (trained(cnn, seed), adapted):
            predict, radius = srs.Smooth(model, sigma=SIGMA, seed=seed).certify(test.x(0))
            assert predict == int(test.labels[0]) and radius > 0
    with torch.no_grad():  # our solution is torchdeq's
        x = test.x(slice(0, 50))
        u = adapted.inject(x)
        z = adapted.initial(u)
        for _ in range(50):
            z = adapted.f(z, u)
        torch.testing.assert_close(adapted.head(z), deq(x), rtol=0.1, atol=0.1)


# ------------------------------------------------------------------------------------------------ Smooth


def test_a_certificate_is_that_of_certify_image_and_an_image_names_its_own_noise():
    own = srs.Smooth(three_classes(0.3), classes=3, sigma=SIGMA, method=SRS)
    found = own.certificate(IMAGE, n=200, idx=7)
    sampling = Sampling(3, n=200, reference=smooth.STANDARD)
    expected = srs.certify_image(three_classes(0.3), IMAGE, SRS, sampling, sigma=SIGMA, idx=7)
    assert found[:4] == expected[:4] and found.votes.nfe[2] > 0
    assert own.certify(IMAGE, 100, 200) == own.certify(IMAGE[None], 100, 200)


def test_importing_srs_imports_no_torch_and_every_public_name_is_there():
    code = "import sys, srs; print({'torch', 'numpy', 'pandas'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
    assert all(callable(getattr(srs, name)) or name == "ABSTAIN" for name in srs.PUBLIC)
    with pytest.raises(AttributeError, match="module 'srs' has no attribute 'none'"):
        srs.none


class Chance(nn.Linear):
    """Dropout that eval mode does not switch off."""

    def forward(self, x):
        return nn.functional.dropout(super().forward(x.flatten(1)), 0.5)


class Coupled(nn.Module):
    """A DEQ with batch norm of the batch inside f: from a start of zeros the first evaluation does not show it."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4, track_running_stats=False))
        self.head = nn.Linear(4, 3)

    def inject(self, x):
        return x.flatten(1)

    def initial(self, u):
        return torch.zeros_like(u)

    def f(self, z, u):
        return torch.relu(self.mix(z) + u) if len(z) > 1 else torch.relu(0 * z + u)


class Sticky(Coupled):
    """A DEQ that begins where it ended before."""

    kept = None

    def initial(self, u):
        return self.kept if self.kept is not None and self.kept.shape == u.shape else torch.zeros_like(u)

    def f(self, z, u):
        self.kept = 0.9 * z + u
        return self.kept


@pytest.mark.parametrize(("model", "told"), [
    (lambda x: x, "'function' is refused: want a network"), (nn.Flatten(), "a network in train mode"),
    *((model, "want one that gives an image the same logits") for model in (PER_BATCH, Chance(4, 3).eval())),
    (srs.from_torchdeq(nn.Flatten().eval(), lambda z, u: u, nn.Linear(4, 3)), "a network in train mode"),
    (nn.Flatten().eval(), r"shape of the logits = \(1, 4\) is refused: want \(1, 3\)"),
    (nn.Sequential(nn.Flatten(), nn.Linear(5, 3)).eval(), r"image shape = \(1, 2, 2\) is refused: .*mat1 and mat2"),
])  # fmt: skip
def test_what_would_not_hold_is_refused(model, told):
    torch.manual_seed(0)
    with pytest.raises(ConfigError, match=told):
        srs.Smooth(model, classes=3, sigma=SIGMA).certify(IMAGE)
    with pytest.raises(ConfigError, match="module = None is refused"):
        srs.from_torchdeq(lambda x: x.flatten(1), lambda z, u: u, lambda z: z[:, :3])


def test_a_deq_whose_votes_would_depend_on_each_other_is_refused_by_every_door():
    torch.manual_seed(0)
    for model in (Coupled().eval(), Sticky().eval()):
        for certify in (srs.Smooth(model, classes=3).certify, functools.partial(
            srs.certify_image, model, method=Method("RS", "naive", 3), sampling=Sampling(3, n=50), sigma=SIGMA,
        )):  # fmt: skip
            with pytest.raises(ConfigError, match="alone, in a batch and after other images"):
                certify(x=IMAGE)
    stopped = Method("R", "anderson_as_released", 30, tol=0.1)  # a batch at once
    with pytest.raises(ConfigError, match="tol of R = 0.1 is refused: want 0"):
        srs.Smooth(three_classes(), classes=3, method=stopped).certify(IMAGE)


class LowBits(nn.Module):
    """Reads whether x + sigma e was rounded as near 0: class 1 where pixels near 0 have bits below 2^-30."""

    def forward(self, x):
        x = x.flatten(1).double()
        near = x.abs() < 2**-7
        one = (near & (x * 2.0**30 % 1 != 0)).sum(1) > 0.25 * near.sum(1)
        return torch.stack([~one, one], 1).float()


def test_rounding_voids_a_certificate_unless_the_noise_is_exact():
    """As Voracek and Hein (ICLR 2023): two images, each within the other's radius, of two classes."""
    black, grey = torch.zeros(3, 32, 32), torch.full((3, 32, 32), 5 / 255)
    for levels, holds in ((None, False), (255, True)):
        (one, reach), (other, _) = (srs.Smooth(LowBits().eval(), 2, levels=levels).certify(x) for x in (black, grey))
        assert reach > (grey - black).norm() and (one == other) == holds


# ------------------------------------------------------------------------------------------------ tables


def table(tmp_path, count: int = 4, *, model=None, sigma=SIGMA, shift=0.0, labels=(0, 1, 2, 0), **more: object):
    images = [IMAGE.roll(i, 2) + shift for i in range(4)]
    return srs.certify_images(model or three_classes(0.3), images, labels, classes=3, sigma=sigma, n=100, most=count,
                              out=tmp_path / "mine.tsv", **more)  # fmt: skip


def test_a_table_has_cohen_s_columns_and_resumes(tmp_path):
    first = table(tmp_path, 2)
    assert list(first) == ["idx", "label", "predict", "radius", "correct", "time"] and len(first) == 2
    model = three_classes(0.3)
    whole = table(tmp_path, model=model)
    assert model.evaluations > 0 and len(whole) == 4
    spent = model.evaluations
    assert table(tmp_path, model=model)["radius"].tolist() == whole["radius"].tolist()
    assert model.evaluations - spent < 20  # it is looked at, no more
    assert whole["radius"].tolist()[:2] == first["radius"].tolist()
    assert whole["correct"].tolist() == (whole["predict"] == whole["label"]).astype(int).tolist()
    line = srs.plot_certified_accuracy(tmp_path / "mine.tsv").axes[0].lines[0]
    assert line.get_label() == "mine" and line.get_ydata()[line.get_xdata() >= 0][0] == whole["correct"].mean()
    elsewhere = three_classes(0.3)
    elsewhere.train_mean = torch.ones(3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    code = three_classes(0.3)
    code.head = lambda z, head=code.head: -head(z)  # nothing that a digest of weights sees
    models = [{"model": model} for model in (network, elsewhere, code)]
    for other in ({"sigma": 0.3}, {"shift": 0.1}, {"labels": [1] * 4}, *models):
        with pytest.raises(ConfigError, match="another name"):
            table(tmp_path, **other)
    (tmp_path / "mine.tsv").unlink()
    (tmp_path / "mine.tsv.json").write_text('{"precious": 1}')
    with pytest.raises(DamagedFile, match="mine.tsv.json"):
        table(tmp_path)
    for labels in ([0, 1], [0, 1, 2, 3]):
        with pytest.raises(ConfigError, match="labels = .* is refused"):
            table(tmp_path, labels=labels)


def test_cohen_s_own_log_is_drawn(shared):
    line = srs.plot_certified_accuracy(shared("golden", "cohen_resnet110_cifar10_sigma0.50.tsv")).axes[0].lines[0]
    assert line.get_ydata()[line.get_xdata() >= 0][0] == pytest.approx(0.652)


def test_a_folder_is_certified_from_the_command_line(tmp_path, capsys, monkeypatch):
    for i, x in enumerate(np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)):
        (tmp_path / "images" / str(i % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(tmp_path / "images" / str(i % 2) / f"{i}.png")
    (tmp_path / "code").mkdir()
    net = "from torch import nn\nmake_net = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n"
    (tmp_path / "code" / "beside.py").write_text(net)
    (tmp_path / "code" / "own.py").write_text("from beside import make_net\n\ndef make():\n    return make_net().eval()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    words = "certify --model code/own.py:make --images images --channels 1 --n 50 --skip 2 --sigma 0.1"
    torch.manual_seed(0)
    entry.main(words.split())
    out = capsys.readouterr().out
    assert out.startswith("mine.tsv: 2 images, ") and "certified accuracy at r = 0.00: " in out
    assert store.read_rows("mine.tsv")["idx"].tolist() == [0, 2]
    torch.manual_seed(0)
    entry.main([*words.split(), "--workers", "2", "--out", "two.tsv"])
    assert capsys.readouterr().out.replace("two", "mine") == out
    entry.main([*words.split(), "--method", "previous-anderson-1", "--out", "srs.tsv"])
    assert capsys.readouterr().out.startswith("srs.tsv: 2 images, ")
    entry.main("tune --model code/own.py:make --images images --channels 1 --sigma 0.01".split())
    assert capsys.readouterr().out.startswith("plain RS: 1,100 evaluations of f per image")
    for wrong, told in (
        (f"{words} --method anderson", "START-SOLVER-STEPS"), ("certify --model code/own.py:make", "images = '' is refused"),
        (f"{words} --classes 3", "want (1, 3)"), (words.replace(":make", ""), "want FILE.py:FUNCTION"),
        (f"{words} --alpha 0 --out other.tsv", "alpha = 0.0"),
    ):
        with pytest.raises(SystemExit):
            entry.main(wrong.split())
        assert told in capsys.readouterr().err


def test_a_zoo_model_is_one_line():
    model = srs.load("cifar10/SMALL-s0.50-path_independent")
    assert model.train_mean.dim() == 1 and sum(w.numel() for w in model.parameters()) > 200_000
    assert not torch.equal(srs.load("cifar10/SMALL-s0.50").classifier.weight, model.classifier.weight)
    with pytest.raises(ConfigError, match="SMALL-s0.51-paper' is refused: want one of .*cifar10/SMALL-s0.50-path_independent"):
        srs.load("cifar10/SMALL-s0.51")
