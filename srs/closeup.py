"""One image under the magnifier: its noisy copies and how fast a solver settles from each start."""

import numpy as np
import torch

from srs import settings
from srs.deq.mdeq import DEQ
from srs.deq.solvers import Layer, SOLVERS
from srs.smoothing import noise


def noisy_copies(x: torch.Tensor, sigma: float, seed: int, idx: int, count: int) -> np.ndarray:
    """The first noisy copies x + sigma e of an image (C, H, W) that the estimation sees, (count, C, H, W)."""
    e = noise.noise(tuple(x.shape), seed, idx, "estimate", np.arange(count))
    return (x + sigma * e).numpy()


def trace(f: Layer, z0: torch.Tensor, u: torch.Tensor, *, solver: str, steps: int) -> np.ndarray:
    """The relative residual |f(z_k) - z_k| / |f(z_k)| before each of the first `steps` evaluations, (steps, B)."""
    return np.stack([SOLVERS[solver](f, z0, u, max_steps=k).residual.cpu().numpy() for k in range(1, steps + 1)])


@torch.inference_mode()
def residual_traces(
    model: DEQ, x: torch.Tensor, sigma: float, seed: int, idx: int, *, copies: int = 32, steps: int = 15,
    reference: settings.Method = settings.Sampling.reference,
) -> dict[str, np.ndarray]:
    """Residuals of the same noisy copies solved from the start of standard RS, the clean image's and SRS's.

    Args:
        model: any DEQ.
        x: image (C, H, W).
        sigma: noise level.
        seed: of the noise.
        idx: of the image's noise streams.
        copies: how many copies are solved; as many more are solved first, to start from.
        steps: evaluations of f that are followed.
        reference: the solver that is followed and that solves what the warm starts begin with.

    Returns:
        A (steps, copies) array for each of `zero`, `clean` and `previous`.
    """
    noisy = torch.from_numpy(noisy_copies(x, sigma, seed, idx, 2 * copies)).to(x)
    u, u_before, u_clean = model.inject(noisy[copies:]), model.inject(noisy[:copies]), model.inject(x[None])

    def solved(u: torch.Tensor) -> torch.Tensor:
        return SOLVERS[reference.solver](model.f, model.initial(u), u, max_steps=reference.steps).z

    zero = model.initial(u)
    from_each = {"zero": zero, "clean": solved(u_clean).expand_as(zero), "previous": solved(u_before)}
    return {name: trace(model.f, z0, u, solver=reference.solver, steps=steps) for name, z0 in from_each.items()}
