# SPDX-License-Identifier: Apache-2.0
"""Rows with named columns, and the one place that chooses which of them are text and group."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from bcmb_jax.data.ingest.header import describe, is_unnamed, nearest
from bcmb_jax.data.ingest.record import (
    BROKEN_TYPE,
    EMPTY,
    MARKED,
    NO_TEXT_COLUMN,
    Record,
    Skipped,
    TokenDocument,
    make_record,
)
from bcmb_jax.errors import InputError, record_error

USUAL_NAMES = (
    *("text", "note", "notes", "note_text", "report", "report_text", "transcription"),
    *("document", "content", "sentence"),
)
"""Names of a text column that need not be given, in any case."""

MISSING = frozenset(
    [
        *("", "-", ".", "?", "n/a", "na", "nan", "nat", "nil", "none", "null", "<na>", "(null)"),
        *("[null]", "\\n", "#n/a", "#na", "#null!", "#value!", "-nan", "1.#ind", "-1.#ind"),
        *("1.#qnan", "-1.#qnan", "#n/a n/a", "missing"),
    ]
)
"""Words that programs write where there is no value, in lower case."""

_YES = frozenset(["1", "true", "t", "yes", "y"])
_NO = frozenset(["0", "false", "f", "no", "n"]) | MISSING
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-][0-9]{1,3})?")  # not "010", "1E2"


class Row(NamedTuple):
    """A record of a format with columns: where it stands, and its values by column."""

    file: str
    line: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """Columns that make a document: texts, joined by blank lines, and perhaps a group.

    Attributes:
      skip: the column that marks records to be left out.
    """

    text: tuple[str, ...]
    group: str | None
    skip: str | None = None

    @property
    def names(self) -> list[str]:
        """All columns to be read."""
        return [*self.text, *filter(None, (self.group, self.skip))]

    def record(self, row: Row | Skipped) -> Record:
        """Return the record of a row; empty and missing parts are left out.

        A single array holds token ids.
        """
        if isinstance(row, Skipped):
            return row
        file, line, values = row
        if self.skip and _is_marked(row, self.skip):
            return Skipped(file, line, MARKED)
        if not any(name in values for name in self.text):
            return Skipped(file, line, NO_TEXT_COLUMN)
        parts = [part for name in self.text if (part := values.get(name)) is not None]
        group = group_value(values.get(self.group)) if self.group else None
        if len(parts) == 1 and isinstance(parts[0], np.ndarray):
            ids = parts[0]
            return TokenDocument(ids, group, file, line) if len(ids) else Skipped(file, line, EMPTY)
        if not all(isinstance(part, str) for part in parts):
            return Skipped(file, line, BROKEN_TYPE)
        text = "\n\n".join(part for part in parts if part and not part.isspace())
        return make_record(text, group, file, line)


@dataclass(frozen=True)
class Table:
    """Rows with named columns, as the reader of such a format returns them.

    Attributes:
      file: the name that messages use.
      names: the columns, or None where the file does not list them.
      rows: yields the rows (or why there is none) with at least the chosen columns' values.
      text: the text column if none is named; else the usual names are tried.
      below: values of the first rows, which tell whether the names are names or a record.
      written: how the file is written, where that is not as usual.
    """

    file: str
    names: Sequence[str] | None
    rows: Callable[[Columns], Iterator[Row | Skipped]]
    text: str | None = None
    below: Sequence[Sequence[str]] = ()
    written: str = ""

    def records(
        self,
        text_column: str | None = None,
        group_column: str | None = None,
        skip_column: str | None = None,
    ) -> Iterator[Record]:
        """Choose the columns, and return the records of all rows.

        Raises:
          InputError: a column does not exist, or the text column is not clear.
        """
        text_column = text_column or self.text
        if self.names is None:
            columns = Columns(tuple((text_column or "").split(",")), group_column, skip_column)
        else:
            columns = choose_columns(
                self.names,
                text_column,
                group_column,
                self.file,
                self.below,
                skip_column=skip_column,
            )
        return map(columns.record, self.rows(columns))

    def map(self, change: Callable[[Row], Row | Skipped]) -> "Table":
        """Return the table with every row changed, or left out."""

        def changed(row: Row | Skipped) -> Row | Skipped:
            return row if isinstance(row, Skipped) else change(row)

        return replace(self, rows=lambda columns: map(changed, self.rows(columns)))


def group_value(value: object) -> str | None:
    """Return a group's id as text, the same for every spelling of it; None where there is none.

    Numbers that are equal are one id (10006, 10006.0 and 1.0006E+04, but not 010006, which is no
    plain number), blanks around an id do not count, and a word for a missing value is no id.
    """
    text = "" if value is None else str(value).strip()
    if text.lower() in MISSING:
        return None
    if text.isdecimal() or not _NUMBER.fullmatch(text):
        return text
    digits = format(Decimal(text), "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def is_yes(value: object) -> bool | None:
    """Return whether a cell says yes, however a database or a program writes it, or None."""
    word = (group_value(value) or "").lower()
    return True if word in _YES else False if word in _NO else None


def _is_marked(row: Row, column: str) -> bool:
    marked = is_yes(row.values.get(column))
    if marked is None:
        what = (
            f"{column!r} is neither yes (1, true, t) nor no (0, false, f or nothing): correct it, "
            "or --skip-column"
        )
        raise record_error(row.file, row.line, what)
    return marked


def choose_columns(
    names: Sequence[str],
    text_column: str | None,
    group_column: str | None,
    file: str,
    below: Sequence[Sequence[str]] = (),
    *,
    skip_column: str | None = None,
) -> Columns:
    """Return the columns to read: those named, else the only or the only usual one as text.

    A name is found as it is written, or else without regard to case and to blanks around it.

    Args:
      text_column: a name, or several joined by commas.
      skip_column: the column that marks records to be left out.

    Raises:
      InputError: a column is missing, is there twice, or has to be named; lists those of `file`.
    """
    if text_column is None:
        texts = []
    else:  # the name itself may hold a comma
        texts = [text_column] if text_column in names else text_column.split(",")
    listed = describe(names, below, file, [*texts, group_column or "", skip_column or ""])

    def find(option: str, column: str) -> str:
        same = [name for name in names if name == column]
        plain = column.strip().casefold()
        found = same or [name for name in names if name.strip().casefold() == plain]
        if not found:
            meant = nearest(column, names, below)
            none = " (none: no row is left out)" if option == "skip" else ""
            raise InputError(f"{listed}, not {column!r}: correct --{option}-column{meant}{none}")
        if len(found) > 1:
            raise InputError(f"{listed}, {column!r} more than once: rename one in the header")
        return found[0]

    if text_column is None:
        usual = [name for name in names if name.lower() in USUAL_NAMES]
        named = [name for name in names if not is_unnamed(name)]
        texts = named if len(named) == 1 else usual
        if len(texts) != 1:
            raise InputError(f"{listed}: say which holds the text with --text-column")
    return Columns(
        tuple(find("text", column) for column in texts),
        find("group", group_column) if group_column else None,
        find("skip", skip_column) if skip_column else None,
    )
