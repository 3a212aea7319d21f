# SPDX-License-Identifier: Apache-2.0
"""Windows of all lengths in batches of at most six shapes, so that little is ever compiled."""

import bisect
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bcmb_jax.batch import Batch
from bcmb_jax.data.rows import fill_rows
from bcmb_jax.inference.windows import Window

SHAPES = 6
LENGTHS = {"cpu": (128, 512, 1024, 2048, 4096, 8192), "gpu": (512, 2048, 8192)}
"""Lengths of rows by platform; where a model reads less, its own limit is the last one. On a CPU a
row is a batch, since more rows are no faster. On a GPU there are two numbers of rows a length: one
for each device, and as many as hold `POSITIONS_AT_ONCE`."""
POSITIONS_AT_ONCE = {"cpu": 1, "gpu": 65_536}
SHARED_ROW = 512
"""Length of a row that is begun for short windows, if enough of them are left to fill it. Longer
ones cost more attention, shorter ones more padding."""


class Place(NamedTuple):
    """Where the results of a window are in those of a batch."""

    window: int
    row: int
    start: int
    slots: slice


class PackedBatch(NamedTuple):
    """A batch, and where each of its windows is."""

    batch: Batch
    places: list[Place]


def slots_in(length: int) -> int:
    """Return how many pooled vectors or masks a row of `length` tokens has room for."""
    return min(max(1, length // 16), 64)


def row_lengths(platform: str, longest: int) -> tuple[int, ...]:
    """Return the lengths of rows for a model that reads `longest` tokens."""
    lengths = LENGTHS.get(platform, LENGTHS["gpu"])
    return (*(length for length in lengths if length < longest), longest)[-SHAPES:]


def pack(
    windows: Sequence[Window], slots: Sequence[int], platform: str, devices: int, longest: int
) -> Iterator[PackedBatch]:
    """Yield batches that hold every window once, those of the longest rows first.

    Args:
      slots: how many each window takes of a row's `slots_in`.
      devices: rows of a batch are a multiple of it.
      longest: tokens that the model reads.
    """
    lengths = row_lengths(platform, longest)
    sizes = [len(window.tokens) for window in windows]
    for length, rows in _assign(sizes, slots, lengths).items():
        most = devices * max(1, POSITIONS_AT_ONCE.get(platform, 65_536) // length)
        while rows:
            count = most if 8 * len(rows) >= most else devices
            now, rows = rows[:count], rows[count:]
            tokens = [[windows[i].tokens for i in row] for row in now]
            batch = fill_rows(tokens + [[]] * (count - len(now)), length)
            yield PackedBatch(batch, [*_places(now, sizes, slots)])


def _assign(
    sizes: Sequence[int], slots: Sequence[int], lengths: Sequence[int]
) -> dict[int, list[list[int]]]:
    """Return the windows of each row by the row's length, best-fit in decreasing order of size."""
    rows: dict[int, list[list[int]]] = {length: [] for length in reversed(lengths)}
    left = sum(sizes)
    # Rows with room: (tokens, number, slots, windows); the number keeps equal ones apart.
    open_rows: list[tuple[int, int, int, list[int]]] = []
    for number, i in enumerate(sorted(range(len(sizes)), key=lambda i: -sizes[i])):
        at = bisect.bisect_left(open_rows, (sizes[i], -1, 0, []))
        while at < len(open_rows) and open_rows[at][2] < slots[i]:
            at += 1
        if at < len(open_rows):
            room, _, free, row = open_rows.pop(at)
        else:
            wanted = max(sizes[i], min(left, SHARED_ROW))
            room = next((length for length in lengths if length >= wanted), lengths[-1])
            free, row = slots_in(room), []
            rows[room].append(row)
        row.append(i)
        left -= sizes[i]
        if free > slots[i]:
            bisect.insort(open_rows, (room - sizes[i], number, free - slots[i], row))
    return rows


def _places(
    rows: Sequence[Sequence[int]], sizes: Sequence[int], slots: Sequence[int]
) -> Iterator[Place]:
    for row, windows in enumerate(rows):
        slot = start = 0
        for i in windows:
            yield Place(i, row, start, slice(slot, slot + slots[i]))
            slot, start = slot + slots[i], start + sizes[i]
