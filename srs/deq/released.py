"""What the authors' released code spends, written anew: the same evaluations of f in the same order.

For the comparison of speed only. Its answer after k steps is that of our `anderson` with k steps.
"""

from torch import Tensor

from srs.deq.solvers import anderson, Layer, relative_residual, Solution


def released_anderson(
    f: Layer, z0: Tensor, u: Tensor, *, max_steps: int, tol: float = 0.0, decided: None = None
) -> Solution:
    """Anderson's k-step answer at the released cost of k + 2 evaluations of f per sample, for the whole batch.

    The first evaluation is made twice over, and one more after the last step serves a residual that nothing uses.
    Arguments as for `solvers.fixed_point`; `tol` and `decided` must be left alone.
    """
    if tol or decided:
        raise ValueError("released_anderson spends what the released code spends: want no tol and no decision rule")
    z0 = z0.contiguous()  # the released model computes every row of a common start
    f(z0, u)
    found = anderson(f, z0, u, max_steps=max_steps)
    residual = relative_residual(found.z, f(found.z, u))
    return Solution(found.z, residual, found.steps + 2)
