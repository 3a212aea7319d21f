# SPDX-License-Identifier: Apache-2.0
"""Delimited tables as hospitals have them: delimiter and encoding are recognised, and said.

Where they cannot be told, the file is refused with the option that names them. Lines after a broken
record are left out until one clearly begins a record.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from io import StringIO, TextIOWrapper
from itertools import chain, islice

from bcmb_jax.data.ingest.columns import Columns, Row, Table
from bcmb_jax.data.ingest.encodings import recognise_encoding
from bcmb_jax.data.ingest.files import Stream
from bcmb_jax.data.ingest.header import HEAD_ROWS, shape_of
from bcmb_jax.data.ingest.record import BROKEN_COLUMNS, BROKEN_QUOTES, EMPTY, Skipped
from bcmb_jax.errors import InputError

LARGEST_FIELD = 2**24
"""Characters. The csv module's own limit of 131,072 is less than many notes; without any, a quote
left open would fill the memory."""

DELIMITERS = {",": "commas", ";": "semicolons", "|": "pipes", "\t": "tabs"}
_SAMPLE = 2**23  # bytes of a file that tell its encoding
_FIRST_ROWS = 50  # that tell its delimiter
_ENOUGH_ROWS, _MOST_ROWS = 5, 1000  # that tell which columns are free text
_FEW_SHAPES = 3  # of the values in a column that is not


def read_delimited(stream: Stream, file: str, *, delimiter: str, recognise: bool = True) -> Table:
    """Read a header line, then a row a record; quoted fields may span lines.

    Args:
      delimiter: the usual one of such files, kept unless the rows show another.
      recognise: whether another delimiter may be taken.

    Raises:
      InputError: there is no header line, or encoding or delimiter cannot be told.
    """
    csv.field_size_limit(LARGEST_FIELD)
    sample = stream.read(_SAMPLE)
    stream.seek(0)
    encoding = recognise_encoding(sample, file)
    usual = delimiter
    if recognise:
        delimiter = recognise_delimiter(sample[: _SAMPLE // 8].decode(encoding, "replace"), usual)
    rows = _split_rows(stream, file, delimiter, encoding)
    _, header = next(rows, (0, None))
    if not header:
        raise InputError(f"{file} does not begin with a header line that names its columns")
    if len(header) == 1 and any(x in header[0] for x in DELIMITERS):
        raise InputError(
            f"{file} is not delimited by {delimiter!r}: its header line is one name that holds "
            "another delimiter; name it with --delimiter"
        )
    head = list(islice(rows, HEAD_ROWS))

    def read_rows(_: Columns) -> Iterator[Row | Skipped]:
        for line, fields in chain(head, rows):
            if fields is None:
                yield Skipped(file, line, BROKEN_QUOTES)
            elif not fields:
                yield Skipped(file, line, EMPTY)
            elif len(fields) != len(header):
                yield Skipped(file, line, BROKEN_COLUMNS)
            else:
                yield Row(file, line, dict(zip(header, fields, strict=True)))

    written = [] if delimiter == usual else [DELIMITERS.get(delimiter, repr(delimiter))]
    written += [] if encoding == "utf-8-sig" else [encoding]
    below = [fields for _, fields in head if fields and len(fields) == len(header)]
    return Table(file, header, read_rows, below=below, written=", ".join(written))


def recognise_delimiter(text: str, usual: str) -> str:
    """Return the delimiter under which most rows have as many fields as the header."""
    agreeing = {delimiter: _agreement(text, delimiter) for delimiter in (usual, *DELIMITERS)}
    best = max(agreeing, key=lambda delimiter: agreeing[delimiter])
    return best if agreeing[best] > 0.5 > agreeing[usual] else usual


def _agreement(text: str, delimiter: str) -> float:
    """Return the share of rows that have as many fields as the header; 0 for a single column."""
    rows = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
    try:
        first = list(islice((row for row in rows if row), 1 + _FIRST_ROWS))
    except csv.Error:
        return 0.0
    if not first or len(first[0]) == 1:
        return 0.0
    below = first[1:] or first
    return sum(len(row) == len(first[0]) for row in below) / len(below)


def _split_rows(
    stream: Stream, file: str, delimiter: str, encoding: str
) -> Iterator[tuple[int, list[str] | None]]:
    """Yield (first line, fields); no fields where quotes are misplaced.

    Without `strict`, the csv module would merge such records unnoticed. Rows after a broken one
    have no fields either, until one clearly begins a record.
    """
    taken: list[str] = []  # the lines of a row
    inside = broken = False  # in a broken row's quoted field; after a broken row
    shapes = _Shapes()

    def take(lines: TextIOWrapper) -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    with TextIOWrapper(stream, encoding, errors="surrogateescape", newline="") as lines:
        rows = csv.reader(take(lines), delimiter=delimiter, strict=True)
        while True:
            line = rows.line_num + 1
            taken.clear()
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                # A last line cut short loses itself; a quote left open earlier would swallow all.
                unfinished = "unexpected end of data" in str(error) and rows.line_num > line
                if unfinished or "field limit" in str(error):
                    raise InputError(
                        f"{file}: a quote opened in the record at line {line} is still open at "
                        f"line {rows.line_num}: close it, or double quotes inside fields"
                    ) from error
                broken, inside = True, "".join(taken).count('"') % 2 == 1
                yield line, None
                continue
            opens_a_field = f'{delimiter}"' in taken[0]
            if broken and not (
                taken[0].startswith('"')
                or ((opens_a_field or not inside) and shapes.fit(row, opens_a_field))
            ):
                inside = inside and "".join(taken).count('"') % 2 == 0
                yield line, None
                continue
            broken = inside = False
            shapes.add(row)
            yield line, row


class _Shapes:
    """Shapes of the fields of good rows: what tells a record from a line of a broken one's text."""

    def __init__(self) -> None:
        self._columns: list[Counter[str]] = []
        self._rows = 0

    def add(self, row: Sequence[str]) -> None:
        """Note the shapes of a row; of the header, which comes first, only its length."""
        if not self._columns:
            self._columns = [Counter() for _ in row]
        elif len(row) == len(self._columns) and self._rows < _MOST_ROWS:
            self._rows += 1
            for seen, field in zip(self._columns, row, strict=True):
                if len(seen) <= _FEW_SHAPES:
                    seen[shape_of(field)] += 1

    def fit(self, row: Sequence[str], opens_a_field: bool) -> bool:
        """Return whether a row is a record, as far as the rows before it tell.

        It has their shapes in all columns of numbers, dates and identifiers; if there are none, in
        all that are no free text. After too few rows to tell, it begins with an identifier that
        has digits, or with one word before a quoted field.
        """
        if len(row) != len(self._columns):
            return False
        if self._rows < _ENOUGH_ROWS:
            one_word = not re.search(r"\s", row[0].strip())
            return (opens_a_field and one_word) or re.match(r"\s*\w*\d", row[0]) is not None
        columns = list(zip(self._columns, map(shape_of, row), strict=True))
        regular = [(seen, shape) for seen, shape in columns if len(seen) <= _FEW_SHAPES]
        with_digits = [x for x in regular if all("9" in shape for shape in x[0] if shape)]
        return all(shape in ("", *seen) for seen, shape in with_digits or regular)


def one_letter(delimiter: str) -> str:
    """Return the delimiter that an option names: a character, or "tab".

    Raises:
      InputError: it is something else.
    """
    letter = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
    if len(letter) != 1 or letter in '"\r\n':
        raise InputError(f"--delimiter {delimiter!r}: give one character, or tab")
    return letter
