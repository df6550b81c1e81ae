"""Splits of the digits, image folders, and the images that are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srs import data, profiles, sealed, settings, store
from srs.profiles import CIFAR10, DIGITS, IMAGENET
from srs.settings import ConfigError
from tests.helpers import digits


def keys(images):
    """One hashable key per image."""
    return [images.x(i).numpy().tobytes() for i in range(len(images.labels))]


def test_digits_splits_are_disjoint_and_complete():
    splits = {name: data.load(DIGITS, name) for name in data.SPLITS}
    assert {name: len(s.labels) for name, s in splits.items()} == {"train": 1294, "val": 143, "test": 360}
    train, val, test = (keys(splits[name]) for name in ("train", "val", "test"))
    # The bundled file has no two equal images, so that equal pixels would be the same image.
    assert len({*train, *val, *test}) == 1797


@pytest.mark.parametrize("split", data.SPLITS)
def test_digits_are_images_of_every_class(split):
    images = data.load(DIGITS, split)
    assert images.pixels.shape[1:] == DIGITS.shape and images.x(0).dtype == torch.float32
    assert 0 == images.pixels.min() and images.pixels.max() == 1
    counts = torch.bincount(images.labels, minlength=10)
    assert len(counts) == 10 and counts.min() >= 0.03 * len(images.labels)
    assert "digits" in images.source


def test_digits_are_scikit_learn_s():
    from sklearn.datasets import load_digits

    theirs = load_digits()
    labels = {x.astype(np.float32).tobytes(): y for x, y in zip(theirs.images / 16, theirs.target)}
    for split in data.SPLITS:
        images = data.load(DIGITS, split)
        assert [labels[key] for key in keys(images)] == images.labels.tolist()


def test_digits_normalisation_is_that_of_the_training_images():
    x = data.load(DIGITS, "train").pixels
    assert float(x.mean()) == pytest.approx(DIGITS.mean[0], abs=0.005)
    assert float(x.std()) == pytest.approx(DIGITS.std[0], abs=0.005)


# ---------------------------------------------------------------------------------------------- image folders


@pytest.fixture
def folder(tmp_path, monkeypatch, srs_root):
    """SRS_DATA with an image tree that a test fills."""
    monkeypatch.setenv("SRS_DATA", str(tmp_path / "images"))
    return tmp_path / "images"


def fill(folder, *, classes=10, each=2, size=(32, 32), ending="png", mode="RGB"):
    """Write random images in class folders and give them back, class after class."""
    rng = np.random.default_rng(0)
    out = []
    for c in range(classes):
        name = data.CIFAR10_CLASSES[c] if folder.parent.name == "cifar10" and c < 10 else f"class{c}"
        (folder / name).mkdir(parents=True)
        for i in range(each):
            shape = size if mode == "L" else (*size, 3)
            out.append(rng.integers(0, 256, shape, np.uint8))
            Image.fromarray(out[-1]).save(folder / name / f"{i}.{ending}")
    return out


def test_image_folder_gives_the_pixels_of_its_files(folder):
    written = fill(folder / "cifar10" / "test")
    images = data.load(CIFAR10, "test")
    assert images.pixels.dtype == torch.uint8 and images.pixels.shape == (20, 3, 32, 32)
    assert images.labels.tolist() == [c for c in range(10) for _ in range(2)]
    for i, pixels in enumerate(written):
        torch.testing.assert_close(images.x(i), torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    assert "image folder" in images.source and "JPEG" not in images.source


def test_jpeg_copies_are_said_to_differ(folder):
    fill(folder / "cifar10" / "test", ending="jpg")
    assert "JPEG copies" in data.load(CIFAR10, "test").source


def test_training_folder_is_split_into_train_and_val(folder):
    fill(folder / "cifar10" / "train", each=5)
    train, val = data.load(CIFAR10, "train"), data.load(CIFAR10, "val")
    assert (len(train.labels), len(val.labels)) == (45, 5)
    assert len({*keys(train), *keys(val)}) == 50


def test_any_folder_of_images_will_do(folder):
    own = settings.Data("own", (1, 8, 8), 3, (0.5,), (0.25,))
    written = fill(folder / "own" / "test", classes=3, size=(8, 8), mode="L")
    images = data.load(own, "test")
    torch.testing.assert_close(images.x(4), torch.from_numpy(written[4])[None] / 255)


def test_imagenet_is_cut_to_size_and_its_val_counts_as_test(folder):
    small = replace(IMAGENET, classes=2)
    fill(folder / "imagenet" / "val", classes=2, each=1, size=(260, 300), ending="jpeg")
    images = data.load(small, "test")
    assert images.x(slice(None)).shape == (2, 3, 224, 224) and images.x(1).dtype == torch.float32


@pytest.mark.parametrize("size", [(260, 300), (400, 256), (100, 171), (224, 224)])
def test_the_crop_is_imagenet_s(folder, size):
    """Shorter side to 256, bilinear with antialiasing, and the middle 224 x 224: written out with PIL alone."""
    written, = fill(folder / "imagenet" / "val", classes=1, each=1, size=size)
    height, width = (round_down(256 * side / min(size)) for side in size)
    with Image.fromarray(written) as image:
        resized = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
    top, left = round((height - 224) / 2), round((width - 224) / 2)
    wanted = torch.from_numpy(resized[top : top + 224, left : left + 224]).permute(2, 0, 1) / 255
    torch.testing.assert_close(data.load(replace(IMAGENET, classes=1), "test").x(0), wanted)


def round_down(value):
    return int(value + 1e-9)


LARGE = settings.Data("large", (3, 80, 96), 3, (0.5,) * 3, (0.25,) * 3)


def test_large_images_are_decoded_when_they_are_asked_for(folder, monkeypatch, srs_root):
    written = fill(folder / "large" / "test", classes=3, each=4, size=(80, 96))
    images, opened = data.load(LARGE, "test"), []
    decode = images.pixels.decode
    images.pixels.decode = lambda path: opened.append(path) or decode(path)
    assert len(images.labels) == len(images.pixels) == 12 and not list(srs_root.rglob("*.npz"))

    def pixels(*which):
        return torch.from_numpy(np.stack([written[i] for i in which])).permute(0, 3, 1, 2) / 255

    for picked, which in (
        (torch.tensor([5, 0]), (5, 0)), (torch.tensor([7]), (7,)), (slice(2, 4), (2, 3)), (torch.arange(12) > 9, (10, 11)),
    ):  # fmt: skip
        opened.clear()
        torch.testing.assert_close(images.x(picked), pixels(*which))
        assert len(opened) == len(which)
    for one in (3, torch.tensor(3), np.int64(3)):
        torch.testing.assert_close(images.x(one), pixels(3)[0])
    last = images.pixels[torch.arange(12) > 8]  # no file is opened
    assert len(last) == 3 and len(opened) == 2 + 3
    torch.testing.assert_close(last.decoded().float() / 255, pixels(9, 10, 11))


def test_large_images_are_split_like_small_ones(folder):
    fill(folder / "large" / "train", classes=3, each=10, size=(80, 96))
    train, val = data.load(LARGE, "train"), data.load(LARGE, "val")
    assert (len(train.labels), len(val.labels)) == (27, 3) == (len(train.pixels), len(val.pixels))
    assert val.labels.tolist() == [0, 1, 2]
    assert len({*train.pixels.files, *val.pixels.files}) == 30


def test_a_damaged_large_image_is_named_when_it_is_asked_for(folder):
    fill(folder / "large" / "test", classes=3, each=1, size=(80, 96))
    damaged = folder / "large" / "test" / "class2" / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    images = data.load(LARGE, "test")
    images.x(0)
    for picked in (2, torch.tensor([1, 2])):
        with pytest.raises(ConfigError, match="class2.*an image that can be read"):
            images.x(picked)


def test_the_sample_of_imagenet_has_validation_images_alone(folder):
    small = replace(profiles.IMAGENET_SAMPLE, classes=2, shape=(3, 72, 72))
    fill(folder / "imagenet-sample" / "val", classes=2, each=10, size=(90, 100), ending="jpeg")
    assert [len(data.load(small, split).labels) for split in ("train", "val", "test")] == [18, 2, 20]
    with pytest.raises(ConfigError, match="imagenet.train.*SRS_DATA"):
        data.load(IMAGENET, "train")  # the real one is never trained on its validation images


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        (dict(size=(28, 32)), r"shape of .*airplane.*\(3, 28, 32\).*\(3, 32, 32\)"),
        (dict(classes=9), r"classes in .* = \['airplane'.*want airplane, .*, truck, or 0 to 9"),
        (dict(classes=11), "classes in .* = .*'class10'.*want airplane"),
    ],
    ids=["shape", "too-few-classes", "too-many-classes"],
)  # fmt: skip
def test_folders_that_do_not_fit_are_refused(folder, tree, named):
    fill(folder / "cifar10" / "test", **tree)
    with pytest.raises(ConfigError, match=named):
        data.load(CIFAR10, "test")


@pytest.mark.parametrize("split", data.SPLITS)
def test_missing_folder_is_refused_with_what_to_do(folder, split):
    with pytest.raises(ConfigError, match="imagenet.*SRS_DATA"):
        data.load(IMAGENET, split)


def test_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="split = 'dev'.*train, val, test"):
        data.load(DIGITS, "dev")


@pytest.mark.parametrize("empty", ["SRS_DATA", "SRS_ROOT"])
def test_an_empty_variable_is_unset(monkeypatch, tmp_path, empty):
    monkeypatch.setenv("SRS_ROOT", str(tmp_path))
    monkeypatch.setenv(empty, "")
    checkout = Path(profiles.__file__).parents[1]
    assert sealed.root() == (checkout if empty == "SRS_ROOT" else tmp_path)
    if empty == "SRS_DATA":
        import torchvision.datasets

        asked = []
        monkeypatch.setattr(torchvision.datasets, "CIFAR10", lambda *a, **_: asked.append(a) or 1 / 0)
        with pytest.raises(ZeroDivisionError):  # as where it is not set: the official files are asked for
            data.load(CIFAR10, "test")
        assert asked and not data.at_hand(CIFAR10, "test")


@pytest.mark.parametrize("image", [-1, 9999, 360, np.int64(-1), torch.tensor(360), [0, 360], 0.5])
def test_positions_that_there_are_not_are_refused(image):
    images = data.load(DIGITS, "test")
    assert images.x(359).shape == images.x(np.int64(0)).shape == images.x([5])[0].shape == DIGITS.shape
    with pytest.raises(ConfigError, match="image = .* is refused: want a position from 0 to 359"):
        images.x(image)


# ---------------------------------------------------------------------------------------------- single images


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda x: x[0], r"image shape = \(8, 8\).*\(1, 8, 8\) for digits"),
        (lambda x: x.expand(3, 8, 8), r"image shape = \(3, 8, 8\)"),
        (lambda x: x[:, :7], r"image shape = \(1, 7, 8\)"),
        (lambda x: x.index_fill(2, torch.tensor([3]), torch.nan), "not finite"),
        (lambda x: x.index_fill(2, torch.tensor([3]), torch.inf), "not finite"),
        (lambda x: x - 0.01, "image range"),
        (lambda x: x * 255, r"image range = \(0.0, 255.0\)"),
    ],
    ids=["flat", "colour", "cut", "nan", "inf", "negative", "bytes"],
)
def test_bad_images_are_refused(change, named):
    x = digits(1)[0][0]
    data.check_image(x, DIGITS)
    with pytest.raises(ConfigError, match=named):
        data.check_image(change(x), DIGITS)


def test_without_a_network_one_sentence_says_what_to_do(srs_root, monkeypatch):
    import torchvision.datasets

    def fails(*args, **more):
        raise OSError("name or service not known")

    monkeypatch.delenv("SRS_DATA", raising=False)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fails)
    with pytest.raises(settings.ConfigError, match="service not known.*SRS_DATA"):
        data.load(profiles.CIFAR10, "test")
