"""Serialized random smoothing for deep equilibrium models: the helper package behind the notebooks.

What certifies a model of your own, by its name here: `from srs import Smooth`.
"""

import importlib

PUBLIC = {  # name: the module that it is read from when it is first asked for, so that `import srs` imports no torch
    "Smooth": "smooth", "certify_images": "smooth", "plot_certified_accuracy": "smooth", "load": "smooth", "tune": "tuning",
    "from_torchdeq": "adapters", "certify_image": "smoothing.certify", "Method": "settings", "Sampling": "settings",
    "DEQ": "deq.mdeq", "ABSTAIN": "settings",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """A public name, from its module."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'srs' has no attribute {name!r}; the public names are {', '.join(PUBLIC)}")
    return getattr(importlib.import_module(f"srs.{PUBLIC[name]}"), name)

