"""Figures that the paper published, to stand beside ours. Standard library only.

Certified accuracy in percent at the radii below and seconds per image on one A100, CIFAR-10, 500 images, N = 10,000.
Source: the authors' README and the paper's OpenReview thread (X64IJvdftR); what neither states is left out.
"""

from dataclasses import dataclass

N, K, ALPHA = 10_000, 400, 0.001
DATA = "CIFAR-10, 500 images"
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class Row:
    """One published row; None where no figure was found."""

    percent: tuple[int, ...] | None = None  # certified accuracy at RADII
    seconds: float | None = None
    acr: float | None = None


CIFAR10 = {
    ("LARGE", 0.5): {
        "MDEQ-1A": Row((28, 19, 13, 8, 5, 3, 1), 1.06, 0.27),
        "MDEQ-5A": Row((50, 41, 32, 21, 15, 10, 6), 2.59),
        "MDEQ-30A": Row((67, 55, 45, 33, 23, 16, 12), 12.89, 0.62),
        "SRS-MDEQ-1N": Row((61, 52, 44, 31, 22, 15, 11), 1.02),
        "SRS-MDEQ-1A": Row((63, 53, 45, 32, 22, 16, 12), 1.79, 0.59),
        "SRS-MDEQ-3A": Row((66, 54, 45, 33, 23, 16, 11), 2.55, 0.62),
    },
    ("SMALL", 0.5): {
        "MDEQ-1A": Row(acr=0.23),
        "MDEQ-30A": Row((62, 50, 38, 30, 22, 13, 9), acr=0.59),
        "SRS-MDEQ-1A": Row(acr=0.56),
        "SRS-MDEQ-3A": Row((60, 50, 38, 29, 21, 12, 8), acr=0.59),
    },
}


def rows(model: str, sigma: float) -> dict[str, Row]:
    """The published rows of a model size and noise level, by method; empty where there are none."""
    return CIFAR10.get((model, sigma), {})
