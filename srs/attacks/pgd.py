"""The one PGD: projected gradient ascent in an l2 ball, on a DEQ or its smoothed classifier, through the solver's states.

Base PGD, Smooth-PGD and adversarial training are this loop with another number of noisy copies. It works on any model of
`mdeq.DEQ` whose methods torch can differentiate. Nothing here clips to [0, 1]; see `attacks.settings`.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from srs.attacks.settings import Adversarial, Gradient
from srs.deq.gradients import implicit
from srs.deq.mdeq import DEQ, MDEQ
from srs.deq.solvers import SOLVERS

Loss = Callable[[Tensor], Tensor]  # logits (B, classes) -> what the attacker wants large, a number


def pgd(x: Tensor, gradient: Callable[[Tensor], Tensor], radius: float | Tensor, *, steps: int, step: float) -> Tensor:
    """Images (B, C, H, W) after projected gradient ascent in the l2 ball about x (Madry et al. 2018), from x itself.

    Args:
        x: where it starts and what the ball is about.
        gradient: of what is to become large, at images.
        radius: of the ball, one for all or one per image (B,).
        steps, step: how many, and the length of each along the normalised gradient; 0 where the gradient is 0.
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

    One copy without noise makes it the gradient of the base classifier's cross-entropy.
    """
    copies = (x[:, None] + noise).flatten(0, 1)
    return loss_gradient(model, copies, lambda logits: smoothed_cross_entropy(logits, y), gradient).view_as(noise).sum(1)


def smoothed_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log of the mean softmax over each image's noisy copies (Salman et al. 2019, equation 6), summed over images.

    Logits are (B m, classes), the copies of an image one after another, and y (B,) classes; with m = 1 it is the cross-entropy.
    """
    copies = len(logits) // len(y)
    log_p = F.log_softmax(logits, dim=1).gather(1, y.repeat_interleave(copies)[:, None]).view(len(y), copies)
    return (math.log(copies) - torch.logsumexp(log_p, dim=1)).sum()


def loss_gradient(model: DEQ, x: Tensor, loss: Loss, gradient: Gradient) -> Tensor:
    """dL/dx (B, C, H, W) at images x, noise included, through the solver's state z_n (Yang, Pang, Liu 2022, section 4)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        u = model.inject(x)
        if gradient.kind == "adjoint":
            z, adjoint = simultaneous_adjoint(model, u.detach(), loss, gradient)
            return torch.autograd.grad(model.f(z, u), x, adjoint)[0]
        z = solve(model, u.detach(), gradient)
        if gradient.kind == "implicit":
            z = implicit(model, z, u, steps=gradient.backward)
        else:
            for _ in range(gradient.unroll):
                z = (1 - gradient.beta) * z + gradient.beta * model.f(z, u)
        return torch.autograd.grad(loss(model.head(z)), x)[0]


@torch.no_grad()
def solve(model: DEQ, u: Tensor, gradient: Gradient) -> Tensor:
    """The state z_n (B, D) after `gradient.state` evaluations of f from the cold start."""
    return SOLVERS[gradient.solver](model.f, model.initial(u), u, max_steps=gradient.state).z


def simultaneous_adjoint(model: DEQ, u: Tensor, loss: Loss, gradient: Gradient) -> tuple[Tensor, Tensor]:
    """The state z_n and the adjoint u_n (B, D) that ran along with the solver (Yang, Pang, Liu 2022, section 4.1).

    u_0 = 0 and u_{t+1} = (1 - beta) u_t + beta (dL/dz_t + u_t df/dz_t), at the points z_t where the solver evaluates f.
    At a fixed point of both, u is the adjoint of the implicit function theorem.
    """
    adjoint = torch.zeros_like(model.initial(u))

    def f(z: Tensor, u: Tensor) -> Tensor:
        nonlocal adjoint
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            fz = model.f(z, u)
            pulled = torch.autograd.grad(fz, z, adjoint)[0] + torch.autograd.grad(loss(model.head(z)), z)[0]
        adjoint = (1 - gradient.beta) * adjoint + gradient.beta * pulled
        return fz.detach()

    z = SOLVERS[gradient.solver](f, model.initial(u), u, max_steps=gradient.state).z
    return z, adjoint


def harden(model: MDEQ, x: Tensor, y: Tensor, sigma: float, adversarial: Adversarial) -> tuple[Tensor, Tensor]:
    """Attacked noisy copies (B m, C, H, W) of a batch and their classes, to be trained on (SmoothAdv, Salman et al. 2019).

    The noise comes from torch's generator; the copies that are attacked are those that are returned. While it is
    attacked the model is in eval mode, so that the attack moves no batch statistics.
    """
    rule, training = adversarial, model.training
    noise = sigma * torch.randn(len(x), rule.vectors, *x.shape[1:]).to(x)
    model.eval()
    gradient = lambda x: smoothed_gradient(model, x, y, noise, rule.gradient)  # noqa: E731
    attacked = pgd(x, gradient, rule.radius, steps=rule.steps, step=rule.step)
    model.train(training)
    return (attacked[:, None] + noise).flatten(0, 1), y.repeat_interleave(rule.vectors)
