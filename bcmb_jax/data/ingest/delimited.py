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
from bcmb_jax.data.ingest.files import LONGEST, Stream
from bcmb_jax.data.ingest.header import HEAD_ROWS, shape_of
from bcmb_jax.data.ingest.record import BROKEN_COLUMNS, BROKEN_QUOTES, EMPTY, TOO_LONG, Skipped
from bcmb_jax.errors import InputError, record_error

DELIMITERS = {",": "commas", ";": "semicolons", "|": "pipes", "\t": "tabs"}
_SAMPLE = 2**23  # bytes of a file that tell its encoding
_FIRST_ROWS = 50  # that tell its delimiter
_ENOUGH_ROWS, _MOST_ROWS = 5, 1000  # that tell which columns are free text
_FEW_SHAPES = 3  # of the values in a column that is not


def read_delimited(
    stream: Stream, file: str, longest: int = LONGEST, *, delimiter: str, recognise: bool = True
) -> Table:
    """Read a header line, then a row a record; quoted fields may span lines.

    Args:
      delimiter: the usual one of such files, kept unless the rows show another.
      recognise: whether another delimiter may be taken.

    Raises:
      InputError: there is no header line, or encoding or delimiter cannot be told.
    """
    csv.field_size_limit(longest)  # its own, 131,072, is less than many notes have
    sample = stream.read(_SAMPLE)
    stream.seek(0)
    encoding = recognise_encoding(sample, file)
    usual = delimiter
    if recognise:
        delimiter = recognise_delimiter(sample[: _SAMPLE // 8].decode(encoding, "replace"), usual)
    rows = _split_rows(stream, file, longest, delimiter, encoding)
    _, header = next(rows, (0, ""))
    if not header or isinstance(header, str):
        raise InputError(f"{file} does not begin with a header line that names its columns")
    if len(header) == 1 and any(x in header[0] for x in DELIMITERS):
        raise InputError(
            f"{file} is not delimited by {delimiter!r}: its header line is one name that holds "
            "another delimiter; name it with --delimiter"
        )
    head: list[tuple[int, list[str] | str]] = []
    room = longest
    while len(head) < HEAD_ROWS and room > 0 and (row := next(rows, None)):
        head.append(row)
        room -= sum(map(len, row[1]))

    def read_rows(_: Columns) -> Iterator[Row | Skipped]:
        for line, fields in chain(head, rows):
            if isinstance(fields, str):
                yield Skipped(file, line, fields)
            elif not fields:
                yield Skipped(file, line, EMPTY)
            elif len(fields) != len(header):
                yield Skipped(file, line, BROKEN_COLUMNS)
            else:
                yield Row(file, line, dict(zip(header, fields, strict=True)))

    written = [] if delimiter == usual else [DELIMITERS.get(delimiter, repr(delimiter))]
    written += [] if encoding == "utf-8-sig" else [encoding]
    rows_below = (fields for _, fields in head if not isinstance(fields, str))
    below = [fields for fields in rows_below if len(fields) == len(header)]
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


class _TooLong(Exception):
    """A record that has become longer than the bound."""


class _Lines:
    """Lines for the csv module, and what it has taken of the record that it reads."""

    def __init__(self, lines: TextIOWrapper, longest: int):
        self._lines, self._longest = lines, longest
        self.number = 0
        self.taken: list[str] = []

    def begin(self) -> None:
        """Begin another record."""
        self.taken.clear()
        self._room = self._longest

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._lines.readline(self._room + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.taken.append(line)
        self._room -= len(line)
        if self._room < 0:
            raise _TooLong
        return line

    @property
    def ends_inside(self) -> bool:
        """Whether a quote of the record is still open, as far as it has been taken."""
        return sum(line.count('"') for line in self.taken) % 2 == 1

    def drop(self) -> bool:
        """Read to the end of a record that is too long; return whether its quotes are closed."""
        inside, line = self.ends_inside, self.taken[-1]
        while inside or not line.endswith(("\r", "\n")):
            self.number += line.endswith(("\r", "\n"))
            line = self._lines.readline(self._longest)
            if not line:
                return not inside
            inside ^= line.count('"') % 2 == 1
        return True


def _split_rows(
    stream: Stream, file: str, longest: int, delimiter: str, encoding: str
) -> Iterator[tuple[int, list[str] | str]]:
    """Yield (first line, fields), or instead of the fields the reason why there are none.

    Without `strict`, the csv module would merge such records unnoticed. Rows after a broken one
    have no fields either, until one clearly begins a record.
    """
    inside = broken = False  # in a broken row's quoted field; after a broken row
    shapes = _Shapes()

    with TextIOWrapper(stream, encoding, errors="surrogateescape", newline="") as text:
        lines = _Lines(text, longest)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            line = lines.number + 1
            lines.begin()
            try:
                row = next(rows)
            except StopIteration:
                return
            except (csv.Error, _TooLong) as error:
                too_long = isinstance(error, _TooLong)
                # A last line cut short loses itself; a quote left open earlier would swallow all.
                unfinished = "unexpected end of data" in str(error) and lines.number > line
                if unfinished or (too_long and not lines.drop()):
                    what = (
                        "a quote opened in this record is still open at line "
                        f"{lines.number:,}: close it, or double quotes inside fields"
                    )
                    raise record_error(file, line, what) from error
                # After lines that may have had no part in it, the next has to be like a record.
                broken = broken or not too_long or lines.number > line
                inside = not too_long and lines.ends_inside
                yield line, TOO_LONG if too_long else BROKEN_QUOTES
                continue
            opens_a_field = f'{delimiter}"' in lines.taken[0]
            if broken and not (
                lines.taken[0].startswith('"')
                or ((opens_a_field or not inside) and shapes.fit(row, opens_a_field))
            ):
                inside = inside and not lines.ends_inside
                yield line, BROKEN_QUOTES
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
