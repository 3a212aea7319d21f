# SPDX-License-Identifier: Apache-2.0
"""Rows made of whole documents that are at hand: padded, or packed; and batches of rows."""

from collections.abc import Sequence

import numpy as np

from bcmb_jax.batch import Batch
from bcmb_jax.data.plan import best_fit_decreasing


def padded(documents: Sequence[np.ndarray], row_length: int) -> Batch:
    """A document a row."""
    return fill_rows([[document] for document in documents], row_length)


def packed(documents: Sequence[np.ndarray], row_length: int) -> Batch:
    """As few rows of `row_length` as best-fit packing needs."""
    rows = assign(documents, row_length)
    return fill_rows([[documents[i] for i in row] for row in rows], row_length)


def assign(documents: Sequence[np.ndarray], row_length: int) -> list[list[int]]:
    """The numbers of the documents in each row, best-fit packed, in ascending order."""
    row_of, rows = best_fit_decreasing(np.array([*map(len, documents)]), row_length)
    return [np.flatnonzero(row_of == row).tolist() for row in range(rows)]


def fill_rows(of_rows: Sequence[Sequence[np.ndarray]], row_length: int) -> Batch:
    """Each row's documents one after the other, then padding."""
    shape = (len(of_rows), row_length)
    tokens, segment_ids, positions = (np.zeros(shape, np.int32) for _ in range(3))
    for i, documents in enumerate(of_rows):
        stop = 0
        for segment, document in enumerate(documents, 1):
            start, stop = stop, stop + len(document)
            tokens[i, start:stop], segment_ids[i, start:stop] = document, segment
            positions[i, start:stop] = np.arange(len(document))
    return Batch(tokens, segment_ids, positions, np.arange(len(of_rows), dtype=np.int32))


def in_batches(batch: Batch, tokens: int, devices: int = 1) -> list[Batch]:
    """Cut into batches of about `tokens` positions, all of the same number of rows, which `devices`
    divides; the last rows may be empty."""
    count, length = batch.tokens.shape
    batches = -(-count // max(1, tokens // length))
    size = -(-count // (batches * devices)) * devices
    missing = -count % size
    whole = Batch(*(np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in batch))
    return [Batch(*(x[i : i + size] for x in whole)) for i in range(0, count, size)]


def trimmed(batch: Batch) -> Batch:
    """Without the columns that are padding in every row."""
    longest = int((batch.segment_ids > 0).sum(1).max())
    tokens, segment_ids, positions, *rest = batch
    return Batch(tokens[:, :longest], segment_ids[:, :longest], positions[:, :longest], *rest)
