"""Progress bars: widgets in a notebook that is run by hand, lines of text in a terminal and under make."""

import importlib
import os
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # without ipywidgets it says so, and gives lines of text
    tqdm = importlib.import_module("tqdm" if os.environ.get("SRS_MAKE") else "tqdm.auto").tqdm
