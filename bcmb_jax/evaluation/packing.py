# SPDX-License-Identifier: Apache-2.0
"""Encoded examples in rows of few different shapes, since every shape is compiled."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bcmb_jax.data.rows import assign, fill_rows
from bcmb_jax.evaluation.encode import IGNORED, Encoded
from bcmb_jax.evaluation.examples import Kind

SHARED_ROW, SHARED_BY = 256, 3
"""Examples share rows of so many tokens, or of as many as so many examples of mean length need. In
longer rows a CPU's tiles of attention hold more of what others see (a step on ChemProt's sentences
takes 1.5 times as long in rows of 2,048); of abstracts, a row of one or two is mostly padding."""


class Rows(NamedTuple):
    """Packed examples: `B` rows of `L` tokens with up to `S` examples each."""

    tokens: Any
    """`[B, L]`, and the next two, as `Batch` has them."""
    segment_ids: Any
    positions: Any
    targets: Any
    """int32, `IGNORED` where there is none: single_label `[B, S]`, tagging `[B, L]`; multi_label:
    float32 `[B, S, labels]`, negative where there is none."""


class Place(NamedTuple):
    """Of an example: its row, its number there, and the position of its first token."""

    row: int
    segment: int
    start: int


def pack(
    examples: Sequence[Encoded],
    kind: Kind,
    labels: int,
    *,
    tokens_at_once: int,
    segments: int | None = None,
) -> tuple[list[Rows], list[Place]]:
    """Passes of equally many rows, and where each example lies in them one after the other.

    Args:
      labels: how many there are.
      tokens_at_once: positions of a pass, unless one example has more.
      segments: S; None: as many as are needed, or the next power of two.
    """
    lengths = [len(e.tokens) for e in examples]
    wanted_length = rounded(SHARED_BY * sum(lengths) // len(lengths))
    row_length = shared_row_length(lengths, max(SHARED_ROW, wanted_length))
    of_rows = assign([e.tokens for e in examples], row_length)
    wanted, most = rounded(len(of_rows), 1), max(1, tokens_at_once // row_length)
    rows = -(-wanted // -(-wanted // most))  # of a pass, all passes alike
    of_rows += [[] for _ in range(-len(of_rows) % rows)]
    segments = segments or _power_of_two(max(map(len, of_rows)))
    batch = fill_rows([[examples[i].tokens for i in row] for row in of_rows], row_length)
    targets = _no_targets(kind, labels, len(of_rows), row_length, segments)
    places = [Place(0, 0, 0)] * len(examples)
    for r, row in enumerate(of_rows):
        start = 0
        for segment, i in enumerate(row):
            places[i] = Place(r, segment, start)
            inside = slice(start, start + lengths[i]) if kind == "tagging" else segment
            targets[r, inside] = examples[i].targets
            start += lengths[i]
    arrays = (batch.tokens, batch.segment_ids, batch.positions, targets)
    passes = [Rows(*(x[r : r + rows] for x in arrays)) for r in range(0, len(of_rows), rows)]
    return passes, places


def shared_row_length(lengths: Sequence[int], most: int) -> int:
    """Of the rows that examples of these lengths are packed into: `most` if none is longer."""
    return max(rounded(max(lengths)), min(rounded(sum(lengths)), most))


def rounded(count: int, least: int = 64) -> int:
    """The next of a few numbers: two from one power of two to the next, from `least` on."""
    step = max(least, 2 ** (count.bit_length() - 2))
    return -(-count // step) * step


def _power_of_two(count: int) -> int:
    """The next."""
    return 1 << (count - 1).bit_length()


def _no_targets(kind: Kind, labels: int, rows: int, length: int, segments: int) -> np.ndarray:
    if kind == "multi_label":
        return np.full((rows, segments, labels), -1, np.float32)
    return np.full((rows, length if kind == "tagging" else segments), IGNORED, np.int32)
