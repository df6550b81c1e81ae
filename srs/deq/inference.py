"""A trained DEQ as it is run: folded, in some precision, compiled or not. The base classifier is what it is run as.

So both choices are settings of a profile, votes are kept apart by them, and provenance records them.
"""

import copy
import itertools
import platform
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from srs import settings
from srs.deq import mdeq, resnet
from srs.deq.mdeq import Bottleneck, MDEQ, VariationalDropout, WeightNormConv2d
from srs.deq.resnet import ResNet
from srs.settings import check, one_of, PRECISIONS


class Bfloat16:
    """A DEQ whose injection and f are computed in bfloat16, by autocast; the solver's sums and the head are float32.

    What f gives is rounded to 8 bits, though it is handed on as float32; logits are not.

    Args:
        model: the DEQ.
    """

    def __init__(self, model: mdeq.MDEQ):
        self.model, self.anchor = model, getattr(model, "anchor", None)
        self.inject, self.f = partial(_lowered, model.inject), partial(_lowered, model.f)
        self.initial, self.head = model.initial, model.head


def _lowered(call: Callable, *given: Tensor) -> Tensor:
    with torch.autocast(given[0].device.type, torch.bfloat16):
        return call(*given).float()


def prepare(model: mdeq.MDEQ | mdeq.ResNet, *, precision: str = "float32", compiled: bool = False) -> mdeq.DEQ:
    """The inference form of a copy of a trained network; ConfigError for an unknown precision.

    Args:
        model: the network, on its device.
        precision: "float32"; "tf32", where the device has it, chosen by `votes.sample`; or "bfloat16".
        compiled: whether f and the head are compiled, for any batch size, which takes a minute before the first vote.
    """
    check(precision in PRECISIONS, "precision", precision, one_of(PRECISIONS))
    model = fold(model)
    if compiled:  # freezing: weights are laid out for the convolutions once
        model.f, model.head = (torch.compile(part, dynamic=True, options={"freezing": True}) for part in (model.f, model.head))
    return Bfloat16(model) if precision == "bfloat16" else model


def fold(model: MDEQ | ResNet) -> MDEQ | ResNet:
    """The inference form of a trained network: weight norms become kernels, batch norms part of their convolution.

    What it computes is the same up to rounding; nothing is computed anew at every evaluation that the weights fix.
    """
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        for name, conv in list(module.named_children()):
            if isinstance(conv, WeightNormConv2d):
                plain = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, 1, conv.padding, bias=False)
                plain.weight = nn.Parameter(conv.weight.detach().clone(memory_format=torch.channels_last))
                setattr(module, name, plain)
            elif isinstance(conv, VariationalDropout):
                setattr(module, name, nn.Identity())
        in_order = isinstance(module, (nn.Sequential, Bottleneck, resnet.Block, ResNet))
        children = [*module.named_children()] if in_order else []
        for (name, conv), (after, norm) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, after, nn.Identity())
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # new parts begin in train mode


# ------------------------------------------------------------------------------------------------ devices


def choose_kernels(*, tf32: bool) -> None:
    """Deterministic GPU kernels, in full float32 unless TF32 is asked for; torch's own default rounds convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def check_device(device: str) -> None:
    """Refuse a device that is not here or that nothing can be computed on."""
    try:
        computes = isinstance(device, (str, torch.device)) and float(torch.ones(2, device=device).sum()) == 2
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError):
        computes = False
    here = torch.accelerator.current_accelerator(check_available=True)
    settings.check(computes, "device", device, "cpu" + (f" or {here.type}" if here else "; torch finds no other one here"))


def device_name(device: str) -> str:
    """The kind of device, in words, for provenance: what decides how sums are rounded."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.machine()} {torch.backends.cpu.get_cpu_capability()}" if kind == "cpu" else kind


def computed_on(device: str) -> str:
    """Kind of device and release of torch: the same weights may vote otherwise on another one."""
    return f"{device_name(device)}, torch {torch.__version__}"
