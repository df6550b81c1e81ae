"""The gradient through a fixed point, without one through the solver."""

import torch
from torch import Tensor

from srs.deq.mdeq import DEQ
from srs.deq.solvers import broyden


def implicit(model: DEQ, z: Tensor, u: Tensor, *, steps: int) -> Tensor:
    """f(z*, u) at a solution z* (B, D), with the implicit gradient by u and the weights.

    The adjoint g = grad + g J is solved by so many `steps` of Broyden's method, each a vector-Jacobian product.
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
