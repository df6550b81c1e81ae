"""Noise on the pixels' own grid from the exactly computed discretised Gaussian: rounding cannot void a certificate.

In floating point x + sigma e is rounded in a way that depends on x, so h(x + sigma e) is not one function of a Gaussian
around x, which the radius of Cohen et al. 2019 takes for granted (Voracek and Hein, ICLR 2023, arXiv 2207.07209, build
false certificates on that). Their cure: smooth the classifier F(v) = h(round v), where `round` goes to the nearest
multiple of 1/levels. For an image x on that grid, round(x + sigma e) = x + round(sigma e), so only integers are drawn
and added.

What is guaranteed, for an image whose pixels are multiples of 1/levels:
  * the noise is a vector of integers j with P[j <= i] = Phi((i + 1/2) / (levels sigma)), each such probability rounded
    to the nearest multiple of 2^-64 from a computation with 50 digits, sigma being the exact value of the float;
  * the sum of pixel and noise is formed in integers; what the network is given is a function of that integer alone
    (the float nearest to it, divided by `levels`), wherever the image was: x + noise loses nothing;
  * so the votes are those of a smoothed classifier in the sense of Cohen et al. at every point of the real space, of
    which the grid is a part, with the same sigma: the radius is unchanged, and nothing is paid for the rounding.
The 64 bits put the distribution of one pixel within `total_variation` of the exact one. Over all pixels and samples of
a certificate that adds at most pixels x samples times as much to alpha (`added_to_alpha`): 4e-9 for CIFAR-10 at
sigma = 1 and N = 10,000, some millionths of alpha = 0.001; it is reported, not subtracted.

What is not guaranteed: an image off the grid is refused, not rounded. The bits come from a pseudo-random generator
(Philox), taken for fair coins. The network must give a copy the same class whenever and beside whatever it is solved;
kernels that change with the batch are outside this module. The bounds themselves are computed in double precision.
"""

from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache

import numpy as np
import torch
from torch import Tensor

from srs.settings import check

BITS = 64
HALF = 1 << (BITS - 1)
GUIDE_BITS = 16  # a table of 2^16 answers stays in the processor's cache
DIGITS = 50
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")


@dataclass(frozen=True)
class Table:
    """The discretised Gaussian as integers: P[noise <= i - reach] = thresholds[i] / 2^64.

    Attributes:
        reach: the noise lies in [-reach, reach]; the tails beyond, less than 2^-65 each, are folded onto the ends.
        thresholds: (2 reach,) uint64, ascending.
        guide: (2^16,) int32, the noise for a number with these leading bits.
        unsure: (2^16,) bool, where the leading bits do not decide.
    """

    reach: int
    thresholds: np.ndarray
    guide: np.ndarray
    unsure: np.ndarray


def excess(t: Decimal) -> Decimal:
    """Phi(t) - 1/2 for t >= 0 to 45 digits: phi(t) (t + t^3/3 + t^5/(3 5) + ...), a series without cancellation."""
    with localcontext() as context:
        context.prec = DIGITS
        term, total, k = t, Decimal(0), 1
        while term > total * Decimal(10) ** -DIGITS:
            total += term
            k += 2
            term = term * t * t / k
        return total * (-t * t / 2).exp() / (2 * PI).sqrt()


@cache
def table(sigma: float, levels: int) -> Table:
    """The distribution of round(levels sigma e), e ~ N(0, 1), with probabilities rounded to multiples of 2^-64."""
    upper = []
    with localcontext() as context:
        context.prec = DIGITS
        scale = 2 * levels * Decimal(sigma)  # the float's exact value
        while True:
            above = int((excess((2 * len(upper) + 1) / scale) * 2**BITS).to_integral_value())
            if above >= HALF:
                break
            upper.append(HALF + above)
    # The exact distribution is symmetric; so is the rounded one, by construction.
    thresholds = np.array([2 * HALF - c for c in reversed(upper)] + upper, np.uint64)
    first = np.arange(2**GUIDE_BITS, dtype=np.uint64) << np.uint64(BITS - GUIDE_BITS)
    last = first | np.uint64(2 ** (BITS - GUIDE_BITS) - 1)
    low, high = (np.searchsorted(thresholds, u, side="right") for u in (first, last))
    return Table(len(upper), thresholds, (low - len(upper)).astype(np.int32), low != high)


def draw(rng: np.random.Generator, shape: tuple[int, ...], sigma: float, levels: int) -> np.ndarray:
    """Noise in units of 1/levels, int32: a 64-bit number per pixel, looked up in the cumulative distribution."""
    found = table(sigma, levels)
    u = rng.integers(0, 2**BITS, shape, np.uint64)
    leading = (u >> np.uint64(BITS - GUIDE_BITS)).astype(np.intp)
    noise = found.guide.take(leading)
    unsure = found.unsure.take(leading)
    noise[unsure] = np.searchsorted(found.thresholds, u[unsure], side="right") - found.reach
    return noise


def to_grid(x: Tensor, levels: int) -> np.ndarray:
    """An image as integers x * levels.

    Raises:
        ConfigError: a pixel is not a multiple of 1/levels, but for the rounding of one float32.
    """
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


def total_variation(sigma: float, levels: int) -> float:
    """Bound on the total variation distance between the noise of one pixel and the exact discretised Gaussian.

    Each of the 2 reach thresholds is off by at most 2^-65, and so is either folded tail.
    """
    return (2 * table(sigma, levels).reach + 2) * 2.0 ** -(BITS + 1)


def added_to_alpha(sigma: float, levels: int, pixels: int, samples: int) -> float:
    """How much more often than alpha a certificate from that many noisy copies may fail, because of the 64 bits."""
    return pixels * samples * total_variation(sigma, levels)
