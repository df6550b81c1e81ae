"""Weights on disk: our sealed safetensors, and public checkpoints of MDEQ and of Cohen et al. No code is run to read them."""

import hashlib
import io
import json
import pickle
import re
from functools import partial
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from srs import sealed, settings, store
from srs.deq import mdeq, resnet


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file, whole or not at all, unless it is there; its header says what it belongs to and its digest."""
    tensors, belongs = {name: tensor.contiguous() for name, tensor in tensors.items()}, sealed.belongs(path)
    seal = f"{sealed.digest(safetensors.torch.save(tensors), belongs)} {belongs}"  # one field: safetensors shuffles more
    sealed.write_changed(path, safetensors.torch.save(tensors, {"sha256": seal}))


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, its seal checked where it has one; a file of the work folder must have one."""
    def parse(content: bytes) -> dict[str, Tensor]:
        tensors = safetensors.torch.load(content)
        seal = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
        told, _, owner = seal.get("sha256", "").partition(" ")
        own = owner == sealed.belongs(path) or not sealed.belongs(path)
        whole = told == sealed.digest(safetensors.torch.save(tensors), owner)
        if not (own and whole) and (seal or sealed.in_work(path)):
            raise ValueError
        return tensors

    return sealed.read(path, what, parse, by="train", plain=True)


def load(
    path: Path, model: settings.Model | settings.ResNet, data: settings.Data, *, state: dict[str, Tensor] | None = None
) -> mdeq.MDEQ | resnet.ResNet:
    """The network of a weight file: safetensors, or a public checkpoint, an MDEQ's or Cohen et al.'s (.pth, .pth.tar).

    A public checkpoint may be a bare state dict or hold one under `state_dict` or `model`, its names may begin with `module.`,
    `model.` or, behind a normalisation layer, `1.`. `state` is what the file holds, if it has been read. Raises what
    `sealed.read` raises, and ConfigError for weights of another architecture or not finite.
    """
    path, loaded = Path(path), mdeq.build(model, data)
    if state is None and path.suffix == ".safetensors":
        state = read_tensors(path, "weight file")
    elif state is None:
        state = sealed.read(path, "weight file", partial(_public, path=path), by="train", plain=True)
    try:
        loaded.load_state_dict(state)
    except RuntimeError as error:
        differs = str(error).splitlines()[1].strip()
        settings.check(False, "checkpoint", str(path), f"weights of {model.name} on {data.name}: {differs}")
    odd = [name for name, value in loaded.state_dict().items() if not bool(torch.isfinite(value).all())]
    settings.check(not odd, "checkpoint", str(path), f"finite weights; {odd[:1]} is not")
    return loaded.eval()


def _public(content: bytes, path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint that torch.save wrote, under our names."""
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # it holds more than tensors
        right = "weights alone: where the file was made, `torch.save(model.state_dict(), FILE)`"
        settings.check(False, "checkpoint", str(path), right)
    for name in ("state_dict", "model"):
        state = state[name] if isinstance(state.get(name), dict) else state
    found = {re.sub(r"^((module|model|1)\.)+", "", str(k)): v for k, v in state.items()}
    return {k: v for k, v in found.items() if not k.startswith("fullstage_copy.")}  # a copy that only training used


def load_train_mean(path: Path) -> Tensor:
    """The state (D,) that a file of training's holds, from which solvers may start; raises what `load` raises."""
    z = read_tensors(path, "train_mean").get("train_mean")
    right = z is not None and z.dim() == 1 and z.dtype == torch.float32 and bool(torch.isfinite(z).all())
    settings.check(right, "train_mean", str(path), "a vector `train_mean` of finite float32 numbers")
    return z


def digest(path: Path) -> str:
    """`digest_of` the tensors of a weight file."""
    return digest_of(read_tensors(path, "weight file"))


def digest_of(tensors: dict[str, Tensor]) -> str:
    """Sixteen hex digits of the SHA-256 of weights: what votes record as their model."""
    return hashlib.sha256(safetensors.torch.save(tensors)).hexdigest()[:16]


def take_from_zoo(run: settings.Run) -> bool:
    """Copy a run's shipped weights, mean and card to where training puts them, all or none; False if its recipe has none."""
    # DamagedFile where any of them is damaged or a pointer of Git LFS.
    card = store.tracked(run, store.CARD)
    told = sealed.read_json(card, "model card", by="train") if card.is_file() else {}
    if told.get("recipe_key") != store.recipe_key(run):
        return False
    shelf = {name: store.tracked(run, name) for name in (store.WEIGHTS, store.TRAIN_MEAN)}
    taken = {name: read_tensors(path, name) for name, path in shelf.items() if name == store.WEIGHTS or path.is_file()}
    for name, tensors in taken.items():
        save_tensors(tensors, store.own(run, name))
    sealed.write_json(store.own(run, store.CARD), told | {"shipped": True})
    return True
