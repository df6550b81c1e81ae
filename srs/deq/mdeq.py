"""The multiscale deep equilibrium model (MDEQ; Bai, Koltun, Kolter 2020) behind a four-method protocol.

Sampling and certification use `DEQ` and nothing else, so any model with these methods can be certified.
Names of weights are those of the public MDEQ checkpoints, so that such a checkpoint loads as it is.
"""

from collections import OrderedDict
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srs import settings
from srs.deq.resnet import relu_of, Residual, ResNet


class DEQ(Protocol):
    """What a model must offer to be certified: images in [0, 1] in, logits out, one flat z between."""

    def inject(self, x: Tensor) -> Tensor:
        """u: what f needs of the images x (B, C, H, W), computed once; batch first."""

    def initial(self, u: Tensor) -> Tensor:
        """The cold start z0 (B, D) for the injections u."""

    def f(self, z: Tensor, u: Tensor) -> Tensor:
        """One evaluation of the layer, (B, D) -> (B, D)."""

    def head(self, z: Tensor) -> Tensor:
        """Logits (B, classes) of a solution."""


def networks_of(model: DEQ) -> list[nn.Module]:
    """The networks that a model is or, a wrapper as those of `adapters`, holds, also in a list or dict."""
    parts = [model, *(part for name, part in getattr(model, "__dict__", {}).items() if name != "_modules")]
    held = [(*part.values(),) if isinstance(part, dict) else part for part in parts if isinstance(part, (dict, list, tuple))]
    return [part for part in (*parts, *(inner for some in held for inner in some)) if isinstance(part, nn.Module)]


class WeightNormConv2d(nn.Conv2d):
    """A convolution whose kernel is g v / |v| per output channel (Salimans and Kingma 2016)."""

    def __init__(self, inputs: int, outputs: int, size: int):
        super().__init__(inputs, outputs, size, padding=size // 2, bias=False)
        v = self.weight.detach()
        del self.weight
        self.weight_v = nn.Parameter(v)
        self.weight_g = nn.Parameter(torch.linalg.vector_norm(v, dim=(1, 2, 3), keepdim=True))

    @property
    def weight(self) -> Tensor:
        """The kernel that the convolution uses."""
        return self.weight_g * self.weight_v / torch.linalg.vector_norm(self.weight_v, dim=(1, 2, 3), keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight, None)


class VariationalDropout(nn.Module):
    """Dropout of whole channels, with one mask for all evaluations of f within a solve, or no fixed point would exist."""

    def __init__(self, p: float):
        super().__init__()
        self.p, self.mask = p, None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if self.mask is None:
            self.mask = torch.bernoulli(torch.full_like(x[:, :, :1, :1], 1 - self.p)) / (1 - self.p)
        return x * self.mask


class Block(nn.Module):
    """MDEQ's residual block at one resolution; the injection enters before the second normalisation."""

    def __init__(self, channels: int, model: settings.Model):
        super().__init__()
        wide, groups = channels * model.expansion, model.groups
        self.conv1 = WeightNormConv2d(channels, wide, 3)
        self.gn1 = nn.GroupNorm(groups, wide)
        self.conv2 = WeightNormConv2d(wide, channels, 3)
        self.drop = VariationalDropout(model.dropout)
        self.gn2 = nn.GroupNorm(groups, channels)
        self.gn3 = nn.GroupNorm(groups, channels)

    def forward(self, z: Tensor, injection: Tensor | None) -> Tensor:
        h = self.drop(self.conv2(F.relu(self.gn1(self.conv1(z)), inplace=True)))
        h = self.gn2(h if injection is None else h + injection)
        return self.gn3(F.relu(h.add_(z), inplace=True))


def _named(**parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(parts))


def _down(inputs: int, outputs: int, times: int, groups: int) -> nn.Sequential:
    """Strided convolutions that halve the resolution `times` times; the last one changes the width."""
    stages = nn.Sequential()
    for width in [inputs] * (times - 1) + [outputs]:
        stages.append(_named(conv=nn.Conv2d(inputs, width, 3, 2, 1, bias=False), gnorm=nn.GroupNorm(groups, width)))
    for stage in stages[:-1]:
        stage.add_module("relu", nn.ReLU(inplace=True))
    return stages


def _up(inputs: int, outputs: int, times: int, groups: int) -> nn.Sequential:
    """A 1x1 convolution and nearest-neighbour upsampling by 2^times."""
    conv, norm = nn.Conv2d(inputs, outputs, 1, bias=False), nn.GroupNorm(groups, outputs)
    return _named(conv=conv, gnorm=norm, upsample=nn.Upsample(scale_factor=2**times))


class ConvNormReLU(nn.Sequential):
    """Convolutions, each with its norm and ReLU; the ReLUs hold places alone, so that weights have their public names."""

    def forward(self, x: Tensor) -> Tensor:
        parts = [*self]
        for conv, norm in zip(parts[::3], parts[1::3]):
            x = relu_of(conv, norm, x)
        return x


def _conv_bn_relu(inputs: int, outputs: int, size: int, stride: int = 1, bias: bool = False) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=bias), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class Stage(nn.Module):
    """f: one block per resolution, then every resolution becomes the sum of all, brought to its size."""

    def __init__(self, model: settings.Model):
        super().__init__()
        c, groups = model.channels, model.groups
        self.branches = nn.ModuleList(nn.ModuleDict({"blocks": nn.ModuleList([Block(n, model)])}) for n in c)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(
                nn.Identity() if i == j
                else nn.ModuleDict({"net": (_up if j > i else _down)(c[j], c[i], abs(i - j), groups)})
                for j in range(len(c))
            )
            for i in range(len(c))
        )
        self.post_fuse_layers = nn.ModuleList(
            _named(relu=nn.ReLU(inplace=True), conv=WeightNormConv2d(n, n, 1), gnorm=nn.GroupNorm(groups // 2, n, affine=False))
            for n in c
        )

    def forward(self, z: list[Tensor], u: Tensor) -> list[Tensor]:
        h = [b["blocks"][0](x, u if i == 0 else None) for i, (b, x) in enumerate(zip(self.branches, z))]
        out = []
        for i, post in enumerate(self.post_fuse_layers):
            brought = (h[j] if i == j else fuse["net"](h[j]) for j, fuse in enumerate(self.fuse_layers[i]))
            out.append(post(sum(brought, next(brought))))
        return out


def bottleneck(inputs: int, width: int) -> Residual:
    """The head's residual bottleneck (expansion 4); its inner batch norms carry no affine map."""
    sizes = (inputs, width, 1), (width, width, 3), (width, 4 * width, 1)
    convs = [nn.Conv2d(a, b, size, padding=size // 2, bias=False) for a, b, size in sizes]
    shortcut = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width))
    return Residual(convs, shortcut, affine=False)


class MDEQ(nn.Module):
    """An MDEQ classifier of images in [0, 1]; normalisation is its first layer, so noise is added before it."""

    def __init__(self, model: settings.Model, data: settings.Data):
        super().__init__()
        c, head, final = model.channels, model.head_channels, model.final_channels
        self.model, self.data = model, data
        height, width = (side // 2**model.downsamples for side in data.shape[1:])
        self.shapes = [(n, height >> i, width >> i) for i, n in enumerate(c)]
        self.sizes = [n * h * w for n, h, w in self.shapes]
        for name, values in (("mean", data.mean), ("std", data.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        strides = [2 if model.downsamples > i else 1 for i in range(2)]
        stem = _conv_bn_relu(data.shape[0], c[0], 3, strides[0]) + _conv_bn_relu(c[0], c[0], 3, strides[1])
        self.downsample = ConvNormReLU(*stem)
        self.stage0 = ConvNormReLU(*(_conv_bn_relu(c[0], c[0], 1) if len(c) > 2 else []))
        self.fullstage = Stage(model)
        self.incre_modules = nn.ModuleList(nn.Sequential(bottleneck(n, w)) for n, w in zip(c, head))
        downs = (_conv_bn_relu(4 * a, 4 * b, 3, 2, bias=True) for a, b in zip(head, head[1:]))
        self.downsamp_modules = nn.ModuleList(ConvNormReLU(*down) for down in downs)
        self.final_layer = ConvNormReLU(*_conv_bn_relu(4 * head[-1], final, 1, bias=True))
        self.classifier = nn.Linear(final, data.classes)
        for conv in self.modules():  # as the public code begins; weight-normed kernels keep torch's own start
            if isinstance(conv, nn.Conv2d) and not isinstance(conv, WeightNormConv2d):
                for value in conv.parameters():
                    nn.init.normal_(value, 0, 0.01)
        self.to(memory_format=torch.channels_last)

    def inject(self, x: Tensor) -> Tensor:
        """The injection u (B, C0, H, W) of images x (B, C, H, W) in [0, 1]; begins a new dropout mask."""
        settings.check(x.shape[1:] == self.data.shape, "image shape", tuple(x.shape[1:]), f"{self.data.shape}")
        for block in self.modules():
            if isinstance(block, VariationalDropout):
                block.mask = None
        return self.stage0(self.downsample((x - self.mean) / self.std))

    def initial(self, u: Tensor) -> Tensor:
        """The zero start (B, D), one state that all rows share."""
        return u.new_zeros(1, sum(self.sizes)).expand(len(u), -1)

    def f(self, z: Tensor, u: Tensor) -> Tensor:
        """One evaluation of f on the flat state, (B, D) -> (B, D)."""
        # Rows that are one state in memory (an expanded tensor, as a common start is) share all that does not depend on u: it
        # enters the finest block alone, and there after both convolutions, so little of f is left to do for each row.
        # A dropout mask is each row's own, and a gradient by z is one by every row.
        if z.stride(0) == 0 and not (self.training and self.model.dropout or z.requires_grad):
            z = z[:1]
        return torch.cat([y.permute(0, 2, 3, 1).flatten(1) for y in self.fullstage(self._branches(z), u)], dim=1)

    def head(self, z: Tensor) -> Tensor:
        """Logits (B, classes) from a flat state (B, D)."""
        z = self._branches(z)
        y = self.incre_modules[0](z[0])
        for i, down in enumerate(self.downsamp_modules):
            y = self.incre_modules[i + 1](z[i + 1]) + down(y)
        return self.classifier(self.final_layer(y).mean(dim=(2, 3)))

    def _branches(self, z: Tensor) -> list[Tensor]:
        # The flat state holds each branch with channels last, which is what the convolutions compute in: no copies.
        parts = zip(z.split(self.sizes, dim=1), self.shapes)
        return [part.reshape(-1, h, w, c).permute(0, 3, 1, 2) for part, (c, h, w) in parts]


def build(model: settings.Model | settings.ResNet, data: settings.Data, seed: int = 0) -> MDEQ | ResNet:
    """An untrained network; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (ResNet if isinstance(model, settings.ResNet) else MDEQ)(model, data)
