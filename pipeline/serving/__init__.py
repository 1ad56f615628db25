"""Scoring files and serving a model over HTTP."""
