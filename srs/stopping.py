"""When a vote is known before its solver has converged: its class leads by a margin."""

from collections.abc import Callable

import torch
from torch import Tensor


class Decision:
    """Stops a sample once two iterates in a row give one class, whose probability leads by more than `margin`.

    Where the pilot has measured how far each step's logits are from the solution's, the lead alone decides.

    What stops early depends on that sample alone, so the vote stays a function of the noisy copy and its start. The
    price is a head per step; the last one computed serves as the vote's logits.

    Args:
        head: logits (b, classes) of states (b, D).
        count: samples of the batch.
        margin: lead of the largest softmax probability over the second, from 0 to 1.
        shift: what is added to the logits after each step (steps, classes), see `starts.Fixed`; None for nothing.
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
