"""Noise on the pixels' own grid from the exactly computed discretised Gaussian: rounding cannot void a certificate.

In floating point x + sigma e is rounded in a way that depends on x, so h(x + sigma e) is not one function of a Gaussian
around x, which the radius of Cohen et al. 2019 takes for granted (Voracek and Hein, ICLR 2023, arXiv 2207.07209, build
false certificates on that). Their cure: smooth the classifier F(v) = h(round v), where `round` goes to the nearest
multiple of 1/levels. For an image x on that grid, round(x + sigma e) = x + round(sigma e), so only integers are drawn
and added. Votes are those of a smoothed classifier at every point of the real space, with the same sigma and radius.

The noise is a vector of integers j with P[j <= i] = Phi((i + 1/2) / (levels sigma)), each rounded to a multiple of 2^-64;
`added_to_alpha` says what that costs. An image off the grid is refused. The bits are Philox's, taken for fair coins. The
network must give a copy the same class whenever and beside whatever it is solved.
"""

from functools import cache

import mpmath
import numpy as np
import torch
from torch import Tensor

from srs.settings import check

BITS = 64
DIGITS = 50


@cache
def thresholds(sigma: float, levels: int) -> np.ndarray:
    """P[round(levels sigma e) <= i - reach] 2^64 for i < 2 reach, e ~ N(0, 1), rounded to uint64."""
    # The noise lies in [-reach, reach]; the tails beyond, less than 2^-65 each, are folded onto the ends.
    upper, found = [], 0
    with mpmath.workdps(DIGITS):
        scale = 2 * levels * mpmath.mpf(sigma)  # the float's exact value
        while (found := int(mpmath.nint(mpmath.ncdf((2 * len(upper) + 1) / scale) * 2**BITS))) < 2**BITS:
            upper.append(found)
    # The exact distribution is symmetric; so is the rounded one, by construction.
    return np.array([2**BITS - c for c in reversed(upper)] + upper, np.uint64)


def draw(rng: np.random.Generator, shape: tuple[int, ...], sigma: float, levels: int) -> np.ndarray:
    """Noise in units of 1/levels, int32: a 64-bit number per pixel, looked up in the cumulative distribution."""
    table = thresholds(sigma, levels)
    return (np.searchsorted(table, rng.integers(0, 2**BITS, shape, np.uint64), side="right") - len(table) // 2).astype(np.int32)


def add(x: Tensor, noise: np.ndarray, levels: int) -> Tensor:
    """The noisy copies (B, C, H, W) of an image; ConfigError for a pixel that is off the grid by more than float32 rounds."""
    scaled = x.detach().cpu().double().numpy() * levels
    whole = np.rint(scaled).astype(np.int32)
    off = float(np.abs(scaled - whole).max(initial=0))
    near = off <= levels * 2.0**-23
    check(near, "image", f"a pixel {off:.2g}/{levels} off the grid", f"multiples of 1/{levels} for grid noise")
    return (torch.from_numpy(whole + noise).float() / levels).to(x)


def added_to_alpha(sigma: float, levels: int, pixels: int, samples: int) -> float:
    """How much more often than alpha a certificate from that many noisy copies may fail, because of the 64 bits."""
    # The total variation distance of one pixel's noise: each threshold is off by at most 2^-65, so is either tail.
    return pixels * samples * (len(thresholds(sigma, levels)) + 2) * 2.0 ** -(BITS + 1)
