# SPDX-License-Identifier: Apache-2.0
"""What is run: documents of given lengths, as padded rows and as packed ones."""

from collections.abc import Sequence

import numpy as np

from bcmb_jax.batch import Batch
from bcmb_jax.data.plan import SPECIAL_TOKENS, PackingPlan

KINDS = ("fixed", "variable")
FIRST_TOKEN, LAST_TOKEN = 100, 15_999  # as the paper's benchmark draws them (RECIPE §8)


def lengths_of(kind: str, length: int, count: int, seed: int = 42) -> np.ndarray:
    """`[count]` tokens of each document. Of the `KINDS`, "fixed" is `length`; "variable" is normal
    around half of it with a standard deviation of an eighth, from 16 to `length` (RECIPE §8)."""
    if kind == "fixed":
        return np.full(count, length)
    drawn = np.random.default_rng(seed).normal(length / 2, length / 8, count)
    return np.clip(drawn.astype(int), 16, length)


def random_documents(lengths: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(FIRST_TOKEN, LAST_TOKEN + 1, n).astype(np.int32) for n in lengths]


def padded(documents: Sequence[np.ndarray], row_length: int) -> Batch:
    """A document a row."""
    return rows([[document] for document in documents], row_length)


def packed(documents: Sequence[np.ndarray], row_length: int) -> Batch:
    """As few rows of `row_length` as best-fit packing needs."""
    lengths = np.array([len(document) for document in documents])
    plan = PackingPlan(
        [lengths - SPECIAL_TOKENS],
        weights=[1.0],
        row_length=row_length,
        max_document_length=row_length,
        seed=0,
    ).epoch(0)
    return rows(
        [[documents[piece[1]] for piece in plan.pieces(row)] for row in range(plan.rows)],
        row_length,
    )


def rows(of_rows: Sequence[Sequence[np.ndarray]], row_length: int) -> Batch:
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


def in_batches(batch: Batch, tokens: int) -> list[Batch]:
    """Cut into batches of about `tokens` positions, all of the same number of rows."""
    count, length = batch.tokens.shape
    size = min(count, max(1, tokens // length))
    missing = -count % size
    whole = Batch(*(np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in batch))
    return [Batch(*(x[i : i + size] for x in whole)) for i in range(0, count, size)]
