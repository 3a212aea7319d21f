# SPDX-License-Identifier: Apache-2.0
"""Names of columns: which cells of a first row a message may show.

A table without a header line begins with a patient's record, and a table that was turned on its
side has patients as columns. A cell is therefore shown only if whoever runs the command, or the
layout of a source, names that column, or if the first row looks like names and every word of the
cell is one that columns are named with (`is_common`). Any other is called by its place.
"""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Sequence

HEAD_ROWS = 100
"""Rows below the first that are compared with it."""

_LONGEST_NAME = 40
_NAME = re.compile(r"[^\W\d][\w.()/:#%-]*( [\w.()/:#%-]+){0,3}")
_UNNAMED = re.compile(r"(unnamed: \d+)?", re.IGNORECASE)  # pandas' index, written and read again
_MOST_SHOWN = 20  # columns in a message
# Words that say of what kind a column's values are, and are none of its values; or ending in s.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """
        abstract accession admission admit age annotation answer article assessment author
        begin body category cgid chart chief class classes code comment complaint concept
        consensus content context conversation count data dataset date datetime deid
        department description diagnoses diagnosis dialog dialogue dicom document dosage
        dose drug encounter end entities entity error event explanation field file finding
        flag fold gender group hadm header history hypothesis icd icu id idx image
        impression index input instruction iserror journal key keyword kind lab label lang
        language length line medical medication message mrn name note num number offset
        option output paragraph path patient person pmc pmcid pmid predict premise procedure
        question race reason record relation report result row sample score section sentence
        seq service sex source span specialty split start status store study subject summary
        tag target task term test text time timestamp title token train transcript
        transcription txt type uid unit url value version vignette visit word year
        """,
    )
)
_ENDINGS = ("", "s", "id", "text", "date", "time", "name", "code", "type")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+")


def shape_of(value: str) -> str:
    """Return the kinds of characters of a value in their order: "Ab-12" has the shape "a-9"."""
    return re.sub(r"\s+", " ", re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", value[:100])))[:40]


def is_header(names: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Return whether a table's first row looks like names of columns.

    Names are unique, short, without runs of four digits, and unlike the rows below: none stands in
    its own column again, and they do not have the shapes that the rows have. Columns without a
    name, as an index has none, do not count.
    """
    named = [(i, name) for i, name in enumerate(names) if not is_unnamed(name)]
    plain = [name.strip().casefold() for _, name in named]
    if not named or len(set(plain)) < len(plain):
        return False
    if not all(_is_name(name) for _, name in named):
        return False
    values = [[row[i].strip() for row in below if len(row) == len(names)] for i, _ in named]
    if any(
        name in {value.casefold() for value in column}
        for name, column in zip(plain, values, strict=True)
    ):
        return False
    common = any(is_common(name) for _, name in named)
    return common or not any(values) or not _is_alike(named, values)


def is_unnamed(name: str) -> bool:
    """Return whether a column has no name, as an index that was written and read again."""
    return _UNNAMED.fullmatch(name.strip()) is not None


def _is_name(name: str) -> bool:
    name = name.strip()
    return (
        len(name) <= _LONGEST_NAME
        and _NAME.fullmatch(name) is not None
        and re.search(r"\d{4}", name) is None
    )


def _is_alike(named: Sequence[tuple[int, str]], columns: Sequence[Sequence[str]]) -> bool:
    """Return whether every name has a shape that at least a tenth of its column's values have."""
    shapes = [Counter(map(shape_of, column)) for column in columns]
    return all(
        counts[shape_of(name.strip())] >= 0.1 * counts.total()
        for (_, name), counts in zip(named, shapes, strict=True)
    )


def is_common(name: str) -> bool:
    """Return whether a cell can only be a column's name: all its words are those of such names.

    One digit may stand in it, and words may be joined ("note_text", "PatientID", "chartdate").
    """
    words = [word.lower() for word in _WORD.findall(name)]
    known = (any(word.removesuffix(end) in _COMMON for end in _ENDINGS) for word in words)
    return _is_name(name.strip()) and len(re.findall(r"\d", name)) <= 1 and all(known)


def shown_names(
    names: Sequence[str], below: Sequence[Sequence[str]], asked: Collection[str] = ()
) -> list[str]:
    """Return what a message may call the columns: their names, or else their places.

    Args:
      below: values of the rows below.
      asked: names by which somebody who runs the command, or a source's layout, calls columns.
    """
    header = is_header(names, below)
    plain = {name.strip().casefold() for name in asked} - {""}
    shown = []
    for place, name in enumerate(names, 1):
        if name.strip().casefold() in plain or (header and is_common(name)):
            shown.append(name)
        else:
            shown.append("(unnamed)" if header and is_unnamed(name) else f"column {place}")
    return shown


def describe(
    names: Sequence[str], below: Sequence[Sequence[str]], file: str, asked: Collection[str] = ()
) -> str:
    """Return a clause that says what columns a file has; as for `shown_names`."""
    if is_header(names, below):
        shown = shown_names(names, below, asked)[:_MOST_SHOWN]
        more = f" and {len(names) - _MOST_SHOWN:,} more" if len(names) > _MOST_SHOWN else ""
        hidden = ""
        if not {*names, "(unnamed)"}.issuperset(shown):
            hidden = " (with a number where a name may be a value; the file itself has it)"
        return f"{file} has the columns {', '.join(shown)}{more}{hidden}"
    odd = [i for i, name in enumerate(names, 1) if not _is_name(name)] or range(1, len(names) + 1)
    places = f"{', '.join(map(str, odd[:5]))}{', …' if len(odd) > 5 else ''}"
    return (
        f"{file} has {len(names):,} columns, not all of them with names (no header line? see "
        f"column {places})"
    )


def nearest(column: str, names: Sequence[str], below: Sequence[Sequence[str]]) -> str:
    """Return a remark with the name most like `column`; empty where none may be shown or is."""
    shown = set(shown_names(names, below))
    folded = {name.casefold(): name for name in names if name in shown}
    close = difflib.get_close_matches(column.casefold(), folded, 1, 0.6)
    return f" (did you mean {folded[close[0]]!r}?)" if close else ""
