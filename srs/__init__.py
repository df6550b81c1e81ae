"""Serialized random smoothing for deep equilibrium models. What certifies your own model: `from srs import Smooth`."""

import importlib

PUBLIC = {  # name: the module that it is read from when it is first asked for, so that `import srs` imports no torch
    "Smooth": "smoothing.smooth", "certify_images": "smoothing.smooth", "certify_image": "smoothing.certify",
    "load": "experiments.own_model", "tune": "experiments.own_model", "plot_certified_accuracy": "experiments.own_model",
    "DEQ": "deq.mdeq", "from_torchdeq": "deq.adapters", "Method": "settings", "Sampling": "settings", "ABSTAIN": "settings",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """A public name, from its module."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'srs' has no attribute {name!r}; the public names are {', '.join(PUBLIC)}")
    return getattr(importlib.import_module(f"srs.{PUBLIC[name]}"), name)

