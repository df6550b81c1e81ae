"""Progress bars: widgets in a notebook that is run by hand, lines of text in a terminal and under make."""

import os
import warnings

if os.environ.get("SRS_MAKE"):
    from tqdm import tqdm
else:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets it says so, and gives lines of text
        from tqdm.auto import tqdm

__all__ = ["tqdm"]
