"""Images and labels: the bundled digits, CIFAR-10, ImageNet, or any folder of images under SRS_DATA.

An image folder is SRS_DATA/<name>/{train,test}/<class>/**; ImageNet's own `val` counts as test. Else CIFAR-10 is
torchvision's download with its checksum. Small images are decoded at once; large ones when they are asked for. Images
stand in the order of their classes' names, then of their own; what is hidden or not named as an image is none.
"""

import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srs import sealed, settings, store

SPLITS = ("train", "val", "test")
TEST_IMAGES = 360  # a fifth of the digits; the bundled file has no split of its own
HELD_OUT = 10  # every tenth training image is for validation: settings are chosen there, never on the test split
SMALL = 64  # images up to this height are decoded at once: 50,000 of CIFAR-10 in seconds
SHORTER_SIDE = {"imagenet": 256, "imagenet-sample": 256}  # before the centre is cut out; others must have their shape
# Where the publisher has another name for a split. The sample has validation images alone, so it is trained on these too.
ELSEWHERE = {("imagenet", "test"): "val", ("imagenet-sample", "test"): "val", ("imagenet-sample", "train"): "val"}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EIGHT_BITS = ("1", "L", "P", "RGB", "CMYK", "YCbCr")  # PIL's modes that turn into RGB without a loss


class Files:
    """Pixels (N, C, H, W) of image files, uint8, decoded when they are asked for: ImageNet does not fit in memory."""

    def __init__(self, files: Sequence[str], decode: Callable[[str], Tensor]):
        self.files, self.decode = np.asarray(files), decode

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
        """Images i in [0, 1], float32; ConfigError names a position that there is not."""
        if isinstance(i, (int, np.integer)):
            settings.check(0 <= i < len(self.labels), "image", i, f"a position from 0 to {len(self.labels) - 1}")
        picked = self.pixels[i]
        picked = picked.decoded() if isinstance(picked, Files) else picked
        return picked.float() / 255 if picked.dtype == torch.uint8 else picked


def load(data: settings.Data, split: str) -> Images:
    """The images and labels of a split of a data set; ConfigError for a missing folder or images of the wrong shape."""
    settings.check(split in SPLITS, "split", split, settings.one_of(SPLITS))
    part = "test" if split == "test" else "train"
    images = _digits(part) if data.name == "digits" else _folder_or_download(data, part)
    if part == "train":
        held_out = torch.arange(len(images.labels)) % HELD_OUT == HELD_OUT - 1
        keep = held_out if split == "val" else ~held_out
        images = images._replace(pixels=images.pixels[keep], labels=images.labels[keep])
    settings.check(len(images.labels) > 0, f"{data.name} {split}", 0, "at least one image")
    return images


def image_folder(folder: Path, channels: int = 3, classes: int = 0) -> Images:
    """The images of a folder with a folder per class, named by numbers if there are more `classes`; 1 channel is grey."""
    files, labels = _listed(folder)
    first = _read(files[0])
    found = _folder(folder, settings.Data("own", (channels, first.height, first.width), max(labels) + 1, (), ()))
    if classes <= len(names := _classes(folder)):
        return found
    numbers = [int(name) for name in names if name.isdecimal() and int(name) < classes]
    settings.check(len(numbers) == len(names), f"classes in {folder}", names[:4], f"{classes} of them, or numbers from 0")
    return found._replace(labels=torch.tensor(numbers)[found.labels])


def spread(count: int, most: int) -> Tensor:
    """At most so many positions of `count`, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most)).long()


def at_hand(data: settings.Data, split: str) -> bool:
    """Whether a split can be loaded without a network."""
    raw = sealed.root() / "data" / "raw" / "cifar-10-batches-py"
    official = data.name == "cifar10" and not os.environ.get("SRS_DATA") and raw.is_dir()
    return data.name == "digits" or official or _place(data, "test" if split == "test" else "train").is_dir()


def _digits(part: str) -> Images:
    # The file alone, because importing scikit-learn takes as long as a small training: 64 pixels of 0 to 16 and a label.
    packed = Path(importlib.util.find_spec("sklearn").origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = torch.from_numpy(np.loadtxt(packed, delimiter=",", dtype=np.float32))
    table = table[np.random.RandomState(0).permutation(len(table))]  # the file's order repeats in classes
    table = table[:TEST_IMAGES] if part == "test" else table[TEST_IMAGES:]
    return Images((table[:, :-1] / 16).reshape(-1, 1, 8, 8), table[:, -1].long(), "UCI digits as bundled with scikit-learn")


def _place(data: settings.Data, part: str) -> Path:
    """The folder of a split, which may have another name or not be there."""
    folder = store.brought(data.name, part)
    return folder if folder.is_dir() else store.brought(data.name, ELSEWHERE.get((data.name, part), part))


def _folder_or_download(data: settings.Data, part: str) -> Images:
    folder = _place(data, part)
    if folder.is_dir():
        images = _folder(folder, data)
        return images._replace(pixels=images.pixels.decoded()) if data.shape[1] <= SMALL else images
    right = f"SRS_DATA set to a folder that holds {data.name}/{{train,test}}/<class>/*, or for CIFAR-10 a network"
    settings.check(data.name == "cifar10" and not os.environ.get("SRS_DATA"), "data folder", str(folder), right)
    from torchvision.datasets import CIFAR10
    try:
        raw = CIFAR10(str(sealed.root() / "data" / "raw"), train=part == "train", download=True)
    except (OSError, RuntimeError) as error:  # no network, or a file that is not what its checksum says
        settings.check(False, "CIFAR-10", str(error), right)
    pixels = torch.from_numpy(raw.data).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(raw.targets), "CIFAR-10, official files")


def _folder(folder: Path, data: settings.Data) -> Images:
    from torchvision.transforms import functional as transforms
    files, labels = _listed(folder, CIFAR10_CLASSES if data.name == "cifar10" else None)
    settings.check(max(labels) + 1 == data.classes, f"classes in {folder}", max(labels) + 1, f"{data.classes} folders")

    def decode(path: str) -> Tensor:
        image = _read(path).convert("L" if data.shape[0] == 1 else "RGB")
        if data.name in SHORTER_SIDE:
            image = transforms.center_crop(transforms.resize(image, SHORTER_SIDE[data.name]), data.shape[1:])
        x = transforms.pil_to_tensor(image)
        settings.check(tuple(x.shape) == data.shape, f"shape of {path}", tuple(x.shape), f"{data.shape}")
        return x

    kinds = {Path(path).suffix.lower() for path in files}
    note = " (JPEG copies: pixels differ slightly from the official files)" if kinds & {".jpg", ".jpeg"} else ""
    return Images(Files(files, decode), torch.tensor(labels), f"{data.name} from an image folder{note}")


def _listed(folder: Path, known: Sequence[str] | None = None) -> tuple[list[str], list[int]]:
    """The image files of a folder of classes and their labels: places in the order of the classes' numbers, else names."""
    from torchvision.datasets.folder import has_file_allowed_extension, IMG_EXTENSIONS, make_dataset
    names = _classes(folder)
    settings.check(bool(names), "image folder", str(folder), "one with a folder of images per class")
    if known and names != [str(label) for label in range(len(known))]:
        settings.check(names == [*known], f"classes in {folder}", names, ", ".join(known) + ", or 0 to 9")
    for beside in (folder.parent / split for split in SPLITS if folder.name in SPLITS and split != folder.name):
        theirs = _classes(beside) or names  # or a label would mean one class here and another there
        settings.check(theirs == names, f"classes in {folder}", sorted({*names} ^ {*theirs})[:4], f"those of {beside}")

    def is_image(path: str) -> bool:
        return f"{os.sep}." not in path.removeprefix(str(folder)) and has_file_allowed_extension(path, IMG_EXTENSIONS)

    try:
        found = make_dataset(folder, {name: label for label, name in enumerate(names)}, is_valid_file=is_image)
    except OSError as error:
        settings.check(False, "image folder", str(folder), f"at least one image in each class ({error})")
    return [path for path, _ in found], [label for _, label in found]


def _classes(folder: Path) -> list[str]:
    """The names of the folders in a folder, but of hidden ones, in the order of their labels; none where there is no folder."""
    names = sorted(path.name for path in folder.glob("[!.]*") if path.is_dir())
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def _read(path: str) -> Image.Image:
    """The image of a file in RGB; refused where it cannot be read or RGB of 8 bits would lose something."""
    try:
        with Image.open(path) as image:
            # PIL would drop half of an RGB image's bits in silence: of PNG and TIFF, and of PPM.
            deep = any(";16" in str(t.args) or t.codec_name.startswith("ppm") and t.args[-1] > 255 for t in image.tile)
            lost = "of more than 8 bits" if deep or image.mode not in (*EIGHT_BITS, "LA", "PA", "RGBA") else ""
            lost = "transparent" if image.has_transparency_data else lost
            rgb = image.convert("RGB")
    except Exception as error:  # what PIL raises of a damaged file differs by format and release
        lost = type(error).__name__
    settings.check(not lost, f"image file {path}", lost, "an image that can be read as RGB of 8 bits, without transparency")
    return rgb


def digest(images: Images, which: Sequence[int] | None = None) -> str:
    """Sixteen hex digits of the pixels and labels of some images; of a whole split of files, their names and sizes instead."""
    whole = hashlib.sha256(b"" if which is not None else images.labels.numpy().tobytes())
    if which is not None:
        for i in which:
            whole.update(images.x(int(i)).numpy().tobytes())
        whole.update(images.labels[list(which)].numpy().tobytes())
    elif isinstance(images.pixels, Files):  # decoding ImageNet takes hours
        whole.update(ascii([(Path(file).name, os.stat(file).st_size) for file in images.pixels.files]).encode())
    else:
        whole.update(images.pixels.numpy().tobytes())
    return whole.hexdigest()[:16]
