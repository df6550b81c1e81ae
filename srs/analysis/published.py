"""What others published, tracked as data/published/*.csv: cells as their source prints them, empty where it prints none.

`lipschitz` and `smoothing` are rows to compare with, `items` lists the paper's tables and figures. SLL's row in `lipschitz` is
the survey's; a later correction is said to have 64.8 at 36/255.
"""

import pandas as pd

from srs import store

PAPER = "Gao et al. 2024 (2411.00899), OpenReview thread"
PAPER_DATA = "CIFAR-10, 500 images"
SIGMA = 0.5  # of the rows in `smoothing`


def read(name: str) -> pd.DataFrame:
    """One table as text; the columns `r=...` hold certified accuracy in percent, `source` says whose numbers a row has."""
    return pd.read_csv(store.published(name), dtype=str, keep_default_na=False)
