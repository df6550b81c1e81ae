"""What a DEQ is trained to make small: the paper's loss, and one for path independence.

The paper's: f is unrolled from zero at first; then z* comes from Broyden's method and the gradient from the implicit function
theorem. `path_independent`: the solver starts anywhere, takes any small number of steps, and its last two iterates must agree
and be right, so that few evaluations of f lead to one answer from every start (Anil et al., NeurIPS 2022).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from srs.deq.mdeq import MDEQ
from srs.deq.solvers import broyden, implicit
from srs.settings import Train

CONFIDENCE = 0.5  # weight of the mean prediction's entropy, as Jeong and Shin have it


def loss(
    model: MDEQ, x: Tensor, y: Tensor, recipe: Train, *, pretrain: bool, penalise: bool, earlier: Tensor | None = None,
    way: tuple[str, int] = ("zero", 0),
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of noisy images x (B, C, H, W) of classes y by a recipe's gradient, and the solutions (B, D), detached.

    `pretrain` unrolls f from zero, whatever the recipe's gradient; `penalise` adds the Jacobian penalty. `path_independent`
    goes the `way` that `draw_way` drew, which may start from the `earlier` solutions (B, D) of another batch. A recipe with
    `consistency` has two noisy copies of each image, all first ones before all second ones.
    """
    u = model.inject(x)
    z = model.initial(u)
    total, also = 0.0, []
    if pretrain:
        for _ in range(recipe.pretrain_layers):
            z = model.f(z, u)
    elif recipe.gradient == "path_independent":
        start, free = way
        if earlier is not None and start != "zero":  # their mean, or each image from another one's own
            z = earlier.mean(dim=0, keepdim=True).expand_as(z) if start == "mean" else earlier
        with torch.no_grad():
            for _ in range(free):
                z = model.f(z, u)
        before = model.f(z, u)
        z = model.f(before, u)
        change = (z - before).square().sum(1) / z.detach().square().sum(1)
        total, also = recipe.path_independence.weight * change.mean(), [before] * recipe.path_independence.both
    else:
        with torch.no_grad():
            z = broyden(model.f, z, u, max_steps=recipe.forward_steps).z
        z = implicit(model.f, z, u, steps=recipe.backward_steps)
    guesses = [model.head(state) for state in (*also, z)]
    for logits in guesses:
        total = total + F.cross_entropy(logits, y)
    if recipe.consistency:
        total = total + disagreement(torch.cat(guesses).unflatten(0, (-1, len(y) // 2)), recipe.consistency)
    if penalise:
        total = total + recipe.jacobian_weight * jacobian_penalty(model, z, u)
    return total, z.detach()


def draw_way(recipe: Train) -> tuple[str, int]:
    """A start's name and the number of evaluations without gradient, from torch's generator."""
    rule = recipe.path_independence
    return rule.starts[int(torch.randint(len(rule.starts), ()))], int(torch.randint(rule.most_free_steps + 1, ()))


def disagreement(logits: Tensor, weight: float) -> Tensor:
    """Jeong and Shin's regulariser (arXiv 2006.04062) of predictions (M, B, classes) of M noisy copies of B images."""
    # `weight` times the mean divergence of the mean prediction from each, and CONFIDENCE times the mean one's entropy.
    logs = logits.log_softmax(dim=2)
    log_mean = logs.logsumexp(dim=0) - math.log(len(logs))
    divergence = (log_mean.exp() * (log_mean - logs)).sum(dim=2).mean()
    return weight * divergence - CONFIDENCE * (log_mean.exp() * log_mean).sum(dim=1).mean()


def jacobian_penalty(model: MDEQ, z: Tensor, u: Tensor) -> Tensor:
    """Hutchinson's estimate of |df/dz|_F^2 / D at z with one probe per sample (Bai et al. 2021, equation 9)."""
    z = z.detach().requires_grad_()
    fz = model.f(z, u)
    probe = torch.randn_like(fz)
    product = torch.autograd.grad(fz, z, probe, create_graph=True)[0]
    return product.square().sum() / z.numel()
