"""Where a noisy copy's solver starts, and when its vote is known before the solver has converged."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Fixed(NamedTuple):
    """One state for every copy: given that state, votes are independent.

    It is the noise-free image's solution (`clean`, the paper's ablation), the mean solution of a few pilot copies of
    the image (`pilot_mean`; `corrected_pilot_mean` has a shift, too), or one that no image has a part in (`train_mean`).
    """

    z: Tensor  # (1, D)
    shift: Tensor | None = None  # (steps, classes): how far logits are from the solution's after each step, on the pilot's mean


def begin(cold: Tensor, fixed: Fixed | None, before: Tensor | None) -> Tensor:
    """The starts (B, D) of a batch: the fixed state, or where each slot of the batch `before` ended, or cold.

    Slot b starts where slot b of the batch before ended (SRS, the paper's Algorithm 1). A state that is not finite begins
    again from the cold start, or the whole chain after it would be lost.
    """
    if fixed is not None:
        return fixed.z.expand_as(cold) if torch.isfinite(fixed.z).all() else cold
    if before is None:
        return cold
    z = before[: len(cold)]  # the last batch of all may be smaller
    return torch.where(torch.isfinite(z).all(dim=1, keepdim=True), z, cold)


class Decision:
    """Stops a sample once two iterates in a row give one class, whose probability leads by more than `margin`.

    Where the pilot has measured how far each step's logits are from the solution's, the lead alone decides.
    What stops early depends on that sample alone, so the vote stays a function of the noisy copy and its start. The
    price is a head per step; the last one computed serves as the vote's `logits`. `count` is the size of the batch; `shift`, as
    that of `Fixed`, is added to the logits.
    """

    def __init__(self, head: Callable[[Tensor], Tensor], count: int, margin: float, shift: Tensor | None = None):
        self.head, self.margin, self.shift = head, margin, shift
        self.count, self.logits = count, torch.empty(0)

    def __call__(self, step: int, active: Tensor, z: Tensor) -> Tensor:
        """Whether each of the active samples' votes is known, given their new iterates z."""
        logits = self.head(z) if self.shift is None else self.head(z) + self.shift[step]
        if step == 0:
            self.logits = logits.new_empty(self.count, logits.shape[1])
        before, now = self.logits[active].argmax(dim=1), logits.argmax(dim=1)
        self.logits[active] = logits
        top = logits.softmax(dim=1).topk(2, dim=1).values
        leads = top[:, 0] - top[:, 1] > self.margin
        return leads if self.shift is not None else leads & (before == now) & (step > 0)
