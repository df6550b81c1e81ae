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

from dataclasses import dataclass
from functools import cache

import mpmath
import numpy as np
import torch
from torch import Tensor

from srs.settings import check

BITS = 64
GUIDE_BITS = 16  # a table of 2^16 answers stays in the processor's cache
DIGITS = 50


@dataclass(frozen=True)
class Table:
    """The discretised Gaussian as integers: P[noise <= i - reach] = thresholds[i] / 2^64."""

    reach: int  # the noise lies in [-reach, reach]; the tails beyond, less than 2^-65 each, are folded onto the ends
    thresholds: np.ndarray  # (2 reach,) uint64, ascending
    guide: np.ndarray  # (2^16,) int32, the noise for a number with these leading bits
    unsure: np.ndarray  # (2^16,) bool, where the leading bits do not decide


@cache
def table(sigma: float, levels: int) -> Table:
    """The distribution of round(levels sigma e), e ~ N(0, 1), with probabilities rounded to multiples of 2^-64."""
    upper, found = [], 0
    with mpmath.workdps(DIGITS):
        scale = 2 * levels * mpmath.mpf(sigma)  # the float's exact value
        while (found := int(mpmath.nint(mpmath.ncdf((2 * len(upper) + 1) / scale) * 2**BITS))) < 2**BITS:
            upper.append(found)
    # The exact distribution is symmetric; so is the rounded one, by construction.
    thresholds = np.array([2**BITS - c for c in reversed(upper)] + upper, np.uint64)
    first = np.arange(2**GUIDE_BITS, dtype=np.uint64) << np.uint64(BITS - GUIDE_BITS)
    last = first | np.uint64(2 ** (BITS - GUIDE_BITS) - 1)
    low, high = (np.searchsorted(thresholds, u, side="right") for u in (first, last))
    return Table(len(upper), thresholds, (low - len(upper)).astype(np.int32), low != high)


def draw(rng: np.random.Generator, shape: tuple[int, ...], sigma: float, levels: int) -> np.ndarray:
    """Noise in units of 1/levels, int32: a 64-bit number per pixel, looked up in the cumulative distribution."""
    found = table(sigma, levels)
    u = rng.integers(0, 2**BITS, shape, np.uint64)
    leading = (u >> np.uint64(BITS - GUIDE_BITS)).astype(np.intp)
    noise, unsure = found.guide.take(leading), found.unsure.take(leading)
    noise[unsure] = np.searchsorted(found.thresholds, u[unsure], side="right") - found.reach
    return noise


def to_grid(x: Tensor, levels: int) -> np.ndarray:
    """An image as integers x * levels; ConfigError for a pixel that is off the grid by more than float32 rounds."""
    scaled = x.detach().cpu().double().numpy() * levels
    whole = np.rint(scaled)
    off = float(np.abs(scaled - whole).max(initial=0))
    near = off <= levels * 2.0**-23
    check(near, "image", f"a pixel {off:.2g}/{levels} off the grid", f"multiples of 1/{levels} for grid noise")
    return whole.astype(np.int32)


def add(x: Tensor, noise: np.ndarray, levels: int) -> Tensor:
    """The noisy copies (B, C, H, W) of an image on the grid; the sum is formed in integers, then put like x."""
    copies = to_grid(x, levels) + noise
    return (torch.from_numpy(copies).float() / levels).to(x)


def added_to_alpha(sigma: float, levels: int, pixels: int, samples: int) -> float:
    """How much more often than alpha a certificate from that many noisy copies may fail, because of the 64 bits.

    The total variation distance of one pixel's noise: each of 2 reach thresholds is off by at most 2^-65, so is either tail.
    """
    return pixels * samples * (2 * table(sigma, levels).reach + 2) * 2.0 ** -(BITS + 1)
