"""Anderson's method as the authors' released code runs it, written anew: for comparisons of cost only."""

import torch
from torch import Tensor

from srs.deq.solvers import Layer, MEMORY, REGULARISATION, relative_residual, Solution
from srs.settings import check

RELEASED_TOL = 1e-3  # the worst relative residual of a batch at which the released code stops; nothing there sets another


def anderson_as_released(
    f: Layer, z0: Tensor, u: Tensor, *, max_steps: int, tol: float = 0.0, decided: None = None
) -> Solution:
    """The iterate x_k of `solvers.anderson`, at the released code's cost: k + 2 evaluations of f for every sample of the batch.

    The first evaluation is made twice over, and that at x_k serves its residual alone. From k = 2 on, the whole batch stops
    once its worst relative residual is below `tol`. As there, every step forms all residuals and their inner products anew and
    copies its iterate seven times: the best one, the last one above the tolerance, and all of them are kept.
    """
    check(decided is None, "decided", decided, "None: the released code stops whole batches")
    b, d = z0.shape
    points, images = z0.new_zeros(2, b, MEMORY, d)
    f(z0.contiguous(), u)
    points[:, 0], images[:, 0] = z0, f(z0.contiguous(), u)
    points[:, 1], images[:, 1] = images[:, 0], f(images[:, 0].contiguous(), u)
    kept, k = [], 1
    best, last, lowest = z0, z0, z0.new_full((b,), torch.inf)
    for k in range(2, max_steps + 1):
        n, slot = min(k, MEMORY), k % MEMORY
        residuals = images[:, :n] - points[:, :n]
        gram = residuals @ residuals.mT + REGULARISATION * torch.eye(n, dtype=z0.dtype, device=z0.device)
        a = torch.linalg.solve_ex(gram, torch.ones_like(gram[:, 0]))[0]
        points[:, slot] = ((a / a.sum(dim=1, keepdim=True))[:, None] @ images[:, :n])[:, 0]
        images[:, slot] = f(points[:, slot].contiguous(), u)
        z, r = points[:, slot], relative_residual(points[:, slot], images[:, slot])
        best, lowest = torch.where((r < lowest)[:, None], z.clone(), best).clone(), torch.minimum(r, lowest)
        last = torch.where((r > tol)[:, None], z.clone(), last).clone()
        kept.append(z.clone())
        if r.max() < tol:
            break
    return Solution(points[:, k % MEMORY].clone(), torch.full((b,), k + 2, device=z0.device))
