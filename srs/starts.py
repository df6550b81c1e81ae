"""Where a noisy copy's solver starts. A start sees the copies of one image batch after batch, in order."""

import torch
from torch import Tensor


class Zero:
    """The cold start of standard randomized smoothing: votes are independent."""

    shift: Tensor | None = None  # what is added to the logits after each step

    def first(self, cold: Tensor) -> Tensor:
        """The start of the first batch, given the model's cold start (B, D)."""
        return cold

    def next(self, cold: Tensor, z: Tensor) -> Tensor:
        """The start of a later batch, given the last batch's solutions z."""
        return cold


class Fixed(Zero):
    """One state for every copy: given that state, votes are independent.

    It is the noise-free image's solution (`clean`, the paper's ablation), the mean solution of a few pilot copies of
    the image (`centroid`; `calibrated` has a shift, too), or one that no image has a part in (`anchor`).

    Args:
        z: the state (1, D).
        shift: how far the logits are from the solution's after each step from there, on average over the pilot copies
            (steps, classes); None for no correction.
    """

    def __init__(self, z: Tensor, shift: Tensor | None = None):
        self.z, self.shift = z, shift

    def first(self, cold: Tensor) -> Tensor:
        """The state, for every copy; the cold start if the state is not finite."""
        return self.z.expand_as(cold) if torch.isfinite(self.z).all() else cold

    def next(self, cold: Tensor, z: Tensor) -> Tensor:
        """The state, for every copy."""
        return self.first(cold)


class Previous(Zero):
    """Slot b of a batch starts where slot b of the batch before ended (SRS, the paper's Algorithm 1)."""

    def next(self, cold: Tensor, z: Tensor) -> Tensor:
        """The last batch's solutions, of which the last batch of all may need fewer; cold where one is not finite."""
        z = z[: len(cold)]
        return torch.where(torch.isfinite(z).all(dim=1, keepdim=True), z, cold)  # or the whole chain after it would be lost
