"""A trained DEQ as it is run: folded, in some precision, compiled or not. The base classifier is what it is run as.

So both choices are settings of a profile, votes are kept apart by them, and provenance records them.
"""

import torch
from torch import Tensor

from srs import models
from srs.settings import PRECISIONS, check, one_of


class Bfloat16:
    """A DEQ whose injection and f are computed in bfloat16, by autocast; the solver's sums and the head are float32.

    What f gives is rounded to 8 bits, though it is handed on as float32; logits are not.

    Args:
        model: the DEQ.
    """

    def __init__(self, model: models.MDEQ):
        self.model = model

    @property
    def anchor(self) -> Tensor | None:
        """The model's own anchor."""
        return getattr(self.model, "anchor", None)

    def inject(self, x: Tensor) -> Tensor:
        """The injection of images x."""
        return self._lowered(self.model.inject, x)

    def initial(self, u: Tensor) -> Tensor:
        """The cold start."""
        return self.model.initial(u)

    def f(self, z: Tensor, u: Tensor) -> Tensor:
        """One evaluation of f."""
        return self._lowered(self.model.f, z, u)

    def head(self, z: Tensor) -> Tensor:
        """Logits of a solution."""
        return self.model.head(z)

    def _lowered(self, call, *given: Tensor) -> Tensor:
        with torch.autocast(given[0].device.type, torch.bfloat16):
            return call(*given).float()


def prepare(model: models.MDEQ | models.ResNet, *, precision: str = "float32", compiled: bool = False) -> models.DEQ:
    """The inference form of a trained network.

    Args:
        model: the network, on its device; it is copied.
        precision: "float32"; "tf32", where the device has it, chosen by `votes.sample`; or "bfloat16".
        compiled: whether f and the head are compiled, for any batch size, which takes a minute before the first vote.

    Raises:
        config.ConfigError: an unknown precision.
    """
    check(precision in PRECISIONS, "precision", precision, one_of(PRECISIONS))
    model = models.fold(model)
    if compiled:  # freezing: weights are laid out for the convolutions once
        model.f, model.head = (torch.compile(part, dynamic=True, options={"freezing": True}) for part in (model.f, model.head))
    return Bfloat16(model) if precision == "bfloat16" else model
