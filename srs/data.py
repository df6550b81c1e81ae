"""Images and labels: the bundled digits, CIFAR-10, ImageNet, or any folder of images under SRS_DATA.

An image folder is SRS_DATA/<name>/{train,test}/<class>/**; ImageNet's own `val` counts as test. Else CIFAR-10 is
torchvision's download with its checksum. Small images are decoded once and packed; large ones when they are asked for. Images
stand in the order of their classes' names, then of their own; what is hidden or not named as an image is none.
"""

import hashlib
import importlib.util
import io
import math
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
PACKED = 64  # images up to this height are packed
SHORTER_SIDE = {"imagenet": 256, "imagenet-sample": 256}  # before the centre is cut out; others must have their shape
# Where the publisher has another name for a split. The sample has validation images alone, so it is trained on these too.
ELSEWHERE = {("imagenet", "test"): "val", ("imagenet-sample", "test"): "val", ("imagenet-sample", "train"): "val"}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's
EIGHT_BITS = ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # PIL's modes that turn into RGB without a loss


class Files:
    """Pixels (N, C, H, W) of image files, uint8, decoded when they are asked for: ImageNet does not fit in memory."""

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
    shape = tuple(images.x(0).shape)
    settings.check(shape == data.shape, "image shape", shape, f"{data.shape} for {data.name}")
    return images


def image_folder(folder: Path, channels: int = 3) -> Images:
    """The images of any folder that has a folder per class, all of the first one's size; 1 channel is grey."""
    names = _folders(folder) if folder.is_dir() else []
    files = _files(folder / names[0], set()) if names else []
    settings.check(bool(files), "image folder", str(folder), "one with a folder of images per class")
    first = _read(files[0])
    return _folder(folder, settings.Data("own", (channels, first.height, first.width), len(names), (), ()))


def at_hand(data: settings.Data, split: str) -> bool:
    """Whether a split can be loaded without a network."""
    part = "test" if split == "test" else "train"
    raw = sealed.root() / "data" / "raw" / "cifar-10-batches-py"
    official = data.name == "cifar10" and not sealed.environment("SRS_DATA") and raw.is_dir()
    return data.name == "digits" or official or _place(data, part).is_dir()


def seen(run: settings.Run) -> tuple[dict[int, str], str]:
    """Digests and source of a run's evaluated images."""
    images, need = load(run.profile.data, "test"), run.profile.evaluated[-1] + 1
    settings.check(len(images.labels) >= need, f"{run.profile.data.name} test images", len(images.labels), f"at least {need}")
    return {idx: digest(images, [idx]) for idx in run.profile.evaluated}, images.source


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
        return _packed(folder, data, part)
    right = "an existing folder with one folder of images per class; point SRS_DATA at its grandparent"
    settings.check(data.name == "cifar10" and sealed.environment("SRS_DATA") is None, "data folder", str(folder), right)
    from torchvision.datasets import CIFAR10

    try:
        raw = CIFAR10(str(sealed.root() / "data" / "raw"), train=part == "train", download=True)
    except (OSError, RuntimeError) as error:  # no network, or a file that is not what its checksum says
        right = "a network to download it, or SRS_DATA set to a folder that holds cifar10/{train,test}/<class>/*"
        settings.check(False, "CIFAR-10", str(error), right)
    pixels = torch.from_numpy(raw.data).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(raw.targets), "CIFAR-10, official files")


def _packed(folder: Path, data: settings.Data, part: str) -> Images:
    """An image folder, decoded once: 50,000 JPEG files take minutes, the packed file a second."""
    images = _folder(folder, data)
    if data.shape[1] > PACKED:
        return images
    stats = [os.stat(file) for file in images.pixels.files]
    listed = [(file, s.st_size, s.st_mtime_ns) for file, s in zip(images.pixels.files.tolist(), stats)]
    key = settings.fingerprint(str(folder.resolve()), data.shape, listed)
    path = sealed.root() / "data" / "packed" / f"{data.name}-{part}-{key}.npz"
    if sealed.present(path):
        shape = (len(images.labels), *data.shape)
        pixels = sealed.read(path, "file of packed images", lambda body: _unpacked(body, shape), by="train")
        return images._replace(pixels=pixels)
    images = images._replace(pixels=images.pixels.decoded())
    content = io.BytesIO()
    np.savez(content, pixels=images.pixels.numpy())
    sealed.save(path, content.getvalue())
    return images


def _unpacked(body: bytes, shape: tuple[int, ...]) -> Tensor:
    """The pixels of a packed file; an error if they are not of that shape."""
    with np.load(io.BytesIO(body), allow_pickle=False) as stored:
        pixels = torch.from_numpy(stored["pixels"])
    if (tuple(pixels.shape), pixels.dtype) != (shape, torch.uint8):
        raise ValueError
    return pixels


def _folder(folder: Path, data: settings.Data) -> Images:
    from torchvision.transforms import v2

    fit = [v2.Resize(SHORTER_SIDE[data.name]), v2.CenterCrop(data.shape[1:])] if data.name in SHORTER_SIDE else []
    mode = [v2.Grayscale()] if data.shape[0] == 1 else []
    transform = v2.Compose([*mode, *fit, v2.PILToTensor()])
    files, labels = [], []
    seen: set[str] = set()
    for name, label in _classes(folder, data).items():
        found = _files(folder / name, seen)
        settings.check(bool(found), "class folder", str(folder / name), "at least one image in it")
        files += found
        labels += [label] * len(found)

    def decode(path: str) -> Tensor:
        x = transform(_read(path))
        settings.check(tuple(x.shape) == data.shape, f"shape of {path}", tuple(x.shape), f"{data.shape}")
        return x

    kinds = {Path(path).suffix.lower() for path in files}
    note = " (JPEG copies: pixels differ slightly from the official files)" if kinds & {".jpg", ".jpeg"} else ""
    return Images(Files(files, decode), torch.tensor(labels), f"{data.name} from an image folder{note}")


def _classes(folder: Path, data: settings.Data) -> dict[str, int]:
    """The class folders in the order of their names, and the label of each: a number from 0, else the place in that order."""
    names = _folders(folder)
    if data.name == "cifar10" and not _numbered(names):
        right = ", ".join(CIFAR10_CLASSES) + ", or 0 to 9"
        settings.check(names == list(CIFAR10_CLASSES), f"classes in {folder}", names[:20], right)
    settings.check(len(names) == data.classes, f"classes in {folder}", len(names), f"{data.classes} folders of images")
    for beside in (folder.parent / split for split in SPLITS if data.name != "cifar10" and split != folder.name):
        theirs = _folders(beside) if beside.is_dir() else names  # or a label would mean one class here and another there
        differing = sorted({*names} ^ {*theirs}) if len(theirs) == len(names) else []
        settings.check(not differing, f"classes in {folder}", differing[:4], f"those of {beside}")
    return {name: int(name) if _numbered(names) else label for label, name in enumerate(names)}


def _numbered(names: list[str]) -> bool:
    """Whether the names are the numbers from 0, each once; leading zeros may be there."""
    return all(n.isascii() and n.isdecimal() for n in names) and sorted(map(int, names)) == list(range(len(names)))


def _folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, but of hidden ones."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and _leads(path) and path.is_dir())


def _leads(path: str | Path) -> bool:
    """True; refuses a link that leads nowhere."""
    settings.check(not os.path.islink(path) or os.path.exists(path), "link", str(path), "one that leads to something")
    return True


def _files(folder: Path, seen: set[str]) -> list[str]:
    """The images of a class at any depth, folder by folder; `seen` holds the folders that were read before."""

    def refuse(error: OSError) -> None:
        settings.check(False, "image folder", str(folder), f"one that can be read ({error.strerror})")

    found = []
    for where, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(where)
        settings.check(real not in seen, "folder", where, "none that is linked twice, or its images would count twice")
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(where, name)
            if _leads(path) and name.lower().endswith(ENDINGS) and not name.startswith("."):
                settings.check(os.path.isfile(path), "image file", path, "a plain file")
                found.append(path)
    return sorted(found, key=os.path.split)


def _read(path: str) -> Image.Image:
    """The image of a file in RGB; refused where it cannot be read or RGB of 8 bits would lose something."""
    most = Image.MAX_IMAGE_PIXELS or math.inf
    try:
        with Image.open(path) as image:
            if image.width * image.height > most:  # PIL warns of it, and refuses only twice as many
                raise Image.DecompressionBombError
            lost = _lost(image)
            rgb = None if lost else (image.convert("RGBA") if image.has_transparency_data else image).convert("RGB")
    except Exception as error:  # what PIL raises of a damaged file differs by format and release
        bomb = isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning))
        right = f"at most {most:,} pixels in it" if bomb else f"an image that can be read ({type(error).__name__})"
        settings.check(False, "image file", path, right)
    settings.check(not lost, f"pixels of {path}", lost, "opaque ones of 8 bits per channel in grey, RGB, CMYK or a palette")
    return rgb


def _lost(image: Image.Image) -> str:
    """What RGB of 8 bits would lose of an image that is opened and not yet decoded; empty if nothing."""
    deep = any(";16" in str(t.args) or t.codec_name.startswith("ppm") and t.args[-1] != 255 for t in image.tile)
    if image.mode not in EIGHT_BITS or deep:
        return f"not of 8 bits ({image.mode})"
    return "transparent" if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255 else ""


def digest(images: Images, which: Sequence[int] | None = None) -> str:
    """Sixteen hex digits of the pixels and labels of some images; of a whole split of files, their names and sizes instead."""
    whole = hashlib.sha256()
    if which is None:
        whole.update(images.labels.numpy().tobytes())
    if which is None and isinstance(images.pixels, Files):  # decoding ImageNet takes hours
        files = images.pixels.files.tolist()
        base = os.path.commonpath(files)
        whole.update(ascii([(os.path.relpath(file, base), os.stat(file).st_size) for file in files]).encode())
    elif which is None:
        whole.update(images.pixels.numpy().tobytes())
    else:
        for i in which:
            whole.update(images.x(int(i)).numpy().tobytes())
        whole.update(images.labels[list(which)].numpy().tobytes())
    return whole.hexdigest()[:16]
