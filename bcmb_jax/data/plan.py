# SPDX-License-Identifier: Apache-2.0
"""The packing plan: which piece of which document stands in which row, from lengths alone.

A plan is a pure function of lengths, weights, the two length limits, seed and epoch. Hence the
training position is two numbers (epoch, row), resuming is instant, and any number of processes
reads the same rows.

An epoch is planned in windows of `WINDOW` documents, each with the same share of every source.
Blocks of neighbouring documents are shuffled into windows, so reading stays local; documents are
shuffled, cut and packed by best-fit decreasing inside a window, and its rows are shuffled.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import floor
from typing import NamedTuple

import numpy as np

from bcmb_jax.errors import InputError

WINDOW = 2**17
"""Documents shuffled and packed together: loses 0.01 points against packing the whole epoch."""

BLOCK = 1024
"""Neighbouring documents that move together in the first level of the shuffle."""

SPECIAL_TOKENS = 2
"""Every piece becomes `[CLS] piece [SEP]`."""

# Purposes of permutations: part of their keys, so that no two of them share random bits.
_ROTATION, _BLOCKS, _DOCUMENTS, _ROWS, _PIECES = range(5)


@dataclass(frozen=True)
class EpochPlan:
    """The rows of one epoch. The pieces of row `i` are `row_offsets[i]:row_offsets[i + 1]`."""

    row_length: int
    sources: int
    piece_source: np.ndarray
    """`[pieces]` uint8: index of the source."""
    piece_document: np.ndarray
    """`[pieces]` int32: index of the document in its source."""
    piece_start: np.ndarray
    """`[pieces]` int32: first token of the piece, counted in its document."""
    piece_length: np.ndarray
    """`[pieces]` int32: tokens of the document in this piece, without `[CLS]` and `[SEP]`."""
    row_offsets: np.ndarray
    """`[rows + 1]` int64."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.row_offsets) - 1

    def pieces(self, row: int) -> Iterator[tuple[int, int, int, int]]:
        """Return (source, document, start, length) of each piece of a row, in their order."""
        first, last = self.row_offsets[row : row + 2].tolist()
        return zip(
            self.piece_source[first:last].tolist(),
            self.piece_document[first:last].tolist(),
            self.piece_start[first:last].tolist(),
            self.piece_length[first:last].tolist(),
            strict=True,
        )

    def count_tokens(self, first_row: int, last_row: int) -> np.ndarray:
        """Count non-padding positions in rows `first_row:last_row` by source, `[sources]` int64."""
        pieces = slice(self.row_offsets[first_row], self.row_offsets[last_row])
        source, length = self.piece_source[pieces], self.piece_length[pieces]
        count = np.bincount(source, minlength=self.sources)
        tokens = np.bincount(source, weights=length, minlength=self.sources)  # exact below 2**53
        return tokens.astype(np.int64) + SPECIAL_TOKENS * count

    @cached_property
    def tokens_by_source(self) -> np.ndarray:
        """`[sources]` int64: non-padding positions, special tokens included."""
        return self.count_tokens(0, self.rows)

    @property
    def tokens(self) -> int:
        """Non-padding positions, special tokens included."""
        return int(self.tokens_by_source.sum())

    @property
    def efficiency(self) -> float:
        """Non-padding positions over all positions."""
        return self.tokens / max(1, self.rows * self.row_length)

    @cached_property
    def best_fit_decreasing_efficiency(self) -> float:
        """Efficiency that best-fit decreasing over the whole epoch at once would reach."""
        counts = np.bincount(self.piece_length + np.int32(SPECIAL_TOKENS))
        rows = max((p.last_row for p in _place(counts, self.row_length)), default=0)
        return self.tokens / max(1, rows * self.row_length)


class PackingPlan:
    """Plans epochs over sources of documents, each seen `weight` times an epoch on average.

    Args:
      lengths: per source, `[documents]` tokens in each document without special tokens. Empty
        documents are left out and counted in `empty_documents`.
      weights: per source, copies of it in an epoch. A fraction takes part of the documents, going
        on in the next epoch where the last one stopped.
      row_length: positions in a row.
      max_document_length: positions a piece may take with `[CLS]` and `[SEP]`; longer ones are cut.
      seed: of every shuffle.

    Raises:
      InputError: lengths that contradict each other, or nothing to plan.
    """

    def __init__(
        self,
        lengths: Sequence[np.ndarray],
        *,
        weights: Sequence[float],
        row_length: int,
        max_document_length: int,
        seed: int,
    ):
        if not SPECIAL_TOKENS < max_document_length <= row_length:
            raise InputError(
                f"max_document_length {max_document_length} must be at least {SPECIAL_TOKENS + 1} "
                f"([CLS], a token, [SEP]) and at most row_length {row_length}"
            )
        if not 1 <= len(lengths) <= 256:
            raise InputError(f"{len(lengths)} sources of data: give 1 to 256")
        if len(weights) != len(lengths):
            raise InputError(f"{len(weights)} weights for {len(lengths)} sources: give one each")
        if not all(0 < weight < float("inf") for weight in weights):
            raise InputError(
                f"weights {tuple(weights)} must be above 0: leave a source out instead"
            )
        if not any(map(np.any, lengths)):
            raise InputError(
                f"no tokens in any document of {len(lengths)} sources: nothing to pack"
            )
        if seed < 0:
            raise InputError(f"seed {seed} must not be negative")
        self.lengths = [np.asarray(source, dtype=np.int32) for source in lengths]
        # As the user wrote it: 0.3 is three tenths, so that ten epochs take exactly three copies.
        self.weights = [Fraction(str(float(weight))) for weight in weights]
        self.row_length = row_length
        self.max_document_length = max_document_length
        self.seed = seed
        self._documents = [np.flatnonzero(source).astype(np.int32) for source in self.lengths]
        self.empty_documents = sum(map(len, self.lengths)) - sum(map(len, self._documents))

    def epoch(self, epoch: int) -> EpochPlan:
        """Compute the plan of an epoch: about five seconds for ten million documents."""
        order = [self._epoch_documents(source, epoch) for source in range(len(self.lengths))]
        count = max(1, round(sum(map(len, order)) / WINDOW))
        windows = []
        for window in range(count):
            shares = [o[len(o) * window // count : len(o) * (window + 1) // count] for o in order]
            windows.append(self._pack_window(shares, epoch, window))
        source, document, start, length, pieces = map(np.concatenate, zip(*windows, strict=True))
        row_offsets = np.concatenate([[0], np.cumsum(pieces, dtype=np.int64)])
        return EpochPlan(
            self.row_length, len(self.lengths), source, document, start, length, row_offsets
        )

    def _epoch_documents(self, source: int, epoch: int) -> np.ndarray:
        """Return the documents of one source in this epoch, copies with blocks shuffled."""
        documents = self._documents[source]
        copies, fraction = divmod(self.weights[source], 1)
        takes = [documents] * copies
        if fraction:
            begin, end = (floor(len(documents) * fraction * e) for e in (epoch, epoch + 1))
            rotation = self._permutation(len(documents), _ROTATION, source)
            part = rotation[np.arange(begin, end) % len(documents)]
            takes.append(documents[np.sort(part)])
        blocks = []
        for copy, take in enumerate(takes):
            shuffled = self._permutation(-(-len(take) // BLOCK), _BLOCKS, epoch, source, copy)
            blocks += [take[b * BLOCK : (b + 1) * BLOCK] for b in shuffled]
        return np.concatenate(blocks or [documents[:0]])

    def _pack_window(
        self, shares: list[np.ndarray], epoch: int, window: int
    ) -> tuple[np.ndarray, ...]:
        """Pack one window: source, document, start, length of pieces in row order, pieces a row."""
        document = np.concatenate(shares)
        source = np.repeat(np.arange(len(shares), dtype=np.uint8), [len(s) for s in shares])
        length = np.concatenate([t[s] for t, s in zip(self.lengths, shares, strict=True)])

        limit = self.max_document_length - SPECIAL_TOKENS
        shuffled = self._permutation(len(document), _DOCUMENTS, epoch, window)
        pieces = -(-length[shuffled] // limit)
        owner = np.repeat(shuffled, pieces)
        number = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        start = (number * limit).astype(np.int32)
        length = np.minimum(length[owner] - start, np.int32(limit))

        row, rows = best_fit_decreasing(length + np.int32(SPECIAL_TOKENS), self.row_length)
        # Shuffled afresh: best-fit decreasing puts neighbours of equal length in the same row.
        # Rows in 16 bits where they do, which NumPy sorts by radix.
        places = self._permutation(rows, _ROWS, epoch, window).astype(np.min_scalar_type(rows))
        row = places[row]
        in_rows = self._permutation(len(row), _PIECES, epoch, window)
        in_rows = in_rows[np.argsort(row[in_rows], kind="stable")]
        owner = owner[in_rows]
        pieces_per_row = np.bincount(row, minlength=rows)
        return source[owner], document[owner], start[in_rows], length[in_rows], pieces_per_row

    def _permutation(self, n: int, *key: int) -> np.ndarray:
        """Return a random permutation of `n`, the same in all versions of NumPy.

        NumPy keeps the raw bits of a generator over its versions, but not what `permutation`
        makes of them; and a run must resume after an upgrade.
        """
        bits = np.random.PCG64(np.random.SeedSequence((self.seed, *key))).random_raw(n)
        # By 32 random bits, 16 at a time: NumPy sorts those by radix, in half the time.
        order = np.argsort(bits.astype(np.uint16), kind="stable")
        return order[np.argsort((bits >> 16).astype(np.uint16)[order], kind="stable")]


def best_fit_decreasing(lengths: np.ndarray, row_length: int) -> tuple[np.ndarray, int]:
    """Pack pieces into rows, longest first, each into the fullest row that still takes it.

    Returns the row of each piece (`[pieces]` int64) and the number of rows. A length of 0 or
    above `row_length` is a caller's error.
    """
    counts = np.bincount(lengths, minlength=row_length + 1)
    placements = list(_place(counts, row_length))
    first_row, per_row, pieces = np.array(placements, dtype=np.int64).reshape(-1, 3).T
    number = np.arange(len(lengths)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    rows_of_sorted = np.repeat(first_row, pieces) + number // np.repeat(per_row, pieces)
    room_left = (row_length - lengths).astype(np.min_scalar_type(row_length))
    row = np.empty(len(lengths), np.int64)
    row[np.argsort(room_left, kind="stable")] = rows_of_sorted
    return row, max((p.last_row for p in placements), default=0)


class _Placement(NamedTuple):
    """The next `pieces` pieces, longest first, go `per_row` to a row from `first_row` on."""

    first_row: int
    per_row: int
    pieces: int

    @property
    def last_row(self) -> int:
        return self.first_row + -(-self.pieces // self.per_row)


def _place(counts: np.ndarray, row_length: int) -> Iterator[_Placement]:
    """Best-fit decreasing on whole runs of equal lengths, `counts[length]` pieces each.

    Rows with the same room left form ranges (first row, rows), and all rows not yet begun are one
    endless range; so a step places a run into a range instead of a piece into a row. Among rows
    with the same room the choice changes no row's filling.
    """
    rooms = [row_length]
    ranges = {row_length: [(0, 2**62)]}

    def put(room: int, first_row: int, rows: int) -> None:
        if room and rows:
            if room not in ranges:
                insort(rooms, room)
            ranges.setdefault(room, []).append((first_row, rows))

    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            room = rooms[bisect_left(rooms, length)]
            first_row, rows = ranges[room].pop()
            if not ranges[room]:
                del ranges[room]
                rooms.remove(room)
            per_row = room // length  # what has just become the fullest row takes the next one
            pieces = min(left, rows * per_row)
            full, rest = divmod(pieces, per_row)
            begun = full + bool(rest)
            put(room - per_row * length, first_row, full)
            put(room - rest * length, first_row + full, begun - full)
            put(room, first_row + begun, rows - begun)
            yield _Placement(first_row, per_row, pieces)
            left -= pieces
