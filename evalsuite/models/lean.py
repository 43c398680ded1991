"""Starts transformers without scikit-learn, which takes seconds of every start."""

from __future__ import annotations

import sys

GENERATION = "transformers.generation.candidate_generator"


def import_generation() -> None:
    """Imports transformers' generation where that has not been done.

    It reads scikit-learn, with scipy and pandas, for the adaptive threshold of assisted decoding alone, which nothing
    here uses; in this process assisted decoding goes without that threshold from then on.
    """
    if GENERATION in sys.modules:
        return
    from importlib import import_module

    from transformers import utils

    asked = utils.is_sklearn_available
    utils.is_sklearn_available = lambda: False
    try:
        import_module(GENERATION)
    finally:
        utils.is_sklearn_available = asked
