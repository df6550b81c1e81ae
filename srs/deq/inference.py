"""A trained DEQ as it is run: folded, by deterministic kernels, on a named device. The base classifier is what it is run as."""

import copy
import itertools
import platform

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from srs import settings
from srs.deq.mdeq import MDEQ, WeightNormConv2d
from srs.deq.resnet import Residual, ResNet


def prepare(model: MDEQ | ResNet) -> MDEQ | ResNet:
    """The inference form of a copy of a trained network: weight norms become kernels, batch norms part of their convolution."""
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        for name, conv in list(module.named_children()):
            if isinstance(conv, WeightNormConv2d):
                plain = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, 1, conv.padding, bias=False)
                plain.weight = nn.Parameter(conv.weight.detach().clone(memory_format=torch.channels_last))
                setattr(module, name, plain)
        in_order = isinstance(module, (nn.Sequential, Residual, ResNet))
        for (name, conv), (after, norm) in itertools.pairwise([*module.named_children()]):
            if in_order and isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, after, nn.Identity())
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # new parts begin in train mode


def choose_kernels(tf32: bool = False) -> None:
    """Deterministic GPU kernels in full float32; `tf32`, for training, rounds products to 10 bits and is twice as fast."""
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


def device_name(device: str, *, rounded: bool = False) -> str:
    """The kind of device, in words, for provenance: what decides how sums are rounded; `rounded`: products of bfloat16, too."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    has = getattr(torch.cpu, "get_capabilities", dict)  # an older torch lacks it
    units = [unit for unit in ("amx_bf16", "avx512_bf16") if rounded and has().get(unit)][:1]
    return " ".join(["CPU", platform.machine(), torch.backends.cpu.get_cpu_capability(), *units]) if kind == "cpu" else kind


def computed_on(device: str) -> str:
    """Kind of device and release of torch: the same weights may vote otherwise on another one."""
    return f"{device_name(device, rounded=True)}, torch {torch.__version__}"
