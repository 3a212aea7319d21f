# SPDX-License-Identifier: Apache-2.0
"""Documents, and the reasons why a record of a file gives none."""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

EMPTY = "empty"
TOO_LONG = "longer than --max-record-bytes"
BROKEN_COLUMNS = "broken: wrong number of columns"
BROKEN_JSON = "broken: not a JSON object"
BROKEN_QUOTES = "broken: misplaced quote"
BROKEN_TYPE = "broken: text is not a string"
BROKEN_UNICODE = "broken: not valid Unicode"
BROKEN_NUL = "broken: holds NUL characters"
NO_TEXT_COLUMN = "broken: no text column"
MARKED = "marked as an error"
NOT_ENGLISH = "not English"
REPEATED = "repeats an earlier text"
SUPERSEDED = "superseded by a later version"

DIGEST_BYTES = 16


@dataclass(frozen=True)
class Document:
    """A whole text; documents of one group (patient, article) stay in one split.

    `line` is the record's first line (the row in Parquet, the sample in MDS), counted from 1.
    """

    text: str
    group: str | None
    file: str
    line: int


@dataclass(frozen=True, eq=False)  # the truth value of `array == array` is undefined
class TokenDocument:
    """A document that comes as token ids, `[CLS]` first and `[SEP]` last."""

    ids: np.ndarray
    group: str | None
    file: str
    line: int


@dataclass(frozen=True)
class Skipped:
    """A record that gives no document, and the reason."""

    file: str
    line: int
    reason: str


Record = Document | TokenDocument | Skipped


def make_record(text: str, group: str | None, file: str, line: int) -> Document | Skipped:
    r"""Return a document, or the reason why the text is none: blank, or not valid Unicode.

    Undecodable bytes and unpaired `\uD800` escapes both arrive here as lone surrogates.
    """
    if not text or text.isspace():
        return Skipped(file, line, EMPTY)
    if "\0" in text:  # UTF-16 without a byte order mark, or not a text at all
        return Skipped(file, line, BROKEN_NUL)
    try:
        text.encode()
    except UnicodeEncodeError:
        return Skipped(file, line, BROKEN_UNICODE)
    return Document(text, group, file, line)


def digest(text: str) -> bytes:
    """Return 16 bytes that identify a text: millions of digests fit where the texts would not."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
