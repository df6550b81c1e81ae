"""The gradient through a fixed point, without one through the solver."""

import torch
from torch import Tensor

from srs.deq.mdeq import DEQ
from srs.deq.solvers import broyden


def implicit(model: DEQ, z: Tensor, u: Tensor, *, steps: int) -> Tensor:
    """f(z*, u) with the implicit gradient: the adjoint g = grad + g J is solved by Broyden's method.

    Args:
        model: the DEQ.
        z: a solution, (B, D), without gradient.
        u: injection, with gradient.
        steps: evaluations of the vector-Jacobian product.
    """
    z = z.detach().requires_grad_()
    fz = model.f(z, u)

    def adjoint(grad: Tensor) -> Tensor:
        hook.remove()  # or the products below would come here again

        def step(g: Tensor, grad: Tensor) -> Tensor:
            return torch.autograd.grad(fz, z, g, retain_graph=True)[0] + grad

        return broyden(step, torch.zeros_like(grad), grad, max_steps=steps).z

    hook = fz.register_hook(adjoint)
    return fz
