"""Serialized random smoothing for deep equilibrium models: the helper package behind the notebooks."""
