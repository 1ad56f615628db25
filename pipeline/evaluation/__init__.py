"""How good a model is, whether a difference is real, and where it lies."""
