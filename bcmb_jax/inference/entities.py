# SPDX-License-Identifier: Apache-2.0
"""Words of a text, and the entities that tags of words make."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

Span = tuple[int, int]
"""Where a word or token is in its text: `text[start:end]`."""

WORD = re.compile("(?:\\w[\u0300-\u036f]*)+|[^\\w\\s]")
"""A run of letters and digits with their accents, or any other single character."""


class Entity(NamedTuple):
    """A span of a text, `text[start:end]`, with its kind.

    Attributes:
      label: the kind, without `B-` and `I-`.
      score: the mean probability of the tags of its words.
    """

    start: int
    end: int
    label: str
    score: float


def split_words(text: str) -> list[Span]:
    """Return the words of a text, as taggers read them."""
    return [word.span() for word in WORD.finditer(text)]


def merge(
    text: str, spans: Sequence[Span], probabilities: np.ndarray, labels: Sequence[str]
) -> list[Entity]:
    """Merge words with tags of one kind into entities.

    An entity ends before a word of another kind or with a `B-` tag. An `I-` tag without one before
    it, and a tag with neither letter, begin an entity too. Words tagged `O` are in none.

    Args:
      spans: of words, in order.
      probabilities: of tags, `[words, labels]`.
    """
    entities = []
    best = probabilities.argmax(-1) if len(spans) else np.zeros(0, int)
    for kind, first, stop in _runs([labels[tag] for tag in best]):
        start, end = spans[first][0], spans[stop - 1][1]
        inside = text[start:end]  # a token may begin with a space
        start, end = end - len(inside.lstrip()), start + len(inside.rstrip())
        if kind != "O" and start < end:
            scores = probabilities[np.arange(first, stop), best[first:stop]]
            entities.append(Entity(start, end, kind, float(scores.mean())))
    return entities


def _runs(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield the kind, first and last (excluded) word of each run of tags that belong together."""
    first, kind = 0, ""
    for i, tag in enumerate(tags):
        begins = tag.startswith("B-")
        now = tag[2:] if tag.startswith(("B-", "I-")) else tag
        if i and (begins or now != kind):
            yield kind, first, i
            first = i
        kind = now
    if tags:
        yield kind, first, len(tags)
