"""Fixed-point solvers for z = f(z, u): a batch of independent problems, each solved as if it were alone.

Cost is counted in evaluations of f and nothing else. The released code's k-step answer, on which it spends k + 2, is x_k, which
needs k. A sample that meets the tolerance leaves the batch: its answer never depends on its batch mates.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Layer = Callable[[Tensor, Tensor], Tensor]  # f(z, u): (B, D), (B, ...) -> (B, D)
Decided = Callable[[int, Tensor, Tensor], Tensor]  # (step, active samples, their new iterates) -> (b,) bool: answer known

MEMORY = 6  # Anderson's history, as in the released code
REGULARISATION = 1e-4  # lambda of Anderson's least squares, as in the released code
SCALED = 1e-6  # the same relative to the mean squared residual, so that it means the same near the solution
LARGEST_MIX = 1e3  # sum |a_i| of a mix beyond which it is the least squares' rounding error that is added up


class Solution(NamedTuple):
    """What a solver returns; failing to converge is no exception: `relative_residual` tells."""

    z: Tensor  # (B, D) the last iterate
    steps: Tensor  # (B,) evaluations of f spent


def relative_residual(z: Tensor, fz: Tensor) -> Tensor:
    """The relative residual |f(z) - z| / |f(z)| of every sample."""
    return (fz - z).norm(dim=1) / (fz.norm(dim=1) + 1e-9)


class Solver(NamedTuple):
    """A method: what it keeps of each sample between steps, and its step (k, z, f(z), kept) -> z."""

    begin: Callable[[Tensor, int], tuple[Tensor, ...]]
    step: Callable[[int, Tensor, Tensor, tuple[Tensor, ...]], Tensor]

    def __call__(
        self, f: Layer, z0: Tensor, u: Tensor, *, max_steps: int, tol: float = 0.0, decided: Decided | None = None
    ) -> Solution:
        """Iterate from z0 (B, D); f sees only the samples that are still unsolved, and their rows of the injection u.

        A sample is solved when its relative residual is at most `tol`, its answer is `decided` after a step, or it has cost
        `max_steps` evaluations of f.
        """
        z, out, kept, active = z0, z0.new_empty(z0.shape), self.begin(z0, max_steps), torch.arange(len(z0), device=z0.device)
        steps = torch.full_like(active, max_steps)
        for k in range(max_steps):
            fz = f(z, u)
            unsolved = ~(relative_residual(z, fz) <= tol) if tol > 0 else None  # a NaN stays
            z = self.step(k, z, fz, kept)
            if decided:
                known = decided(k, active, z)
                unsolved = ~known if unsolved is None else unsolved & ~known
            if unsolved is not None and not unsolved.all():
                out[active[~unsolved]], steps[active[~unsolved]] = z[~unsolved], k + 1
                active, z, u = active[unsolved], z[unsolved], u[unsolved]
                kept = tuple(s[unsolved] for s in kept)
                if len(active) == 0:
                    break
        if len(active) == len(out):  # none left early
            return Solution(z, steps)
        out[active] = z
        return Solution(out, steps)


def _history(z0, max_steps):
    b, d = z0.shape
    m = min(MEMORY, max_steps)
    images, residuals = z0.new_zeros(2, b, m, d)  # f(z) of the last steps, and f(z) - z of the same
    return images, residuals, z0.new_zeros(b, m, m)  # and the inner products of the residuals


def _released_mix(k, z, fz, kept):
    h = _remember(k, z, fz, kept)
    return _mix(_weights(h, REGULARISATION)[0], kept) if k else fz


def _safe_mix(k, z, fz, kept):
    h = _remember(k, z, fz, kept)
    if k == 0:
        return fz
    a, info = _weights(h / h.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None], SCALED)
    safe = (info == 0) & (a.abs().sum(dim=1) < LARGEST_MIX)  # False where a is not a number
    return torch.where(safe[:, None], _mix(a, kept), fz)


def _weights(h, regularisation):
    """a that minimises |sum a_i r_i|^2 + lambda |a|^2 over sum a_i = 1, that is H^-1 1, scaled; and LAPACK's info."""
    h = h + regularisation * torch.eye(len(h[0]), dtype=h.dtype, device=h.device)
    a, info = torch.linalg.solve_ex(h, torch.ones_like(h[:, :, 0]))
    return a / a.sum(dim=1, keepdim=True), info


def _remember(k, z, fz, kept):
    images, residuals, gram = kept
    m = images.shape[1]
    slot, n = k % m, min(k + 1, m)
    images[:, slot], residuals[:, slot] = fz, fz - z
    products = (residuals @ residuals[:, slot, :, None])[..., 0]  # (b, m)
    gram[:, slot], gram[:, :, slot] = products, products
    return gram[:, :n, :n]


def _mix(a, kept):
    images = kept[0]
    mix = a.new_zeros(images.shape[:2])  # as wide as the memory: a product with a part of it would copy that first
    mix[:, : a.shape[1]] = a
    return (mix[:, None] @ images)[:, 0]


def _inverse_jacobian(z0, max_steps):
    left, right = z0.new_zeros(2, len(z0), max_steps, z0.shape[1])
    return left, right, torch.zeros_like(z0), torch.zeros_like(z0)  # z and g(z) of the step before


def _broyden_step(k, z, fz, kept):
    left, right, z_last, g_last = kept
    g = fz - z
    if k > 0:
        dz, dg = z - z_last, g - g_last
        v = -dz + _combine(right, left, dz)  # dz^T (-I + U V^T)
        w = dz - (-dg + _combine(left, right, dg))
        # A solved sample divides rounding errors by zero: then there is nothing to update.
        left[:, k - 1] = torch.nan_to_num(w / (v * dg).sum(1, keepdim=True), posinf=0.0, neginf=0.0)
        right[:, k - 1] = torch.nan_to_num(v, posinf=torch.inf, neginf=-torch.inf)
    z_last[:], g_last[:] = z, g
    return z + g - _combine(left, right, g)


def _combine(out, inner, x):
    """sum_i out_i (inner_i . x): the low-rank part of the inverse Jacobian, applied to x."""
    return ((inner @ x[..., None]).mT @ out)[:, 0]


# The naive iteration z <- f(z, u).
fixed_point = Solver(lambda z0, max_steps: (), lambda k, z, fz, kept: fz)
# Anderson acceleration (Walker and Ni 2011), the mix of the last f(z) with the least squared residual, as released.
anderson = Solver(_history, _released_mix)
# The same, whatever the scale of z; a sample whose least squares is singular, or whose mix explodes, takes the plain step f(z).
safe_anderson = Solver(_history, _safe_mix)
# Broyden's good method on g(z) = f(z) - z, the inverse Jacobian kept as -I + sum of u v^T.
broyden = Solver(_inverse_jacobian, _broyden_step)

SOLVERS = {"naive": fixed_point, "anderson": anderson, "safe_anderson": safe_anderson, "broyden": broyden}


def implicit(f: Layer, z: Tensor, u: Tensor, *, steps: int) -> Tensor:
    """f(z*, u) at a solution z* (B, D), with the implicit gradient by u and the weights."""
    # The adjoint g = grad + g J is solved by so many steps of Broyden's method, each a vector-Jacobian product.
    z = z.detach().requires_grad_()
    fz = f(z, u)

    def adjoint(grad: Tensor) -> Tensor:
        hook.remove()  # or the products below would come here again

        def step(g: Tensor, grad: Tensor) -> Tensor:
            return torch.autograd.grad(fz, z, g, retain_graph=True)[0] + grad

        return broyden(step, torch.zeros_like(grad), grad, max_steps=steps).z

    hook = fz.register_hook(adjoint)
    return fz
