# SPDX-License-Identifier: Apache-2.0
"""Rows of whole documents: packed or one document a row, and cut into batches."""

from collections.abc import Sequence

import numpy as np

from bcmb_jax.batch import Batch
from bcmb_jax.data.plan import SPECIAL_TOKENS, best_fit_decreasing
from bcmb_jax.data.tokenize import SpecialTokens


def fill_rows(
    rows: Sequence[Sequence[np.ndarray]], row_length: int, special: SpecialTokens | None = None
) -> Batch:
    """Write the documents of each row one after the other, then padding.

    Args:
      rows: for each row its documents, `[N]` integers.
      row_length: L.
      special: put a document between `[CLS]` and `[SEP]`, and pad with its id; None: the documents
        have their special tokens already, and padding is 0.
    """
    shape = (len(rows), row_length)
    tokens = np.full(shape, special.pad if special else 0, np.int32)
    segment_ids, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    counting = np.arange(row_length, dtype=np.int32)
    frame = SPECIAL_TOKENS // 2 if special else 0
    # One-dimensional views of the rows: indexing them takes half the time.
    for documents, *row in zip(rows, tokens, segment_ids, positions, strict=True):
        row_tokens, row_segments, row_positions = row
        stop = 0
        for segment, document in enumerate(documents, 1):
            start, stop = stop, stop + len(document) + 2 * frame
            row_tokens[start + frame : stop - frame] = document
            if special:
                row_tokens[start], row_tokens[stop - 1] = special.cls, special.sep
            row_segments[start:stop] = segment
            row_positions[start:stop] = counting[: stop - start]
    return Batch(tokens, segment_ids, positions, np.arange(len(rows), dtype=np.int32))


def padded(documents: Sequence[np.ndarray], row_length: int) -> Batch:
    """Return rows of one document each."""
    return fill_rows([[document] for document in documents], row_length)


def packed(documents: Sequence[np.ndarray], row_length: int) -> Batch:
    """Return as few rows of `row_length` as best-fit packing needs."""
    rows = assign(documents, row_length)
    return fill_rows([[documents[i] for i in row] for row in rows], row_length)


def assign(documents: Sequence[np.ndarray], row_length: int) -> list[list[int]]:
    """Return the indices of the documents in each row, best-fit packed, in ascending order."""
    row_of_document, rows = best_fit_decreasing(np.array([*map(len, documents)]), row_length)
    return [np.flatnonzero(row_of_document == row).tolist() for row in range(rows)]


def in_batches(batch: Batch, tokens: int, devices: int = 1) -> list[Batch]:
    """Cut into batches of about `tokens` positions with equally many rows, a multiple of `devices`.

    The last rows may be empty.
    """
    count, length = batch.tokens.shape
    batches = -(-count // max(1, tokens // length))
    size = -(-count // (batches * devices)) * devices
    missing = -count % size
    whole = Batch(*(np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in batch))
    return [Batch(*(x[i : i + size] for x in whole)) for i in range(0, count, size)]


def trimmed(batch: Batch) -> Batch:
    """Return the batch without the columns that are padding in every row."""
    longest = int((batch.segment_ids > 0).sum(1).max())
    tokens, segment_ids, positions, *rest = batch
    return Batch(tokens[:, :longest], segment_ids[:, :longest], positions[:, :longest], *rest)
