# SPDX-License-Identifier: Apache-2.0
"""Line-wrap repair for notes that an old terminal broke at a fixed width."""

import re
from itertools import accumulate, pairwise
from typing import NamedTuple

from bcmb_jax.data.clean.placeholders import PLACEHOLDER

_NARROWEST, _WIDEST = 50, 100  # columns
_LONGEST_LINE = 400  # characters; longer than any wrapped line with its placeholders
_STAND_IN = "x" * 8  # the removed text behind a placeholder took 0 to 16 columns
_LIST = r"[-*+•·>#=~_|]|\(?(?:\d{1,3}|[A-Za-z])[.)](?:\s|$)|\([a-z0-9]{1,3}\)|\[[ xX]?\]"
_OPENS = re.compile(rf"{_LIST}|[A-Z][^:.]{{0,40}}:(?!\d)|[\d/-]{{3,10}}:(?!\d)")
_CELLS = re.compile(r"\S(?:\t| {3,})|[^\s.:;,?!)] {2}\S")
_HYPHEN = re.compile(r"[A-Za-z]-$")
_LETTER = re.compile(r"[^\W\d_]")
_NUMBER = re.compile(r"\d\S*")  # a word from its first digit on
_SUSPENDED = re.compile(r"(?:and|or|to)\b")


class _Line(NamedTuple):
    """A line with placeholders eight columns wide; `opens` if it begins a list item or header."""

    shown: str
    indent: str
    first: str
    prose: bool
    opens: bool


class _Break(NamedTuple):
    """A line break that wrapping at any width of `range(low, high)` columns would have made."""

    line: int
    low: int
    high: int
    exact: bool


def unwrap(text: str) -> str:
    """Join the lines of wrapped paragraphs; all characters but white space stay, in order.

    A width explains a line break if the line fits into it and would not with the next line's first
    word. The text's width is the one of 50 to 100 columns that explains most breaks, the widest of
    several; unless it explains two at least, and half of those that end past column 50, the text
    is left alone. A break that it explains becomes a space (or nothing, in "follow-/up"), except
    - beside a line that is blank, has no letter, or is of table cells (a tab, three spaces, two not
      after punctuation) or values (three words or more, over 40 % of them with digits);
    - between lines that are not equally indented, or indented by more than one space;
    - after a colon, and before a list item, a "Header:" or an ALL CAPS line of several words.
    A placeholder counts as eight columns, and may have been as many more or less.
    """
    lines = text.split("\n")
    breaks = _find_breaks(lines)
    if not (width := _find_width(breaks)):
        return text
    joined = {b.line for b in breaks if b.low <= width < b.high}
    parts = []
    for number, line in enumerate(lines):
        line = line.lstrip() if number - 1 in joined else line
        if number not in joined:
            parts.append(line + "\n")
            continue
        line, after = line.rstrip(), lines[number + 1].lstrip()
        hyphenated = _HYPHEN.search(line) and after[0].islower() and not _SUSPENDED.match(after)
        parts.append(line if hyphenated else line + " ")
    return "".join(parts)[:-1]


def _find_breaks(lines: list[str]) -> list[_Break]:
    breaks = []
    for number, (line, after) in enumerate(pairwise(map(_measure, lines))):
        if line is None or after is None:
            continue
        low, high = len(line.shown), len(line.shown) + 1 + len(after.first)
        if high > _NARROWEST and _may_continue(line, after):
            exact = _STAND_IN not in line.shown and _STAND_IN not in after.first
            slack = 0 if exact else len(_STAND_IN)
            breaks.append(_Break(number, low - slack, high + slack, exact))
    return breaks


def _measure(line: str) -> _Line | None:
    """Return the line as it is compared; None if it is blank."""
    line = line[:_LONGEST_LINE].rstrip()
    shown = PLACEHOLDER.sub(_STAND_IN, line) if "[**" in line or "___" in line else line
    words = shown.split()
    if not words:
        return None
    content = shown.lstrip()
    indent = shown[: len(shown) - len(content)]
    values = len(words) >= 3 and len(_NUMBER.findall(shown)) > 0.4 * len(words)
    cells = ("  " in content or "\t" in content) and _CELLS.search(content)
    prose = not values and not cells and _LETTER.search(content) is not None
    return _Line(shown, indent, words[0], prose, _OPENS.match(content) is not None)


def _may_continue(line: _Line, after: _Line) -> bool:
    return (
        line.prose
        and after.prose
        and not after.opens
        and line.indent == after.indent
        and line.indent in ("", " ")
        and not line.shown.endswith(":")
        and not (after.shown.isupper() and not line.shown.isupper() and " " in after.shown.strip())
    )


def _find_width(breaks: list[_Break]) -> int:
    """Return the width that explains most breaks, or 0."""
    breaks = [b for b in breaks if b.exact]
    changes = [0] * (_WIDEST + 2)
    for low, high in ((b.low, b.high) for b in breaks if b.low <= _WIDEST):
        changes[max(low, _NARROWEST)] += 1
        changes[min(high, _WIDEST + 1)] -= 1
    most, width = max((votes, width) for width, votes in enumerate(accumulate(changes[:-1])))
    return width if most >= max(2, len(breaks) / 2) else 0
