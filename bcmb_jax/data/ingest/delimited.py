# SPDX-License-Identifier: Apache-2.0
"""csv and tsv: a header line, then a record a row; quoted fields may span lines."""

import csv
from collections.abc import Iterable, Iterator
from typing import Any

from bcmb_jax.data.ingest.files import Reshape, open_text
from bcmb_jax.data.ingest.record import (
    BROKEN_COLUMNS,
    BROKEN_QUOTES,
    EMPTY,
    Record,
    Skipped,
    choose_columns,
)
from bcmb_jax.errors import InputError

_LARGEST_FIELD = 2**24
"""Characters. The csv module's own limit of 131,072 is less than many notes; without any, a quote
left open would fill the memory."""
_OTHER_DELIMITERS = ",;|\t"


def read_delimited(
    stream: Any,
    file: str,
    text_column: str | None,
    group_column: str | None,
    *,
    delimiter: str,
    skip: tuple[str, str, str] | None = None,
    reshape: Reshape = lambda values: values,
) -> Iterator[Record]:
    """Yields a record a row; `skip` is a column, the value of rows to leave out, and the reason."""
    csv.field_size_limit(_LARGEST_FIELD)
    with open_text(stream, newline="") as lines:
        rows = _rows(lines, file, delimiter)
        _, header = next(rows, (0, None))
        if not header:
            raise InputError(f"{file} does not begin with a header line that names its columns")
        if len(header) == 1 and any(x in header[0] for x in _OTHER_DELIMITERS):
            raise InputError(
                f"{file} is not delimited by {delimiter!r}: its header line is one name that holds "
                "another delimiter; write it as csv (commas) or tsv (tabs)"
            )
        columns = choose_columns(header, text_column, group_column, file)
        if skip and skip[0] not in header:
            raise InputError(f"{file} has no column {skip[0]!r}, by which rows are left out")
        for line, row in rows:
            if row is None:
                yield Skipped(file, line, BROKEN_QUOTES)
            elif not row:
                yield Skipped(file, line, EMPTY)
            elif len(row) != len(header):
                yield Skipped(file, line, BROKEN_COLUMNS)
            else:
                values = dict(zip(header, row, strict=True))
                if skip and values[skip[0]] == skip[1]:
                    yield Skipped(file, line, skip[2])
                else:
                    yield columns.record(reshape(values), file, line)


def _rows(
    lines: Iterable[str], file: str, delimiter: str
) -> Iterator[tuple[int, list[str] | None]]:
    """(first line, fields); None where quotes are misplaced, which without `strict` would merge
    records unnoticed, and for the rows after it that may be the rest of its text."""
    taken: list[str] = []  # the lines of a row
    rows = csv.reader(_noting(lines, taken), delimiter=delimiter, strict=True)
    inside = False  # a broken row's quoted field
    while True:
        line = rows.line_num + 1
        taken.clear()
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            # A last line cut short loses itself; a quote left open earlier would swallow the rest.
            unfinished = "unexpected end of data" in str(error) and rows.line_num > line
            if unfinished or "field limit" in str(error):
                raise InputError(
                    f"{file}: a quote opened in the record at line {line} is still open at line "
                    f"{rows.line_num}: close it, or double quotes inside fields"
                ) from error
            inside = _quotes(taken) % 2 == 1
            yield line, None
        else:
            opens_a_field = taken[0].startswith('"') or f'{delimiter}"' in taken[0]
            if inside and not opens_a_field:
                inside = _quotes(taken) % 2 == 0
                yield line, None
            else:
                inside = False
                yield line, row


def _noting(lines: Iterable[str], taken: list[str]) -> Iterator[str]:
    for line in lines:
        taken.append(line)
        yield line


def _quotes(lines: Iterable[str]) -> int:
    return sum(line.count('"') for line in lines)
