"""Where a noisy copy's solver starts. A start sees the copies of one image batch after batch, in order."""

from collections.abc import Callable

from torch import Tensor


class Zero:
    """The cold start of standard randomized smoothing: votes are independent."""

    def first(self, cold: Tensor) -> Tensor:
        """The start of the first batch, given the model's cold start (B, D)."""
        return cold

    def next(self, cold: Tensor, z: Tensor) -> Tensor:
        """The start of a later batch, given the last batch's solutions z."""
        return cold


class Clean(Zero):
    """The solution of the noise-free image (the paper's ablation): votes are independent given the image.

    Args:
        solve: called once, gives the noise-free image's solution (1, D).
    """

    def __init__(self, solve: Callable[[], Tensor]):
        self.z = solve()

    def first(self, cold: Tensor) -> Tensor:
        """The noise-free solution for every copy."""
        return self.z.expand_as(cold)

    def next(self, cold: Tensor, z: Tensor) -> Tensor:
        """The noise-free solution for every copy."""
        return self.first(cold)


class Previous(Zero):
    """Slot b of a batch starts where slot b of the batch before ended (SRS, the paper's Algorithm 1)."""

    def next(self, cold: Tensor, z: Tensor) -> Tensor:
        """The last batch's solutions; the last batch of all may be shorter."""
        return z[: len(cold)]
