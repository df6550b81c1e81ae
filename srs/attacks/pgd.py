"""The one PGD: projected gradient ascent in an l2 ball, on a DEQ or its smoothed classifier, through the solver's states."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from srs.attacks.settings import Adversarial, Gradient
from srs.deq.mdeq import DEQ, MDEQ
from srs.deq.solvers import implicit, SOLVERS


def pgd(x: Tensor, gradient: Callable[[Tensor], Tensor], radius: float | Tensor, *, steps: int, step: float) -> Tensor:
    """Images (B, C, H, W) after projected gradient ascent in the l2 ball about x (Madry et al. 2018), from x itself.

    The radius is one for all images or one each (B,). A step is that long along the normalised gradient; 0 where that is 0.
    """
    radius = torch.as_tensor(radius, dtype=x.dtype, device=x.device).expand(len(x)).view(-1, 1, 1, 1)
    moved = torch.zeros_like(x)
    for _ in range(steps):
        g = gradient(x + moved)
        moved = moved + step * g / _norm(g)
        moved = moved * (radius / _norm(moved)).clamp_max(1)
    return x + moved


def _norm(x: Tensor) -> Tensor:
    """l2 norm of each image (B, 1, 1, 1), never 0."""
    return x.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny).view(-1, 1, 1, 1)


def smoothed_gradient(model: DEQ, x: Tensor, y: Tensor, noise: Tensor, gradient: Gradient) -> Tensor:
    """The gradient (B, C, H, W) of `smoothed_cross_entropy` at images x through their copies x + noise (B, m, C, H, W).

    It goes through the solver's state z_n (Yang, Pang, Liu 2022, section 4). A copy without noise attacks the base classifier.
    """
    with torch.enable_grad():
        copies = (x[:, None] + noise).flatten(0, 1).detach().requires_grad_()
        u = model.inject(copies)
        z = solve(model, u.detach(), gradient)
        if gradient.kind == "implicit":
            z = implicit(model.f, z, u, steps=gradient.backward)
        else:
            for _ in range(gradient.unroll):
                z = model.f(z, u)
        loss = smoothed_cross_entropy(model.head(z), y)
        return torch.autograd.grad(loss, copies)[0].view_as(noise).sum(1)


def smoothed_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log of the mean softmax over each image's noisy copies (Salman et al. 2019, equation 6), summed over images.

    Logits are (B m, classes), the copies of an image one after another; y are classes (B,).
    """
    copies = len(logits) // len(y)
    log_p = F.log_softmax(logits, dim=1).gather(1, y.repeat_interleave(copies)[:, None]).view(len(y), copies)
    return (math.log(copies) - torch.logsumexp(log_p, dim=1)).sum()


@torch.no_grad()
def solve(model: DEQ, u: Tensor, gradient: Gradient) -> Tensor:
    """The state z_n (B, D) after `gradient.state` evaluations of f from the cold start."""
    return SOLVERS[gradient.solver](model.f, model.initial(u), u, max_steps=gradient.state).z


def harden(model: MDEQ, x: Tensor, y: Tensor, sigma: float, adversarial: Adversarial) -> tuple[Tensor, Tensor]:
    """Attacked noisy copies (B m, C, H, W) of a batch and their classes, to be trained on (SmoothAdv, Salman et al. 2019)."""
    rule, training = adversarial, model.training
    noise = sigma * torch.randn(len(x), rule.vectors, *x.shape[1:]).to(x)
    # So that the attack moves no batch statistics.
    model.eval()
    gradient = lambda x: smoothed_gradient(model, x, y, noise, rule.gradient)  # noqa: E731
    attacked = pgd(x, gradient, rule.radius, steps=rule.steps, step=2 * rule.radius / rule.steps)
    model.train(training)
    return (attacked[:, None] + noise).flatten(0, 1), y.repeat_interleave(rule.vectors)
