# SPDX-License-Identifier: Apache-2.0
"""Names of columns: whether a first row holds names, which may be shown, or a record.

A table without a header line begins with a patient's record. Names are therefore shown only where
the first row looks like names; of other tables the number of columns and their places are said.
"""

import difflib
import re
from collections import Counter
from collections.abc import Sequence

HEAD_ROWS = 100
"""Rows below the first that are compared with it."""

_LONGEST_NAME = 40
_NAME = re.compile(r"[^\W\d][\w.()/:#%-]*( [\w.()/:#%-]+){0,3}")
_UNNAMED = re.compile(r"(unnamed: \d+)?", re.IGNORECASE)  # pandas' index, written and read again
_USUAL = frozenset((
    "id", "text", "note", "notes", "note_text", "note_id", "report", "report_text", "content",
    "transcription", "document", "title", "abstract", "body", "mrn", "patient", "patient_id",
    "patientid", "subject_id", "hadm_id", "row_id", "encounter_id", "encounter", "visit_id", "date",
    "chartdate", "charttime", "label", "labels", "category", "description", "sentence", "name",
    "split", "gender", "sex", "age", "diagnosis", "findings", "impression", "impressions",
    "dialogue", "section",
))  # fmt: skip
"""Names in lower case that are no content of a cell: with one of them, a row is a header."""


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
    return bool(_USUAL & set(plain)) or not any(values) or not _is_alike(named, values)


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


def shown_names(names: Sequence[str], below: Sequence[Sequence[str]]) -> list[str]:
    """Return what a message may call the columns: their names, or else their places."""
    if is_header(names, below):
        return ["(unnamed)" if is_unnamed(name) else name for name in names]
    return [f"column {place}" for place in range(1, len(names) + 1)]


def describe(names: Sequence[str], below: Sequence[Sequence[str]], file: str) -> str:
    """Return a clause that says what columns a file has."""
    if is_header(names, below):
        return f"{file} has the columns {', '.join(shown_names(names, below))}"
    odd = [i for i, name in enumerate(names, 1) if not _is_name(name)] or range(1, len(names) + 1)
    places = f"{', '.join(map(str, odd[:5]))}{', …' if len(odd) > 5 else ''}"
    return (
        f"{file} has {len(names)} columns, not all of them with names (no header line? see "
        f"column {places})"
    )


def nearest(column: str, names: Sequence[str], below: Sequence[Sequence[str]]) -> str:
    """Return a remark with the name most like `column`; empty where none may be shown or is."""
    if not is_header(names, below):
        return ""
    folded = {name.casefold(): name for name in names if not is_unnamed(name)}
    close = difflib.get_close_matches(column.casefold(), folded, 1, 0.6)
    return f" (did you mean {folded[close[0]]!r}?)" if close else ""
