"""Images and labels: the bundled digits, CIFAR-10, ImageNet, or any folder of images under SRS_DATA.

An image folder is SRS_DATA/<name>/{train,test}/<class>/*; ImageNet's own `val` counts as test. Where there is
none, CIFAR-10 is torchvision's download with its checksum. Small images are decoded once and packed; large ones stay
files, which are decoded when they are asked for.
"""

import importlib.util
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from srs import config, paths, store

SPLITS = ("train", "val", "test")
TEST_IMAGES = 360  # a fifth of the digits; the bundled file has no split of its own
HELD_OUT = 10  # every tenth training image is for validation: settings are chosen there, never on the test split
PACKED = 64  # images up to this height are packed
SHORTER_SIDE = {"imagenet": 256, "imagenet-sample": 256}  # before the centre is cut out; others must have their shape
# Where the publisher has another name for a split. The sample has validation images alone, so it is trained on these too.
ELSEWHERE = {("imagenet", "test"): "val", ("imagenet-sample", "test"): "val", ("imagenet-sample", "train"): "val"}


class Files:
    """Pixels (N, C, H, W) of image files, uint8, decoded when they are asked for: ImageNet does not fit in memory.

    Args:
        files: the files.
        decode: gives the pixels (C, H, W) of a file.
    """

    def __init__(self, files: Sequence[str], decode: Callable[[str], Tensor]):
        self.files, self.decode = np.asarray(files), decode

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i) -> "Tensor | Files":
        """The pixels of one image, or some of the files."""
        picked = self.files[i.numpy() if isinstance(i, Tensor) else i]
        return self.decode(str(picked)) if isinstance(picked, str) else Files(picked, self.decode)

    def decoded(self) -> Tensor:
        """The pixels of all of them."""
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return torch.stack(list(pool.map(self.decode, map(str, self.files))))


class Images(NamedTuple):
    """A split: pixels in [0, 1] as float32, or as uint8 / 255 where the source has 8 bits."""

    pixels: Tensor | Files  # (N, C, H, W)
    labels: Tensor  # (N,) int64
    source: str  # in words, for provenance

    def x(self, i) -> Tensor:
        """Images i in [0, 1], float32."""
        picked = self.pixels[i]
        picked = picked.decoded() if isinstance(picked, Files) else picked
        return picked.float() / 255 if picked.dtype == torch.uint8 else picked


def load(data: config.Data, split: str) -> Images:
    """The images and labels of a split of a data set, checked.

    Raises:
        config.ConfigError: an unknown split, a missing folder, or images of the wrong shape or not finite.
    """
    config.check(split in SPLITS, "split", split, config.one_of(SPLITS))
    part = "test" if split == "test" else "train"
    images = _digits(part) if data.name == "digits" else _folder_or_download(data, part)
    if part == "train":
        held_out = torch.arange(len(images.labels)) % HELD_OUT == HELD_OUT - 1
        keep = held_out if split == "val" else ~held_out
        images = images._replace(pixels=images.pixels[keep], labels=images.labels[keep])
    config.check(len(images.labels) > 0, f"{data.name} {split}", 0, "at least one image")
    eight_bits = isinstance(images.pixels, Files) or images.pixels.dtype == torch.uint8
    for i in range(1 if eight_bits else len(images.labels)):
        check_image(images.x(i), data)
    return images


def check_image(x: Tensor, data: config.Data) -> None:
    """Refuse an image that does not have the data set's shape or has pixels that are not finite or not in [0, 1]."""
    config.check(tuple(x.shape) == data.shape, "image shape", tuple(x.shape), f"{data.shape} for {data.name}")
    config.check(bool(torch.isfinite(x).all()), "image", "a pixel that is not finite", "finite pixels in [0, 1]")
    low, high = float(x.min()), float(x.max())
    config.check(low >= 0 and high <= 1, "image range", (low, high), "pixels in [0, 1]; normalisation is a model layer")


def _digits(part: str) -> Images:
    # The file alone, because importing scikit-learn takes as long as a small training: 64 pixels of 0 to 16 and a label.
    packed = Path(importlib.util.find_spec("sklearn").origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = torch.from_numpy(np.loadtxt(packed, delimiter=",", dtype=np.float32))
    table = table[np.random.RandomState(0).permutation(len(table))]  # the file's order repeats in classes
    table = table[:TEST_IMAGES] if part == "test" else table[TEST_IMAGES:]
    return Images((table[:, :-1] / 16).reshape(-1, 1, 8, 8), table[:, -1].long(), "UCI digits as bundled with scikit-learn")


def _folder_or_download(data: config.Data, part: str) -> Images:
    folder = paths.images(data.name, part)
    if not folder.is_dir():
        folder = paths.images(data.name, ELSEWHERE.get((data.name, part), part))
    if folder.is_dir():
        return _packed(folder, data, part)
    config.check(
        data.name == "cifar10" and "SRS_DATA" not in os.environ, "data folder", str(folder),
        "an existing folder with one folder of images per class; point SRS_DATA at its grandparent",
    )
    from torchvision.datasets import CIFAR10

    try:
        raw = CIFAR10(str(paths.root() / "data" / "raw"), train=part == "train", download=True)
    except (OSError, RuntimeError) as error:  # no network, or a file that is not what its checksum says
        right = "a network to download it, or SRS_DATA set to a folder that holds cifar10/{train,test}/<class>/*"
        config.check(False, "CIFAR-10", str(error), right)
    pixels = torch.from_numpy(raw.data).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(raw.targets), "CIFAR-10, official files")


def _packed(folder: Path, data: config.Data, part: str) -> Images:
    """An image folder, decoded once: 50,000 JPEG files take minutes, the packed file a second."""
    if data.shape[1] > PACKED:
        return _folder(folder, data)
    listed = sorted((str(p.relative_to(folder)), p.stat().st_size) for p in folder.glob("*/*"))
    path = paths.packed(data.name, part, config.fingerprint(str(folder.resolve()), listed))
    if store.present(path):
        return store.read(path, "file of packed images", lambda body: _unpacked(body, data), by="srs.train")
    images = _folder(folder, data)
    images = images._replace(pixels=images.pixels.decoded())
    content = io.BytesIO()
    np.savez(content, pixels=images.pixels.numpy(), labels=images.labels.numpy(), source=images.source)
    store.save(path, content.getvalue())
    return images


def _unpacked(body: bytes, data: config.Data) -> Images:
    """The images of a packed file; an error if they are none of the data set's."""
    with np.load(io.BytesIO(body), allow_pickle=False) as stored:
        pixels, labels = stored["pixels"], stored["labels"]
        right = (pixels.dtype, labels.dtype, labels.shape, pixels.shape[1:]) == (np.uint8, np.int64, (len(pixels),), data.shape)
        if not right or labels.min() < 0 or labels.max() >= data.classes:
            raise ValueError
        return Images(torch.from_numpy(pixels), torch.from_numpy(labels), str(stored["source"]))


def _folder(folder: Path, data: config.Data) -> Images:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    fit = [v2.Resize(SHORTER_SIDE[data.name]), v2.CenterCrop(data.shape[1:])] if data.name in SHORTER_SIDE else []
    mode = [v2.Grayscale()] if data.shape[0] == 1 else []
    read = ImageFolder(str(folder))
    transform = v2.Compose([*mode, *fit, v2.PILToTensor()])
    config.check(len(read.classes) == data.classes, f"classes in {folder}", len(read.classes), f"{data.classes}")

    def decode(path: str) -> Tensor:
        try:
            x = transform(read.loader(path))
        except (OSError, SyntaxError):  # what PIL raises of a damaged file, by its format
            config.check(False, "image file", path, "an image that can be read")
        config.check(tuple(x.shape) == data.shape, f"shape of {path}", tuple(x.shape), f"{data.shape}")
        return x

    files = [path for path, _ in read.samples]
    kinds = {Path(path).suffix.lower() for path in files}
    note = " (JPEG copies: pixels differ slightly from the official files)" if kinds & {".jpg", ".jpeg"} else ""
    return Images(Files(files, decode), torch.tensor(read.targets), f"{data.name} from an image folder{note}")
