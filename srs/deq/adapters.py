"""Other people's models as a DEQ: a network that maps images to logits, and a DEQ that was written for torchdeq."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from srs import settings
from srs.deq import mdeq

Parts = Tensor | tuple[Tensor, ...]
Map = Callable[[Tensor], Tensor]


class Adapted:
    """A DEQ put together from functions, as `mdeq.DEQ` describes them, and the networks that they belong to."""

    def __init__(self, inject: Map, initial: Map, f: Callable, head: Map, networks: list[nn.Module], explicit: bool = False):
        self.inject, self.initial, self.f, self.head = inject, initial, f, head
        self.networks, self.train_mean, self.explicit = nn.ModuleList(networks), None, explicit  # explicit: f forgets its state
        self.networks.training = False  # the list's own mode, which every new module has; what counts is that of its parts


def from_torchdeq(
    inject: Callable[[Tensor], Parts], f: Callable[[Parts, Parts], Parts], head: Callable[[Parts], Tensor], *,
    initial: Callable[[Parts], Parts] = torch.zeros_like, module: nn.Module | None = None,
) -> Adapted:  # fmt: skip
    """The parts of a DEQ that was written for torchdeq, as a DEQ; u and z are tensors, batch first, or tuples of them.

    torchdeq's solver stops a whole batch at once, so a copy's class may depend on the copies beside it, and a certificate
    would not hold. The solvers here stop sample by sample.

    Args:
        inject, f, head: u = inject(x) of images x; f(z, u), whose fixed point torchdeq finds; logits (B, classes) = head(z).
        initial: z0 = initial(u), where the solver starts.
        module: the network that owns these functions, where they are neither its methods nor modules, to check its mode.
    """
    owners = (part if isinstance(part, nn.Module) else getattr(part, "__self__", None) for part in (module, inject, f, head))
    networks = [owner for owner in owners if isinstance(owner, nn.Module)]
    settings.check(len(networks) > 0, "module", module, "the network of inject, f and head: it must be in eval mode")
    u, z = _Flat(), _Flat()
    return Adapted(
        lambda x: u.pack(inject(x)), lambda flat: z.pack(initial(u.unpack(flat))),
        lambda state, flat: z.pack(f(z.unpack(state), u.unpack(flat))), lambda state: head(z.unpack(state)), networks,
    )  # fmt: skip


class _Flat:
    """Tensors, batch first, as one (B, D) and back."""

    def pack(self, parts: Parts) -> Tensor:
        parts = parts if isinstance(parts, (tuple, list)) else (parts,)
        self.shapes = [part.shape[1:] for part in parts]
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def unpack(self, flat: Tensor) -> Parts:
        parts = flat.split([shape.numel() for shape in self.shapes], dim=1)
        parts = tuple(part.unflatten(1, shape) for part, shape in zip(parts, self.shapes))
        return parts[0] if len(parts) == 1 else parts


def as_deq(model: object, classes: int) -> mdeq.DEQ:
    """The model itself if it has the methods of a DEQ, else an explicit network behind them; ConfigError if it is neither."""
    deq = all(callable(getattr(model, name, None)) for name in ("inject", "initial", "f", "head"))
    right = "a network that maps images to logits, or a DEQ with the methods inject, initial, f and head"
    settings.check(deq or isinstance(model, nn.Module), "model", type(model).__name__, right)
    if deq:
        return model

    def f(z: Tensor, u: Tensor) -> Tensor:  # the logits of the images u, whatever z is
        logits = model(u)
        right = f"{tuple(z.shape)}, as `classes` says"
        settings.check(logits.shape == z.shape, "shape of the logits", tuple(logits.shape), right)
        return logits

    return Adapted(lambda x: x, lambda u: u.new_zeros(len(u), classes), f, lambda z: z, [model], explicit=True)
