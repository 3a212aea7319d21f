# SPDX-License-Identifier: Apache-2.0
"""Spans in brat's .ann files, and the characters of a text that their offsets mean.

brat counts characters, a line end as one. Other tools, and files saved anew after they were
annotated, count otherwise. The text that stands beside the offsets of a span tells.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.errors import record_error
from bcmb_jax.evaluation.tasks import reading

DISCONTINUOUS = "spans in several pieces, left out"
_SPAN = re.compile(r"T\S*\t(\S+) (\d+ \d+(?:;\d+ \d+)*)(?:\t(.*))?")
_LINE_ENDS = ("\n", "\r\n", "\r")
_BYTE_ORDER_MARK = "\ufeff"
_AS_BRAT = "characters"
_UNITS: dict[str, Callable[[str], int]] = {
    _AS_BRAT: lambda character: 1,
    "UTF-16 units": lambda character: len(character.encode("utf-16-le")) // 2,
    "bytes": lambda character: len(character.encode()),
}
_COUNTED_ENDS: dict[str, Callable[[str], int]] = {
    "": lambda end: 1,
    ", CR LF as two": len,
    ", every line end as two": lambda end: 2,
}


class Span(NamedTuple):
    """A labelled part of a text: its pieces `[start, end)`, the text beside them, and its line."""

    kind: str
    pieces: tuple[tuple[int, int], ...]
    text: str
    line: int

    @property
    def start(self) -> int:
        """Where the first piece begins."""
        return self.pieces[0][0]

    @property
    def end(self) -> int:
        """Where the last piece ends."""
        return self.pieces[-1][1]

    def shift(self, by: int) -> "Span":
        """Return the span that much later in its text."""
        return self._replace(pieces=tuple((x + by, y + by) for x, y in self.pieces))

    def move(self, offsets: Mapping[int, int], missing: int) -> "Span":
        """Return the span with every offset looked up, and `missing` for those that lack."""
        pieces = ((offsets.get(x, missing), offsets.get(y, missing)) for x, y in self.pieces)
        return self._replace(pieces=tuple(pieces))


def read_spans(path: Path, counts: Counter[str]) -> list[Span]:
    """Return the text-bound annotations (lines that begin with T) in the file's order.

    Events, attributes and relations refer to these and add nothing about words. Spans without a
    character are counted and left out.
    """
    spans = []
    for number, line in reading.read_lines(path):
        if not line.startswith("T"):
            continue
        match = _SPAN.fullmatch(line.rstrip())
        pieces = [piece.split(" ") for piece in match[2].split(";")] if match else []
        bounds = sorted((int(start), int(end)) for start, end in pieces)
        if not match or any(start > end for start, end in bounds):
            what = "not a span as 'T1<tab>Kind start end<tab>text' with start before end"
            raise record_error(path, number, what)
        filled = tuple((start, end) for start, end in bounds if start < end)
        counts["spans without a character, left out"] += not filled
        if filled:
            spans.append(Span(match[1], filled, match[3] or "", number))
    return spans


def place_spans(
    raw: str, spans: Sequence[Span], counts: Counter[str]
) -> tuple[str, list[Span]] | None:
    """Find the characters that offsets mean, whatever they count.

    A whole span whose text stands nowhere proves nothing: something has changed that text since.
    Pieces with only white space between them become one; a span that is broken otherwise is counted
    and left out.

    Args:
      raw: a text with its own line ends.

    Returns:
      The text with line feeds as line ends, and the spans by its characters. None if no way of
      counting, or several that differ, put every other span where its text stands, or if there is
      no other span.
    """
    text = re.sub("\r\n?", "\n", raw)
    whole = _squeeze(text)
    with_text = [i for i, span in enumerate(spans) if _squeeze(span.text)]
    proofs = [i for i in with_text if len(spans[i].pieces) > 1 or _squeeze(spans[i].text) in whole]
    if with_text and not proofs:
        return None
    agreeing: dict[tuple[Span, ...], str] = {}
    for way, characters in _ways(raw):
        moved = tuple(span.move(characters, len(text)) for span in spans)
        if all(_stands(text, moved[i]) for i in proofs):
            agreeing.setdefault(moved, way)
            if way == _AS_BRAT:
                break
    if len(agreeing) != 1:
        return None
    ((found, way),) = agreeing.items()
    counts[f"files whose offsets count {way}, put right"] += way != _AS_BRAT
    counts["spans that say another text than stands there"] += sum(
        not _stands(text, span) for span in found
    )
    # Fidelity: upstream leaves out every span in pieces (Social History) or stops at it (COS), also
    # those that brat itself writes in pieces, where a span goes over a line end.
    joined = [span for span in map(partial(_join_pieces, text), found) if span]
    counts[DISCONTINUOUS] += len(found) - len(joined)
    return text, joined


def _ways(raw: str) -> Iterator[tuple[str, dict[int, int]]]:
    """Yield ways of counting, the plain ones first, and the character at each offset."""
    characters = re.findall(r"\r\n|.", raw, re.DOTALL)
    blank = next((i for i, character in enumerate(characters) if character.strip()), 0)
    for i, start in enumerate(("", ", with a byte order mark", ", from the first word")):
        for unit, width in _UNITS.items():
            for ends, end_width in _COUNTED_ENDS.items():
                widths = [end_width(x) if x in _LINE_ENDS else width(x) for x in characters]
                first = (0, width(_BYTE_ORDER_MARK), -sum(widths[:blank]))[i]
                offsets = accumulate(widths, initial=first)
                yield unit + ends + start, {0: 0} | {x: n for n, x in enumerate(offsets)}


def _stands(text: str, span: Span) -> bool:
    """Return whether a text has a span's text in its place; white space does not count."""
    return _squeeze("".join(text[start:end] for start, end in span.pieces)) == _squeeze(span.text)


def _squeeze(text: str) -> str:
    """Return a text without white space and byte order marks: brat writes line ends as spaces."""
    return "".join(text.split()).replace(_BYTE_ORDER_MARK, "")


def _join_pieces(text: str, span: Span) -> Span | None:
    """Return a span as one piece; None if more than white space parts its pieces."""
    pairs = zip(span.pieces, span.pieces[1:], strict=False)
    gaps = "".join(text[end:start] for (_, end), (start, _) in pairs)
    return None if _squeeze(gaps) else span._replace(pieces=((span.start, span.end),))
