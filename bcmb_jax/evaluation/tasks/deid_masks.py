# SPDX-License-Identifier: Apache-2.0
"""Masks as `[**Known lastname 33**]`: their category, and the words that they stand for."""

import re
from collections import Counter

_MASK = re.compile(r"(\[\*\*.*?\*\*\])")
# (what a mask says, its category), the first that is found in it holds; as in the paper's reader,
# for which "Wardname" is a name.
_WORDS = (
    (r"name", "name"),
    (r"e-?mail address", "other"),
    (r"telephone/fax|pager number", "phone_nb"),
    (r"age over", "age"),
    (r"location|hospital|street address|unit number", "location"),
    (r"^(?:\d+|\d{1,2}-\d{1,2}|\d{4}-\d{2}-\d{2})$|date range|month/year", "date"),
    (r"^$|company", "other"),
)
_MORE_WORDS = (
    (r"ward ?name", "location"),
    *_WORDS,
    (r"^\d{1,4}[-/]\d{1,2}(?:[-/]\d{1,4})?$|month|year|day|holiday", "date"),
    (r"state|country|county|city|college|university|p\.?o\.? ?box|zip", "location"),
)

_UNMAPPED = "masks of no category of the paper, read as other"
_ADJACENT = "masks right after another"
_EMPTY = "masks without a word of text"
_DISAGREEING = "records whose two texts do not agree, read as far as they do"


def category(mask: str, corrected: bool) -> str | None:
    """The category of a mask with its brackets."""
    content = mask[3:-3].strip().lower()
    for pattern, kind in _MORE_WORDS if corrected else _WORDS:
        if re.search(pattern, content):
            return kind
    return None


def tag_surrogates(
    text: str, masked: str, corrected: bool, oddities: Counter[str]
) -> list[tuple[str, str]] | None:
    """The words of a record with their tags; None if, corrected, the two texts do not agree.

    Words end at white space and where a mask begins or ends.
    """
    pieces = _MASK.split(masked)  # plain, mask, plain, …, plain
    oddities[_ADJACENT] += sum(not plain for plain in pieces[2:-1:2])
    if corrected:
        pieces = _join_adjacent(pieces)
    bounds, agree = _bounds(text, pieces[::2], corrected)
    if corrected and not agree:
        return None
    oddities[_DISAGREEING] += not agree
    tagged: list[tuple[str, str]] = []
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            # Fidelity: plain words are those of the masked text.
            tagged += [(word, "O") for word in piece.split()]
            continue
        kind = category(piece, corrected)
        # Fidelity: the paper's reader gives a bare "B" or "I" here, which its list of labels
        # refuses; so in its data there was no such mask, or the script stopped.
        oddities[_UNMAPPED] += kind is None
        words = text[slice(*bounds[i // 2])].split()
        oddities[_EMPTY] += not words
        tagged += [(word, f"{'I' if n else 'B'}-{kind or 'other'}") for n, word in enumerate(words)]
    return tagged


def _join_adjacent(pieces: list[str]) -> list[str]:
    joined = pieces[:2]
    for plain, mask in zip(pieces[2::2], [*pieces[3::2], ""], strict=False):  # or no mask at all
        if plain or not mask:
            joined += [plain, mask] if mask else [plain]
    return joined


def _bounds(text: str, plain: list[str], corrected: bool) -> tuple[list[tuple[int, int]], bool]:
    """Where each surrogate stands in the text: between a plain piece and the next. And whether all
    plain pieces are where they should be."""
    agree = text.startswith(plain[0])
    at = len(plain[0])
    bounds = []
    for i, piece in enumerate(plain[1:], start=1):
        # Fidelity: the paper's reader looks for the next piece from where the mask begins, and
        # takes all that is left for the mask if there is none, or if it is empty.
        if corrected and i == len(plain) - 1:
            found = len(text) - len(piece) if text.endswith(piece) else -1
            found = found if found > at else -1
        else:
            found = text.find(piece, at + corrected) if piece else len(text)
        agree = agree and found >= 0
        end = found if found >= 0 else len(text)
        bounds.append((at, end))
        at = end + len(piece)
    return bounds, agree and at == len(text)
