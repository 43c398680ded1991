"""Scores, compares and promotes checkpoints of open language models. Importing this package imports nothing heavy."""

__version__ = "0.1.0"
