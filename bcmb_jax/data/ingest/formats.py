# SPDX-License-Identifier: Apache-2.0
"""Plain formats: csv, tsv, jsonl, JSON objects and Parquet as tables, and text."""

import csv
import json
from collections.abc import Iterator
from functools import partial
from io import TextIOWrapper
from itertools import chain, islice
from typing import Any

from bcmb_jax.data.ingest.columns import Columns, Row, Table
from bcmb_jax.data.ingest.files import Reader, Stream, open_text, suffix_of
from bcmb_jax.data.ingest.record import (
    BROKEN_COLUMNS,
    BROKEN_JSON,
    BROKEN_QUOTES,
    BROKEN_UNICODE,
    EMPTY,
    Record,
    Skipped,
    make_record,
)
from bcmb_jax.errors import InputError

_LARGEST_FIELD = 2**24
"""Characters. The csv module's own limit of 131,072 is less than many notes; without any, a quote
left open would fill the memory."""
_DELIMITERS = ",;|\t"
_JSONL_HEAD = 100  # lines whose keys are the columns, as objects often leave out empty keys
_PARQUET_BATCH = 1024  # rows


def read_delimited(stream: Stream, file: str, *, delimiter: str) -> Table:
    """Read csv or tsv: a header line, then a row a record; quoted fields may span lines."""
    csv.field_size_limit(_LARGEST_FIELD)
    rows = _split_rows(stream, file, delimiter)
    _, header = next(rows, (0, None))
    if not header:
        raise InputError(f"{file} does not begin with a header line that names its columns")
    if len(header) == 1 and any(x in header[0] for x in _DELIMITERS):
        raise InputError(
            f"{file} is not delimited by {delimiter!r}: its header line is one name that holds "
            "another delimiter; write it as csv (commas) or tsv (tabs)"
        )

    def read_rows(_: Columns) -> Iterator[Row | Skipped]:
        for line, fields in rows:
            if fields is None:
                yield Skipped(file, line, BROKEN_QUOTES)
            elif not fields:
                yield Skipped(file, line, EMPTY)
            elif len(fields) != len(header):
                yield Skipped(file, line, BROKEN_COLUMNS)
            else:
                yield Row(file, line, dict(zip(header, fields, strict=True)))

    return Table(file, header, read_rows)


read_csv = partial(read_delimited, delimiter=",")
read_tsv = partial(read_delimited, delimiter="\t")


def _split_rows(
    stream: Stream, file: str, delimiter: str
) -> Iterator[tuple[int, list[str] | None]]:
    """Yield (first line, fields); no fields where quotes are misplaced.

    Without `strict`, the csv module would merge such records unnoticed. The rows after one that may
    be the rest of its text have no fields either.
    """
    taken: list[str] = []  # the lines of a row
    inside = False  # a broken row's quoted field

    def take(lines: TextIOWrapper) -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    with open_text(stream, newline="") as lines:
        rows = csv.reader(take(lines), delimiter=delimiter, strict=True)
        while True:
            line = rows.line_num + 1
            taken.clear()
            row: list[str] | None = None
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
            begins = taken[0].startswith('"') or f'{delimiter}"' in taken[0]
            if row is None or (inside and not begins):
                odd_quotes = "".join(taken).count('"') % 2 == 1
                inside, row = odd_quotes == (row is None), None
            else:
                inside = False
            yield line, row


def read_jsonl(stream: Stream, file: str) -> Table:
    """Read jsonl: one JSON object a line; the keys of the first 100 are the columns."""
    rows = _parse_lines(stream, file)
    head = list(islice(rows, _JSONL_HEAD))
    objects = [row.values for row in head if isinstance(row, Row)]
    if not objects and len(head) == _JSONL_HEAD:
        raise InputError(f"none of the first {_JSONL_HEAD} lines of {file} is a JSON object")
    names = list(dict.fromkeys(chain.from_iterable(objects)))
    return Table(file, names if objects else None, lambda _: chain(head, rows))


def _parse_lines(stream: Stream, file: str) -> Iterator[Row | Skipped]:
    with open_text(stream, newline="\n") as lines:
        for n, line in enumerate(lines, start=1):
            yield _parse_object(line, file, n) if line.strip() else Skipped(file, n, EMPTY)


def _parse_object(text: str, file: str, line: int) -> Row | Skipped:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    return Row(file, line, value) if isinstance(value, dict) else Skipped(file, line, BROKEN_JSON)


def read_json(stream: Stream, file: str) -> Table:
    """Read one JSON object a file, over any number of lines; its keys are the columns.

    The columns are not checked: a file without the text is one document less, not a wrong name.
    """

    def read_rows(_: Columns) -> Iterator[Row | Skipped]:
        try:
            with open_text(stream, newline="\n") as lines:
                yield _parse_object(lines.read(), file, 1)
        except UnicodeError:  # begins like UTF-16 and is not
            yield Skipped(file, 1, BROKEN_JSON)

    return Table(file, None, read_rows)


def read_parquet(stream: Stream, file: str) -> Table:
    """Read a Parquet table in small batches; a record's line is its row, counted from 1."""
    import pyarrow
    import pyarrow.parquet

    damaged = InputError(f"{file} is not readable as Parquet: fetch it again")
    try:
        table = pyarrow.parquet.ParquetFile(stream)
    except pyarrow.ArrowException as error:
        raise damaged from error

    def read_rows(columns: Columns) -> Iterator[Row]:
        try:
            line = 0
            for batch in table.iter_batches(_PARQUET_BATCH, columns=columns.names):
                for values in _texts_as_bytes(batch).to_pylist():
                    line += 1
                    yield Row(file, line, {name: _decode(x) for name, x in values.items()})
        except pyarrow.ArrowException as error:
            raise damaged from error

    return Table(file, table.schema_arrow.names, read_rows)


def _texts_as_bytes(batch: Any) -> Any:
    """Return a pyarrow batch without strings: pyarrow stops at one that is not UTF-8."""
    import pyarrow

    kinds = {pyarrow.string(): pyarrow.binary(), pyarrow.large_string(): pyarrow.large_binary()}
    arrays = [x.cast(kinds[x.type]) if x.type in kinds else x for x in batch.columns]
    return pyarrow.record_batch(arrays, names=batch.schema.names)


def _decode(value: object) -> object:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def read_text(stream: Stream, file: str) -> Iterator[Record]:
    """Yield one document a file; line ends become plain line feeds."""
    try:
        with open_text(stream, newline=None) as lines:
            text = lines.read()
    except UnicodeError:  # begins like UTF-16 and is not
        yield Skipped(file, 1, BROKEN_UNICODE)
    else:
        yield make_record(text, None, file, 1)


def read_by_name(stream: Stream, file: str) -> Table | Iterator[Record]:
    """Read .txt as text, .jsonl as jsonl, .tsv as tsv and everything else as csv."""
    readers: dict[str, Reader] = {".txt": read_text, ".jsonl": read_jsonl, ".tsv": read_tsv}
    return readers.get(suffix_of(file), read_csv)(stream, file)
