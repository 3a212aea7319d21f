# SPDX-License-Identifier: Apache-2.0
"""brat's stand-off annotation: spans of text by offsets, and what tags they give to words."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.tasks.folder import lines, place

_SPAN = re.compile(r"T\S*\t(\S+) (\d+) (\d+)((?:;\d+ \d+)*)(?:\t(.*))?")

DISCONTINUOUS = "spans in several pieces, left out"
NO_WORD = "spans that get no word, as none lies wholly inside"
OVERLAPPING = "spans that take words from an earlier one"


class Span(NamedTuple):
    """A labelled piece `[start, end)` of a text, the text it should have, and its line."""

    kind: str
    start: int
    end: int
    text: str
    line: int


def read_spans(path: Path, oddities: Counter[str]) -> list[Span]:
    """The text-bound annotations (lines that begin with T) in the file's order.

    Events, attributes and relations are about these and say nothing new of words. Spans in several
    pieces are counted and left out, as the paper's reader does it.
    """
    spans = []
    for number, line in lines(path):
        if not line.startswith("T"):
            continue
        found = _SPAN.fullmatch(line.rstrip())
        if not found or int(found[2]) >= int(found[3]):
            raise InputError(
                f"{place(path, number)}: not a span as 'T1<tab>Kind start end<tab>text' with start "
                "before end"
            )
        if found[4]:
            oddities[DISCONTINUOUS] += 1
        else:
            spans.append(Span(found[1], int(found[2]), int(found[3]), found[5] or "", number))
    return spans


def split_words(pattern: str, text: str) -> tuple[tuple[str, ...], list[tuple[int, int]]]:
    """The matches of a pattern as words, and the `[start, end)` of each."""
    matches = list(re.finditer(pattern, text))
    return tuple(match[0] for match in matches), [match.span() for match in matches]


def tag_words(
    places: Sequence[tuple[int, int]],
    spans: Sequence[Span],
    oddities: Counter[str],
    corrected: bool = False,
) -> list[str]:
    """One BIO tag a word, given the words' places; later spans overwrite earlier ones.

    Corrected, a span has every word that it touches, and what is left of an overwritten span
    begins with B-.
    """
    tags = ["O"] * len(places)
    owners: list[Span | None] = [None] * len(places)
    for span in spans:
        # Fidelity: the paper's readers want a word wholly inside, so that "wife." is no part of a
        # span that ends before the stop.
        held = [
            i
            for i, (start, end) in enumerate(places)
            if (
                start < span.end and end > span.start
                if corrected
                else start >= span.start and end <= span.end
            )
        ]
        oddities[NO_WORD] += not held
        oddities[OVERLAPPING] += any(owners[i] for i in held)
        for i in held:
            owners[i] = span
            tags[i] = f"{'B' if i == held[0] else 'I'}-{span.kind}"
    if corrected:
        # Fidelity: theirs leave an I- without its B- where a later span took the first words.
        for i, owner in enumerate(owners):
            if owner is not None:
                begins = i == 0 or owners[i - 1] is not owner
                tags[i] = f"{'B' if begins else 'I'}-{owner.kind}"
    return tags
