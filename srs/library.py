"""PGD of the adversarial-robustness-toolbox (ART, Nicolae et al. 2018) on a DEQ whose gradients are ours.

The library iterates, steps and projects; `adversary` only answers what the gradient is. Importing it takes seconds,
so this module is imported where it is needed.
"""

import warnings

import numpy as np
import torch
from torch import Tensor

from srs import adversary
from srs.models import DEQ
from srs.threats import Attack

with warnings.catch_warnings():  # it imports much that is not used here, and some of it warns
    warnings.simplefilter("ignore")
    from art.attacks.evasion import ProjectedGradientDescentNumpy
    from art.estimators.estimator import BaseEstimator, LossGradientsMixin


class Estimator(LossGradientsMixin, BaseEstimator):
    """A DEQ as the library wants it: no preprocessing, no clipping (`clip_values` None), the gradient from `adversary`."""

    def __init__(self, model: DEQ, attack: Attack, like: Tensor):
        super().__init__(model=model, clip_values=None)
        self.attack, self.like = attack, like

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        return tuple(self.like.shape[1:])

    def loss_gradient(self, x: np.ndarray, y: np.ndarray, **kwargs) -> np.ndarray:
        """The gradient of the cross-entropy at images x (B, C, H, W) with classes y (B,)."""
        x, y = torch.from_numpy(x).to(self.like), torch.from_numpy(y).to(self.like.device)
        found = adversary.loss_gradient(
            self.model, x, lambda logits: adversary.smoothed_cross_entropy(logits, y), self.attack.gradient
        )
        return found.cpu().numpy()

    def predict(self, x, **kwargs):
        """Not needed by the attack."""
        raise NotImplementedError

    def fit(self, x, y, **kwargs):
        """Not needed by the attack."""
        raise NotImplementedError


def pgd(model: DEQ, x: Tensor, y: Tensor, attack: Attack, radius: Tensor) -> Tensor:
    """Images (B, C, H, W) after the library's PGD-l2 on the base classifier, a radius (B,) for each."""
    eps = radius.cpu().numpy().astype(np.float32).reshape(-1, *[1] * (x.dim() - 1))
    driver = ProjectedGradientDescentNumpy(
        Estimator(model, attack, x), norm=2, eps=eps, eps_step=np.full_like(eps, attack.step), max_iter=attack.steps,
        num_random_init=0, batch_size=len(x), verbose=False,
    )  # fmt: skip
    return torch.from_numpy(driver.generate(x.cpu().numpy(), y.cpu().numpy())).to(x)
