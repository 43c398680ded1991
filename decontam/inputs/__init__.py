"""Reading training data: finding its files, cutting them into shards, and their bytes, batches, rows and digests."""

from decontam.inputs.batches import first_row_of, read_batches
from decontam.inputs.blocks import Block, TruncatedInput, read_blocks
from decontam.inputs.columns import ArrowMessages, arrow_messages
from decontam.inputs.digests import Fingerprint, dataset_digest, file_digest, fingerprint
from decontam.inputs.discover import Dataset, File, discover
from decontam.inputs.rows import fetch_rows, first_rows, line_numbers, parse_line, why_no_rows
from decontam.inputs.shards import shards_of

__all__ = [
    "ArrowMessages",
    "Block",
    "Dataset",
    "File",
    "Fingerprint",
    "TruncatedInput",
    "arrow_messages",
    "dataset_digest",
    "discover",
    "fetch_rows",
    "file_digest",
    "fingerprint",
    "first_row_of",
    "first_rows",
    "line_numbers",
    "parse_line",
    "read_batches",
    "read_blocks",
    "shards_of",
    "why_no_rows",
]
