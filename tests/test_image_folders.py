"""Image folders that are not plain: read right, left out on purpose or refused with the file's name."""

import os
import shutil
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from srs import data, sealed, settings
from srs.profiles import CIFAR10
from srs.settings import ConfigError
from srs.smoothing import votes
from srs.sealed import DamagedFile
from tests.test_data import LARGE, fill, folder  # noqa: F401

OWN = settings.Data("own", (3, 8, 8), 3, (0.5,) * 3, (0.25,) * 3)
PIXELS = np.random.default_rng(5).integers(0, 256, (8, 8, 3), np.uint8)


def save(pixels, path):
    """Write one image; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path)


def png_of_16_bits(path):
    """Write an RGB image of 16 bits per channel, which PIL opens as one of 8."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = b"".join(b"\0" + bytes(range(i, i + 48)) for i in range(8))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


@pytest.fixture
def own(folder):
    """Three classes of two images."""
    fill(folder / "own" / "test", classes=3, size=(8, 8))
    return folder / "own" / "test"


@pytest.mark.parametrize(
    "add",
    [
        lambda f: save(PIXELS, f / ".ipynb_checkpoints" / "0.png"),
        lambda f: save(PIXELS, f / "class0" / ".ipynb_checkpoints" / "0.png"),
        lambda f: (f / "class0" / "._0.png").write_bytes(b"not an image"),
        lambda f: (f / "class0" / "Thumbs.db").write_bytes(b"not an image"),
    ],
    ids=["hidden-class", "hidden-folder", "hidden-file", "no-image"],
)
def test_what_is_no_image_moves_no_index(own, add):
    before = data.load(OWN, "test")
    add(own)
    after = data.load(OWN, "test")
    assert torch.equal(before.pixels, after.pixels) and torch.equal(before.labels, after.labels)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: (f / "class1" / "2.png").symlink_to("nowhere.png"), "class1/2.png.*leads to"),
        (lambda f: (f / "class1" / "more").symlink_to("nowhere"), "class1/more.*leads to"),
        (lambda f: (f / "class3").symlink_to("nowhere"), "class3.*leads to"),
        (lambda f: (f / "class1" / "again").symlink_to(f / "class1"), "class1/again.*twice"),
        (lambda f: os.mkfifo(f / "class1" / "2.png"), "class1/2.png.*plain file"),
        (lambda f: [p.unlink() for p in (f / "class1").iterdir()], "class1.*at least one image"),
        (lambda f: shutil.rmtree(f / "class1"), "classes in .* = 2 is refused: want 3"),
        (lambda f: (f / "class3").mkdir(), "classes in .* = 4 is refused: want 3"),
        (lambda f: (f / "class1" / "1.png").write_bytes(b""), "class1/1.png.*can be read"),
        (lambda f: (f / "class1" / "1.png").write_bytes((f / "class1" / "1.png").read_bytes()[:90]), "class1/1.png.*can be read"),
        (lambda f: save(PIXELS[..., 0].astype(np.uint16) * 257, f / "class1" / "1.png"), "class1/1.png.*not of 8 bits"),
        (lambda f: png_of_16_bits(f / "class1" / "1.png"), "class1/1.png.*not of 8 bits"),
        (lambda f: (f / "class1" / "2.ppm").write_bytes(b"P6 8 8 65535\n" + bytes(384)), "class1/2.ppm.*not of 8 bits"),
        (lambda f: save(PIXELS[..., 0] / np.float32(255), f / "class1" / "2.tiff"), "class1/2.tiff.*not of 8 bits"),
        (lambda f: save(PIXELS[..., 0].astype(np.int32), f / "class1" / "2.tif"), "class1/2.tif.*not of 8 bits"),
        (lambda f: save(np.dstack([PIXELS, PIXELS[..., 0]]), f / "class1" / "1.png"), "class1/1.png.*transparent"),
    ],
    ids=["dangling-file", "dangling-folder", "dangling-class", "loop", "pipe", "empty-class", "missing-class", "further-class",
         "empty-file", "cut-file", "grey16", "rgb16", "ppm16", "float", "int32", "alpha"],
)  # fmt: skip
def test_what_would_be_read_wrong_is_refused_by_name(own, change, named):
    change(own)
    with pytest.raises(ConfigError, match=named):
        data.load(OWN, "test")


@pytest.mark.parametrize("most", [20, 40, 63])  # PIL refuses an image of more than twice as many pixels, and warns of the others
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_huge_images_are_refused_by_name(own, monkeypatch, most):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64)
    data.load(OWN, "test")
    shutil.rmtree(sealed.root() / "data" / "packed")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with pytest.raises(ConfigError, match=f"class0/0.png' is refused: want at most {most} pixels"):
        data.load(OWN, "test")


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (Image.fromarray(PIXELS).quantize(16), Image.fromarray(PIXELS).quantize(16).convert("RGB")),
        (Image.fromarray(PIXELS[..., 0]), PIXELS[..., [0, 0, 0]]),
        (Image.fromarray(PIXELS[..., 0] > 127), np.where(PIXELS[..., [0, 0, 0]] > 127, 255, 0)),
        (Image.fromarray(np.dstack([PIXELS, np.full((8, 8), 255, np.uint8)])), PIXELS),
    ],
    ids=["palette", "grey", "black-and-white", "opaque-alpha"],
)
def test_images_that_lose_nothing_are_read_right(own, image, wanted):
    save(image, own / "class1" / "1.png")
    wanted = torch.from_numpy(np.array(wanted, np.uint8)).permute(2, 0, 1)
    assert torch.equal(data.load(OWN, "test").pixels[3], wanted)


def test_deeper_trees_are_read_in_order(own):
    save(PIXELS, own / "class1" / "more" / "still" / "0.png")
    images = data.load(OWN, "test")
    assert images.labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert torch.equal(images.pixels[4], torch.from_numpy(PIXELS).permute(2, 0, 1))


@pytest.mark.parametrize("where", [("class1", "1.png"), ("class1", "more", "0.png")])
def test_an_image_that_changed_in_place_is_decoded_anew(own, where):
    path = own.joinpath(*where)
    flat = Image.new("RGB", (8, 8), (10, 20, 30))
    save(flat, path)
    data.load(OWN, "test")
    size = path.stat().st_size
    save(Image.new("RGB", (8, 8), (30, 20, 10)), path)
    assert path.stat().st_size == size
    os.utime(path, ns=(1, 1))
    found = data.load(OWN, "test").pixels
    assert found[4 if len(where) == 3 else 3, :, 0, 0].tolist() == [30, 20, 10]


@pytest.mark.parametrize("with_seal", [True, False])
@pytest.mark.parametrize(("shape", "kind"), [((5, 3, 8, 8), "u1"), ((6, 3, 8, 8), "f8"), ((6, 3, 7, 8), "u1")])
def test_packed_images_that_do_not_fit_are_packed_again(own, srs_root, shape, kind, with_seal):
    whole = data.load(OWN, "test")
    path, = srs_root.rglob("*.npz")
    body = votes.archive(pixels=np.zeros(shape, kind))
    sealed.save(path, body) if with_seal else path.write_bytes(body)
    with pytest.raises(DamagedFile, match=rf"{path.name}.*packed images.*run again"):
        data.load(OWN, "test")
    assert torch.equal(data.load(OWN, "test").pixels, whole.pixels)


@pytest.mark.parametrize("change", [{"airplane": "plane", "automobile": "car"}, {"truck": "Truck"}])
def test_cifar10_has_its_own_class_names(folder, change):
    fill(folder / "cifar10" / "test", each=1)
    for name, other in change.items():
        (folder / "cifar10" / "test" / name).rename(folder / "cifar10" / "test" / other)
    with pytest.raises(ConfigError, match=f"'{other}'.*want airplane, automobile, .*, truck, or 0 to 9"):
        data.load(CIFAR10, "test")


def test_class_folders_may_be_numbers(folder):
    written = fill(folder / "cifar10" / "test", each=1)
    for label, name in enumerate(data.CIFAR10_CLASSES):
        (folder / "cifar10" / "test" / name).rename(folder / "cifar10" / "test" / str(label))
    images = data.load(CIFAR10, "test")
    assert images.labels.tolist() == list(range(10))
    torch.testing.assert_close(images.x(7), torch.from_numpy(written[7]).permute(2, 0, 1) / 255)
    dozen = replace(OWN, name="dozen", classes=12)
    for label in range(12):
        save(Image.new("RGB", (8, 8), (label, 0, 0)), folder / "dozen" / "test" / str(label) / "0.png")
    images = data.load(dozen, "test")
    assert images.labels.tolist() == images.pixels[:, 0, 0, 0].tolist()


def test_splits_have_the_same_classes(own):
    shutil.copytree(own, own.with_name("train"))
    (own.with_name("train") / "class1").rename(own.with_name("train") / "other")
    for split in ("train", "test"):
        with pytest.raises(ConfigError, match=r"classes in .*\['class1', 'other'\] is refused: want those of"):
            data.load(OWN, split)


def test_digest_is_that_of_pixels_and_labels(own):
    images, some = data.load(OWN, "test"), (0, 3)
    pixels = images.pixels.clone()
    pixels[3, 0, 0, 0] ^= 1
    others = [
        images._replace(pixels=pixels), images._replace(labels=images.labels.flip(0)),
        images._replace(pixels=images.pixels.flip(0)),
    ]  # fmt: skip
    for which in (some, None):
        digests = {data.digest(one, which) for one in (images, *others)}
        assert len(digests) == 4 and data.digest(images._replace(source="moved"), which) in digests
    elsewhere = images._replace(pixels=pixels.index_copy(0, torch.tensor([3]), images.pixels[3:4]).float() / 255)
    assert data.digest(elsewhere, some) == data.digest(images, some)


def test_digest_of_a_large_split_opens_no_file(folder):
    fill(folder / "large" / "train", classes=3, each=4, size=(80, 96))
    images = data.load(LARGE, "train")
    images.pixels.decode = None
    before = data.digest(images)
    (folder / "large" / "train" / "class0" / "0.png").write_bytes(b"another size")
    assert data.digest(images) != before
