# SPDX-License-Identifier: Apache-2.0
"""Texts of any length as windows that a model can read."""

import itertools
from typing import NamedTuple

import numpy as np

OVERLAP = 8
"""Neighbouring windows share at least one token in so many of what a window holds."""


class Window(NamedTuple):
    """A part of a text with `[CLS]` before it and `[SEP]` after it.

    Each token of the text is in the owned range of one window: that in which it is farthest from an
    edge. The first window also owns its `[CLS]`, the last its `[SEP]`.

    Attributes:
      tokens: `[N]` int32.
      first, stop: the owned positions, `first <= position < stop`.
    """

    tokens: np.ndarray
    first: int
    stop: int


def cut(ids: np.ndarray, cls: int, sep: int, longest: int) -> list[Window]:
    """Cut a text into as few overlapping windows of equal length as it needs.

    Args:
      ids: the text's tokens `[N]`, without special ones.
      longest: tokens that the model reads, special ones included.
    """
    room = longest - 2
    overlap = room // OVERLAP
    count = max(1, -((overlap - len(ids)) // (room - overlap)))
    length = min(len(ids), -(-(len(ids) + (count - 1) * overlap) // count))
    starts = [i * (len(ids) - length) // max(1, count - 1) for i in range(count)]
    # The middle of what two neighbours share, as a position of the text.
    borders = [(left + length + right) // 2 for left, right in itertools.pairwise(starts)]
    windows = []
    for start, first, stop in zip(starts, [-1, *borders], [*borders, len(ids) + 1], strict=True):
        tokens = np.concatenate([[cls], ids[start : start + length], [sep]]).astype(np.int32)
        windows.append(Window(tokens, first - start + 1, stop - start + 1))
    return windows


def divide(window: Window, token: int, most: int) -> list[Window]:
    """Divide the owned range of a window so that no part holds more than `most` of a token."""
    places = np.flatnonzero(window.tokens[window.first : window.stop] == token) + window.first
    borders = [window.first, *places[most::most].tolist(), window.stop]
    return [Window(window.tokens, *pair) for pair in itertools.pairwise(borders)]
