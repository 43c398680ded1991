"""Tokenises many conversations on several cores: a million of them take a quarter of an hour on one."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from train_plugins.chat import Tokenized, tokenise

ENOUGH = 20_000  # conversations that make up for starting processes
CHUNK = 500

_given: dict[str, Any] = {}  # what a forked process finds in place of arguments


def tokenise_all(
    tokenizer: Any, conversations: Sequence[Sequence[Mapping[str, Any]]], max_length: int, processes: int = 1
) -> Iterator[Tokenized]:
    """Each conversation as `tokenise` gives it, in order. `processes` of a training run share the machine's cores."""
    workers = min(16, len(os.sched_getaffinity(0)) // processes)
    if len(conversations) < ENOUGH or workers < 2:
        yield from (tokenise(tokenizer, messages, max_length) for messages in conversations)
        return
    _given.update(tokenizer=tokenizer, conversations=conversations, max_length=max_length)
    try:
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            for part in pool.imap(_tokenise_part, range(0, len(conversations), CHUNK)):
                yield from part
    finally:
        _given.clear()


def _tokenise_part(start: int) -> list[Tokenized]:
    part = _given["conversations"][start : start + CHUNK]
    return [tokenise(_given["tokenizer"], messages, _given["max_length"]) for messages in part]
