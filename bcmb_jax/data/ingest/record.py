# SPDX-License-Identifier: Apache-2.0
"""What every reader yields, a document or the reason why there is none, and which columns it is."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from bcmb_jax.errors import InputError

EMPTY = "empty"
BROKEN_COLUMNS = "broken: wrong number of columns"
BROKEN_JSON = "broken: not a JSON object"
BROKEN_QUOTES = "broken: misplaced quote"
BROKEN_TYPE = "broken: text is not a string"
BROKEN_UNICODE = "broken: not valid Unicode"
BROKEN_NUL = "broken: holds NUL characters"
REPEATED = "repeats an earlier text"
SUPERSEDED = "superseded by a later version"
NO_TEXT_COLUMN = "broken: no text column"

_NAME = re.compile(r"[^\W\d][\w.()/:#%-]*( [\w.()/:#%-]+){0,3}")
_LONGEST_NAME = 40
USUAL_NAMES = (
    "text",
    "note",
    "notes",
    "note_text",
    "report",
    "report_text",
    "transcription",
    "document",
    "content",
)


@dataclass(frozen=True)
class Document:
    """A whole text; documents of one group (patient, article) stay in one split.

    `line` is the record's first line (its row in Parquet), counted from 1.
    """

    text: str
    group: str | None
    file: str
    line: int


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class TokenDocument:
    """A document that comes as token ids, `[CLS]` first and `[SEP]` last; else like `Document`."""

    ids: np.ndarray
    group: str | None
    file: str
    line: int


@dataclass(frozen=True)
class Skipped:
    """A record that gives no document, and why."""

    file: str
    line: int
    reason: str


Record = Document | TokenDocument | Skipped


DIGEST_BYTES = 16


def digest(text: str) -> bytes:
    """What a text is known again by: millions of these fit where the texts would not."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def make_record(text: str, group: str | None, file: str, line: int) -> Record:
    """A document, unless its text is blank or cannot be encoded.

    Undecodable bytes and unpaired `\\uD800` escapes both arrive here as lone surrogates.
    """
    if not text or text.isspace():
        return Skipped(file, line, EMPTY)
    if "\0" in text:  # UTF-16 that does not say so, or not a text at all
        return Skipped(file, line, BROKEN_NUL)
    try:
        text.encode()
    except UnicodeEncodeError:
        return Skipped(file, line, BROKEN_UNICODE)
    return Document(text, group, file, line)


@dataclass(frozen=True)
class Columns:
    """The columns that make a document: texts, joined by blank lines, and perhaps a group."""

    text: tuple[str, ...]
    group: str | None

    def record(self, values: Mapping[str, Any], file: str, line: int) -> Record:
        """The record that one row or object gives; empty and missing parts are left out.

        A single array is taken for token ids.
        """
        if not any(name in values for name in self.text):
            return Skipped(file, line, NO_TEXT_COLUMN)
        parts = [part for name in self.text if (part := values.get(name)) is not None]
        value = values.get(self.group) if self.group else None
        missing = value is None or value == "" or value != value  # NaN, as pandas writes it
        group = None if missing else str(value)
        if len(parts) == 1 and isinstance(parts[0], np.ndarray):
            ids = parts[0]
            return TokenDocument(ids, group, file, line) if len(ids) else Skipped(file, line, EMPTY)
        if not all(isinstance(part, str) for part in parts):
            return Skipped(file, line, BROKEN_TYPE)
        text = "\n\n".join(part for part in parts if part and not part.isspace())
        return make_record(text, group, file, line)


def choose_columns(
    names: Sequence[str], text_column: str | None, group_column: str | None, file: str
) -> Columns:
    """The columns to read out of those that exist; `InputError` lists them if that fails."""
    # Without a header line, a record's text would be taken for names, and must not be shown.
    if all(len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) for name in names):
        listed = f"{file} has the columns {', '.join(names)}"
    else:
        listed = f"{file} has {len(names)} columns, not all of them with names (no header line?)"
    if text_column is None:
        usual = [name for name in names if name.lower() in USUAL_NAMES]
        chosen = list(names) if len(names) == 1 else usual
        if len(chosen) != 1:
            raise InputError(f"{listed}: say which holds the text with --text-column")
    else:
        # The name itself may hold a comma.
        chosen = [text_column] if text_column in names else text_column.split(",")
    for option, column in [*(("text", name) for name in chosen), ("group", group_column)]:
        if column is None:
            continue
        if column not in names:
            raise InputError(f"{listed}, not {column!r}: correct --{option}-column")
        if list(names).count(column) > 1:
            raise InputError(f"{listed}, {column!r} more than once: rename one in the header")
    return Columns(tuple(chosen), group_column)
