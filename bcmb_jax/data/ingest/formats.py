# SPDX-License-Identifier: Apache-2.0
"""Plain formats: csv, tsv, jsonl, JSON objects and Parquet as tables, and text."""

import json
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

from bcmb_jax.data.ingest.columns import Columns, Row, Table
from bcmb_jax.data.ingest.delimited import read_delimited
from bcmb_jax.data.ingest.files import LONGEST, Lines, Reader, Stream, open_text, suffix_of
from bcmb_jax.data.ingest.record import (
    BROKEN_JSON,
    BROKEN_UNICODE,
    EMPTY,
    TOO_LONG,
    Record,
    Skipped,
    make_record,
)
from bcmb_jax.errors import InputError

_JSONL_HEAD = 100  # lines whose keys are the columns, as objects often leave out empty keys
_PARQUET_BATCH = 1024  # rows
_PARQUET_BUFFER = 2**20  # bytes of a column


read_csv = partial(read_delimited, delimiter=",")
read_tsv = partial(read_delimited, delimiter="\t")


def read_jsonl(stream: Stream, file: str, longest: int = LONGEST) -> Table:
    """Read jsonl: one JSON object a line; the keys of the first 100 are the columns."""
    lines = Lines(open_text(stream, newline="\n"), longest)
    rows = _parse_lines(lines, file)
    head = []
    for row in rows:
        head.append(row)
        if len(head) == _JSONL_HEAD or lines.characters > longest:
            break
    objects = [row.values for row in head if isinstance(row, Row)]
    if not objects and len(head) == _JSONL_HEAD:
        raise InputError(f"none of the first {_JSONL_HEAD} lines of {file} is a JSON object")
    names = list(dict.fromkeys(chain.from_iterable(objects)))
    return Table(file, names if objects else None, lambda _: chain(head, rows))


def _parse_lines(lines: Lines, file: str) -> Iterator[Row | Skipped]:
    for n, line in enumerate(lines, start=1):
        if line is None:
            yield Skipped(file, n, TOO_LONG)
        else:
            yield _parse_object(line, file, n) if line.strip() else Skipped(file, n, EMPTY)


def _parse_object(text: str, file: str, line: int) -> Row | Skipped:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    return Row(file, line, value) if isinstance(value, dict) else Skipped(file, line, BROKEN_JSON)


def read_json(stream: Stream, file: str, longest: int = LONGEST) -> Table:
    """Read one JSON object a file, over any number of lines; its keys are the columns.

    The columns are not checked: a file without the text is one document less, not a wrong name.
    """

    def read_rows(columns: Columns) -> Iterator[Row | Skipped]:
        wanted = {name.casefold(): name for name in columns.names}
        try:
            with open_text(stream, newline="\n") as lines:
                text = lines.read(longest + 1)
            row = _parse_object(text, file, 1) if len(text) <= longest else _too_long(file)
            if isinstance(row, Row):
                values = {wanted.get(name.casefold(), name): x for name, x in row.values.items()}
                row = row._replace(values=values)
            yield row
        except UnicodeError:  # begins like UTF-16 and is not
            yield Skipped(file, 1, BROKEN_JSON)

    return Table(file, None, read_rows)


def _too_long(file: str, line: int = 1) -> Skipped:
    return Skipped(file, line, TOO_LONG)


def read_parquet(stream: Stream, file: str, longest: int = LONGEST) -> Table:
    """Read a Parquet table in small batches; a record's line is its row, counted from 1.

    Columns are read page by page, as a group of rows may be larger than the memory.
    """
    import pyarrow
    import pyarrow.parquet

    damaged = InputError(f"{file} is not readable as Parquet: fetch it again")
    try:
        table = pyarrow.parquet.ParquetFile(stream, buffer_size=_PARQUET_BUFFER, pre_buffer=False)
        groups = [table.metadata.row_group(i) for i in range(table.num_row_groups)]
    except pyarrow.ArrowException as error:
        raise damaged from error
    mean = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    rows_at_once = max(1, min(_PARQUET_BATCH, longest // max(1, mean)))

    def read_rows(columns: Columns) -> Iterator[Row | Skipped]:
        try:
            line = 0
            for batch in table.iter_batches(rows_at_once, columns=columns.names):
                for values in _texts_as_bytes(batch).to_pylist():
                    line += 1
                    if sum(len(x) for x in values.values() if isinstance(x, bytes)) > longest:
                        yield _too_long(file, line)
                        continue
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


def read_text(stream: Stream, file: str, longest: int = LONGEST) -> Iterator[Record]:
    """Yield one document a file; line ends become plain line feeds."""
    try:
        with open_text(stream, newline=None) as lines:
            text = lines.read(longest + 1)
    except UnicodeError:  # begins like UTF-16 and is not
        yield Skipped(file, 1, BROKEN_UNICODE)
    else:
        yield make_record(text, None, file, 1) if len(text) <= longest else _too_long(file)


def read_by_name(stream: Stream, file: str, longest: int = LONGEST) -> Table | Iterator[Record]:
    """Read .txt as text, .jsonl as jsonl, .tsv as tsv and everything else as csv."""
    readers: dict[str, Reader] = {".txt": read_text, ".jsonl": read_jsonl, ".tsv": read_tsv}
    return readers.get(suffix_of(file), read_csv)(stream, file, longest)
