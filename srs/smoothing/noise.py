"""Noise as a function of (seed, image, stage, sample) alone: RS and SRS see the same, and an audit draws any copy again."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from srs.settings import check
from srs.smoothing import exact

STAGES = {"select": 0, "estimate": 1, "audit": 2, "pilot": 3}  # no two of them share randomness
BLOCK = 100  # samples per noise stream; part of what the noise is, so never change it


@dataclass(frozen=True)
class Copies:
    """The noisy copies x + sigma e of an image in one stage, e ~ N(0, I): called with sample numbers, it gives (B, C, H, W)."""

    x: Tensor  # (C, H, W) in [0, 1]
    sigma: float
    seed: int
    idx: int
    stage: str
    levels: int | None = None  # None: floating-point noise; else copies are exact multiples of 1/levels, see `exact`

    def __call__(self, samples: np.ndarray) -> Tensor:
        """The copies of those sample numbers."""
        where = (tuple(self.x.shape), self.seed, self.idx, self.stage, samples)
        if self.levels is None:
            return self.x + self.sigma * noise(*where).to(self.x)
        draw = partial(exact.draw, sigma=self.sigma, levels=self.levels)
        return exact.add(self.x, _by_block(draw, np.int32, *where), self.levels)


def stream(seed: int, idx: int, stage: str, block: int = 0) -> np.random.Generator:
    """The random generator of one block of one stage of one image; streams are independent (Philox)."""
    check(min(idx, block) >= 0, "image and first of its samples", (idx, block * BLOCK), "positions of 0 or more")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(idx, STAGES[stage], block))))


def noise(shape: tuple[int, ...], seed: int, idx: int, stage: str, samples: np.ndarray) -> Tensor:
    """Standard normal noise e (len(samples), *shape) for those sample numbers of a stage, float32."""
    draw = partial(np.random.Generator.standard_normal, dtype=np.float32)
    return torch.from_numpy(_by_block(draw, np.float32, shape, seed, idx, stage, samples))


def _by_block(draw: Callable, kind: type, shape, seed, idx, stage, samples) -> np.ndarray:
    out, blocks = np.empty((len(samples), *shape), kind), samples // BLOCK
    for block in np.unique(blocks):
        rows = blocks == block
        out[rows] = draw(stream(seed, idx, stage, int(block)), (BLOCK, *shape))[samples[rows] % BLOCK]
    return out


def audit_order(seed: int, idx: int, n: int) -> np.ndarray:
    """The random order in which the n estimation samples of an image are audited."""
    return stream(seed, idx, "audit").permutation(n)
