"""How good a model is, whether a difference is significant, and where it lies."""
