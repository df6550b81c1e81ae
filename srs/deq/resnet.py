"""The explicit residual network that Cohen et al. (2019) smooth, behind the same protocol as a DEQ.

An explicit network is a DEQ whose layer forgets its state: f(z, u) = phi(u), the network's last features, whatever z
is. Its fixed point is reached by one evaluation of f, one pass of the network, from any start. So standard RS with one
evaluation per vote (`settings.EXPLICIT`) is Cohen et al.'s procedure. Names of weights are those of the public checkpoints.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srs import settings


def relu_of(conv: nn.Conv2d, norm: nn.Module, x: Tensor, added: Tensor | None = None) -> Tensor:
    """relu(norm(conv(x)) + added): on a CPU in one pass of oneDNN, which has no gradient, once the norm is part of conv."""
    # In float32 these are the same numbers. In bfloat16 a sum is rounded once, and a head takes half as long.
    plain = torch.is_grad_enabled() or not isinstance(norm, nn.Identity) or not torch.backends.mkldnn.is_available()
    if plain or x.device.type != "cpu":
        h = norm(conv(x))
        return F.relu(h if added is None else h.add_(added), inplace=True)
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    x, weight, bias = (None if t is None else t.to(kind) for t in (x, conv.weight, conv.bias))
    how, fused = (conv.padding, conv.stride, conv.dilation, conv.groups), torch.ops.mkldnn._convolution_pointwise
    if added is None:
        return fused(x, weight, bias, *how, "relu", [], "")
    return fused.binary(x, added, weight, bias, *how, "add", 1.0, "relu", [], None)


class Residual(nn.Module):
    """Convolutions, each with a batch norm, ReLUs between them, and a shortcut (He et al. 2016)."""

    def __init__(self, convs: list[nn.Conv2d], shortcut: nn.Module, *, affine: bool = True):
        super().__init__()
        self.depth = len(convs)
        for i, conv in enumerate(convs, start=1):
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(conv.out_channels, affine=affine))
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for i in range(1, self.depth + 1):
            added = self.downsample(x) if i == self.depth else None
            h = relu_of(self.get_submodule(f"conv{i}"), self.get_submodule(f"bn{i}"), h, added)
        return h


def block(inputs: int, outputs: int, stride: int) -> Residual:
    """He et al.'s basic block: two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""
    convs = [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)]
    changes = stride != 1 or inputs != outputs
    shortcut = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)] if changes else []
    return Residual(convs, nn.Sequential(*shortcut))


class ResNet(nn.Module):
    """A residual classifier of small images in [0, 1]; normalisation is its first layer, so noise is added before it."""

    def __init__(self, model: settings.ResNet, data: settings.Data):
        super().__init__()
        self.model, self.data, w = model, data, model.widths
        for name, values in (("mean", data.mean), ("std", data.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.conv1 = nn.Conv2d(data.shape[0], w[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(w[0])
        blocks = (model.depth - 2) // 6
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(block(inputs, outputs, stride), *(block(outputs, outputs, 1) for _ in range(blocks - 1)))
            for inputs, outputs, stride in ((w[0], w[0], 1), (w[0], w[1], 2), (w[1], w[2], 2))
        )
        self.fc = nn.Linear(w[2], data.classes)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out")
        self.to(memory_format=torch.channels_last)

    def inject(self, x: Tensor) -> Tensor:
        """u: the normalised images, of images x (B, C, H, W) in [0, 1]."""
        settings.check(x.shape[1:] == self.data.shape, "image shape", tuple(x.shape[1:]), f"{self.data.shape}")
        return (x - self.mean) / self.std

    def initial(self, u: Tensor) -> Tensor:
        """Zero features (B, D); any other start would do as well."""
        return u.new_zeros(len(u), self.fc.in_features)

    def f(self, z: Tensor, u: Tensor) -> Tensor:
        """The features phi(u) (B, D), one pass of the network; z plays no part."""
        h = relu_of(self.conv1, self.bn1, u.contiguous(memory_format=torch.channels_last))
        return self.layer3(self.layer2(self.layer1(h))).mean(dim=(2, 3))

    def head(self, z: Tensor) -> Tensor:
        """Logits (B, classes) of features."""
        return self.fc(z)
