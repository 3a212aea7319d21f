# SPDX-License-Identifier: Apache-2.0
"""Plain formats: csv, tsv, jsonl, JSON objects and Parquet as tables, and text."""

import json
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from typing import Any

from bcmb_jax.data.ingest.columns import Columns, Row, Table
from bcmb_jax.data.ingest.delimited import read_delimited
from bcmb_jax.data.ingest.files import Reader, Stream, open_text, suffix_of
from bcmb_jax.data.ingest.record import (
    BROKEN_JSON,
    BROKEN_UNICODE,
    EMPTY,
    Record,
    Skipped,
    make_record,
)
from bcmb_jax.errors import InputError

_JSONL_HEAD = 100  # lines whose keys are the columns, as objects often leave out empty keys
_PARQUET_BATCH = 1024  # rows


read_csv = partial(read_delimited, delimiter=",")
read_tsv = partial(read_delimited, delimiter="\t")


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

    def read_rows(columns: Columns) -> Iterator[Row | Skipped]:
        wanted = {name.casefold(): name for name in columns.names}
        try:
            with open_text(stream, newline="\n") as lines:
                row = _parse_object(lines.read(), file, 1)
            if isinstance(row, Row):
                values = {wanted.get(name.casefold(), name): x for name, x in row.values.items()}
                row = row._replace(values=values)
            yield row
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
