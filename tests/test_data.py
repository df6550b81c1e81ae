"""Splits of the digits, and image folders: read right, left out on purpose, or refused with the file's name."""

import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image

from srs import data, settings
from srs.profiles import CIFAR10, DIGITS, IMAGENET
from srs.settings import ConfigError

OWN = settings.Data("own", (3, 8, 8), 3, (0.5,) * 3, (0.25,) * 3)
LARGE = settings.Data("large", (3, 80, 96), 3, (0.5,) * 3, (0.25,) * 3)
PIXELS = np.random.default_rng(5).integers(0, 256, (8, 8, 3), np.uint8)


def keys(images):
    return [images.x(i).numpy().tobytes() for i in range(len(images.labels))]


def test_digits_are_scikit_learn_s_in_three_disjoint_splits():
    from sklearn.datasets import load_digits

    theirs = load_digits()
    labels = {x.astype(np.float32).tobytes(): y for x, y in zip(theirs.images / 16, theirs.target)}  # no two are equal
    splits = {name: data.load(DIGITS, name) for name in data.SPLITS}
    assert {name: len(s.labels) for name, s in splits.items()} == {"train": 1294, "val": 143, "test": 360}
    assert {key: y for images in splits.values() for key, y in zip(keys(images), images.labels.tolist())} == labels
    x = splits["train"].pixels
    assert (float(x.mean()), float(x.std())) == pytest.approx((DIGITS.mean[0], DIGITS.std[0]), abs=0.005)


@pytest.fixture
def folder(srs_root, monkeypatch):
    """SRS_DATA with an image tree that a test fills."""
    monkeypatch.setenv("SRS_DATA", str(srs_root / "images"))
    return srs_root / "images"


def fill(folder, *, classes=10, each=2, size=(32, 32), ending="png"):
    """Write random images in class folders and give them back, class after class."""
    rng = np.random.default_rng(0)
    out = rng.integers(0, 256, (classes * each, *size, 3), np.uint8)
    names = data.CIFAR10_CLASSES if folder.parent.name == "cifar10" else [f"class{c}" for c in range(classes)]
    for i, pixels in enumerate(out):
        save(pixels, folder / names[i // each] / f"{i % each}.{ending}")
    return out


def save(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path)


def tensor(pixels) -> torch.Tensor:
    """Pixels (..., H, W, C) of 8 bits as the tensor in [0, 1] that they should be read as."""
    return torch.from_numpy(np.moveaxis(np.array(pixels, np.uint8), -1, -3)) / 255


@pytest.fixture
def own(folder):
    """Three classes of two images."""
    fill(folder / "own" / "test", classes=3, size=(8, 8))
    return folder / "own" / "test"


def test_image_folder_gives_the_pixels_of_its_files(folder):
    written = fill(folder / "cifar10" / "test")
    images = data.load(CIFAR10, "test")
    assert images.pixels.dtype == torch.uint8 and images.labels.tolist() == [c for c in range(10) for _ in range(2)]
    torch.testing.assert_close(images.x(slice(None)), tensor(written))
    with pytest.raises(ConfigError, match="image = 20 is refused: want a position from 0 to 19"):
        images.x(20)
    fill(folder / "cifar10" / "train", each=5, ending="jpg")
    train, val = data.load(CIFAR10, "train"), data.load(CIFAR10, "val")
    assert (len(train.labels), len(val.labels), len({*keys(train), *keys(val)})) == (45, 5, 50)
    assert "JPEG copies" in train.source and "JPEG" not in images.source


@pytest.mark.parametrize("size", [(260, 300), (100, 171), (224, 224)])
def test_the_crop_is_imagenet_s_and_its_val_counts_as_test(folder, size):
    """Shorter side to 256, bilinear with antialiasing, and the middle 224 x 224: written out with PIL alone."""
    written, = fill(folder / "imagenet" / "val", classes=1, each=1, size=size)
    height, width = (int(256 * side / min(size) + 1e-9) for side in size)
    with Image.fromarray(written) as image:
        resized = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
    top, left = round((height - 224) / 2), round((width - 224) / 2)
    wanted = tensor(resized[top : top + 224, left : left + 224])
    torch.testing.assert_close(data.load(replace(IMAGENET, classes=1), "test").x(0), wanted)


def test_large_images_are_decoded_when_they_are_asked_for(folder):
    written = fill(folder / "large" / "test", classes=3, each=4, size=(80, 96))
    images, opened = data.load(LARGE, "test"), []
    decode = images.pixels.decode
    images.pixels.decode = lambda path: opened.append(path) or decode(path)
    for picked in (3, torch.tensor(3), torch.tensor([5, 0]), slice(2, 4), torch.arange(12) > 9):
        opened.clear()
        wanted = tensor(written[picked.numpy() if torch.is_tensor(picked) else picked])
        torch.testing.assert_close(images.x(picked), wanted)
        assert len(opened) == (len(wanted) if wanted.dim() == 4 else 1)
    damaged = folder / "large" / "test" / "class2" / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(ConfigError, match="class2.*an image that can be read"):
        images.x(torch.tensor([1, 8]))


def test_large_images_are_split_and_digested_without_opening_a_file(folder):
    fill(folder / "large" / "train", classes=3, each=10, size=(80, 96))
    train, val = data.load(LARGE, "train"), data.load(LARGE, "val")
    assert (len(train.labels), val.labels.tolist()) == (27, [0, 1, 2]) and len({*train.pixels.files, *val.pixels.files}) == 30
    train.pixels.decode, before = None, data.digest(train)
    Path(train.pixels.files[0]).write_bytes(b"another size")
    assert data.digest(train) != before


def test_what_is_no_image_moves_no_index(own):
    before = data.digest(data.load(OWN, "test"))
    for name in (".ipynb_checkpoints/0.png", "class0/.ipynb_checkpoints/0.png"):
        save(PIXELS, own / name)
    for name in ("class0/._0.png", "class0/Thumbs.db"):
        (own / name).write_bytes(b"not an image")
    assert data.digest(data.load(OWN, "test")) == before


def png_of_16_bits(path):
    """Write an RGB image of 16 bits per channel, which PIL opens as one of 8."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = b"".join(b"\0" + bytes(range(i, i + 48)) for i in range(8))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


REFUSED = {
    "dangling": (lambda f: (f / "class1" / "2.png").symlink_to("nowhere.png"), "class1/2.png.*can be read"),
    "empty class": (lambda f: [p.unlink() for p in (f / "class1").iterdir()], "one image in each class.*class1"),
    "missing class": (lambda f: shutil.rmtree(f / "class1"), "classes in .* = 2 is refused: want 3"),
    "shape": (lambda f: save(PIXELS[:7], f / "class1" / "2.png"), r"shape of .*class1/2.png.*\(3, 7, 8\).*\(3, 8, 8\)"),
    "empty file": (lambda f: (f / "class1" / "1.png").write_bytes(b""), "class1/1.png.*can be read"),
    "grey of 16 bits": (lambda f: save(PIXELS[..., 0].astype(np.uint16), f / "class1" / "1.png"), "1.png.*more than 8 bits"),
    "plain PPM of 16 bits": (lambda f: (f / "class1" / "1.ppm").write_text("P3 8 8 65535 " + 192 * "7 "), "1.ppm.*than 8 bits"),
    "PPM of 16 bits": (lambda f: (f / "class1" / "1.ppm").write_bytes(b"P6 8 8 65535\n" + bytes(384)), "1.ppm.*than 8 bits"),
    "RGB of 16 bits": (lambda f: png_of_16_bits(f / "class1" / "1.png"), "class1/1.png.*more than 8 bits"),
    "alpha": (lambda f: save(np.dstack([PIXELS, PIXELS[..., 0]]), f / "class1" / "1.png"), "class1/1.png.*transparent"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "named"), REFUSED.values(), ids=REFUSED)
def test_what_would_be_read_wrong_is_refused_by_name(own, change, named):
    change(own)
    with pytest.raises(ConfigError, match=named):
        data.load(OWN, "test")


@pytest.mark.parametrize(("image", "wanted"), [
    (Image.fromarray(PIXELS).quantize(16), Image.fromarray(PIXELS).quantize(16).convert("RGB")),
    (Image.fromarray(PIXELS[..., 0] > 127), np.where(PIXELS[..., [0, 0, 0]] > 127, 255, 0)),
], ids=["palette", "black-and-white"])  # fmt: skip
def test_images_that_lose_nothing_are_read_right_at_any_depth(own, image, wanted):
    save(image, own / "class1" / "more" / "still" / "0.png")
    images = data.load(OWN, "test")
    assert images.labels.tolist() == [0, 0, 1, 1, 1, 2, 2] and torch.equal(images.x(4), tensor(wanted))


def test_class_folders_have_cifar10_s_names_or_are_numbers(folder):
    fill(folder / "cifar10" / "test", each=1)
    where = folder / "cifar10" / "test"
    (where / "truck").rename(where / "Truck")
    with pytest.raises(ConfigError, match="'Truck'.*want airplane, automobile, .*, truck, or 0 to 9"):
        data.load(CIFAR10, "test")
    for label in range(12):
        save(Image.new("RGB", (8, 8), (label, 0, 0)), folder / "dozen" / "test" / str(label) / "0.png")
    images = data.load(replace(OWN, name="dozen", classes=12), "test")
    assert images.labels.tolist() == images.pixels[:, 0, 0, 0].tolist()


def test_a_label_is_one_class_in_training_and_in_testing(own):
    shutil.copytree(own, own.parent / "train")
    (own / "class1").rename(own / "other")
    with pytest.raises(ConfigError, match=r"classes in .*\['class1', 'other'\] is refused: want those of"):
        data.load(OWN, "test")


def test_digest_is_that_of_pixels_and_labels(own):
    images, some = data.load(OWN, "test"), (0, 3)
    pixels = images.pixels.clone()
    pixels[3, 0, 0, 0] ^= 1
    changes = {"pixels": pixels}, {"labels": images.labels.flip(0)}, {"pixels": images.pixels.flip(0)}
    others = [images._replace(**change) for change in changes]
    for which in (some, None):
        digests = {data.digest(one, which) for one in (images, *others)}
        assert len(digests) == 4 and data.digest(images._replace(source="moved"), which) in digests


def test_without_images_one_sentence_says_what_to_do(srs_root, monkeypatch):
    def fails(*args, **more):
        raise OSError("name or service not known")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fails)
    monkeypatch.setenv("SRS_DATA", "")  # an empty variable is unset
    for missing, told in ((CIFAR10, "service not known.*SRS_DATA"), (IMAGENET, "imagenet.*SRS_DATA")):
        with pytest.raises(ConfigError, match=told):
            data.load(missing, "test")
    with pytest.raises(ConfigError, match="split = 'dev'.*train, val, test"):
        data.load(DIGITS, "dev")


def test_a_folder_that_lacks_classes_has_the_labels_that_its_numbers_say(tmp_path):
    for name in ("10", "2"):
        save(PIXELS, tmp_path / name / "1.png")
    assert data.image_folder(tmp_path).labels.tolist() == [1, 0]
    assert data.image_folder(tmp_path, classes=11).labels.tolist() == [10, 2]
    with pytest.raises(ConfigError, match="want 10 of them, or numbers from 0"):
        data.image_folder(tmp_path, classes=10)
