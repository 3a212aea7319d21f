# SPDX-License-Identifier: Apache-2.0
"""Plain formats: csv, tsv, jsonl, JSON objects and Parquet as tables, and text."""

import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from bcmb_jax.data.ingest.columns import Columns, Row, Table
from bcmb_jax.data.ingest.delimited import read_delimited
from bcmb_jax.data.ingest.files import (
    BOUNDS,
    LONGEST,
    Lines,
    Reader,
    Stream,
    open_text,
    suffix_of,
)
from bcmb_jax.data.ingest.record import (
    BROKEN_JSON,
    BROKEN_UNICODE,
    EMPTY,
    TOO_LONG,
    Record,
    Skipped,
    make_record,
)
from bcmb_jax.errors import InputError, record_error
from bcmb_jax.files import MOST_VALUES

if TYPE_CHECKING:
    import pyarrow

_JSONL_HEAD = 100  # lines whose keys are the columns, as objects often leave out empty keys
_PARQUET_BATCH = 1024  # rows
_PARQUET_BUFFER = 2**20  # bytes of a column
_DICTIONARY_PAGE = 2  # Parquet's number of this kind of page


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
    # Each value takes some hundred bytes; texts have fewer commas.
    if text.count(",") > max(MOST_VALUES, len(text) // 16):
        return _too_long(file, line)
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
    most = max(longest, BOUNDS.expansion * stream.seek(0, os.SEEK_END))
    try:
        table = pyarrow.parquet.ParquetFile(stream, buffer_size=_PARQUET_BUFFER, pre_buffer=False)
        groups = [table.metadata.row_group(i) for i in range(table.num_row_groups)]
    except pyarrow.ArrowException as error:
        raise damaged from error

    def read_rows(columns: Columns) -> Iterator[Row | Skipped]:
        at_once = min((_rows_at_once(stream, x, columns.names, longest) for x in groups), default=1)
        try:
            line = total = 0
            for batch in table.iter_batches(at_once, columns=columns.names):
                for values in _rows(_texts_as_bytes(batch), longest):
                    line += 1
                    size = sum(len(x) for x in values.values() if isinstance(x, bytes | str))
                    if (total := total + size) > most:
                        what = (
                            f"more than {most:,} bytes of text up to here, {BOUNDS.expansion} "
                            "times the file's own size: write it as jsonl"
                        )
                        raise record_error(file, line, what)
                    if size > longest:
                        yield _too_long(file, line)
                        continue
                    yield Row(file, line, {name: _decode(x) for name, x in values.items()})
        except pyarrow.ArrowException as error:
            raise damaged from error

    return Table(file, table.schema_arrow.names, read_rows)


def _rows_at_once(
    stream: Stream, group: "pyarrow.parquet.RowGroupMetaData", names: Sequence[str], longest: int
) -> int:
    """Return how many rows of a group hold a few times `longest` bytes at most, at least one."""
    mean = group.total_byte_size // max(1, group.num_rows)
    rows: int = min(_PARQUET_BATCH, longest // max(1, mean))
    for chunk in map(group.column, range(group.num_columns)):
        if chunk.path_in_schema.split(".")[0] in names:
            rows = min(rows, 4 * longest // max(1, _longest_repeated(stream, chunk)))
    return max(1, rows)


def _longest_repeated(stream: Stream, chunk: "pyarrow.parquet.ColumnChunkMetaData") -> int:
    """Return how long texts may be that a chunk holds once, and many of its rows have.

    Such a text is an entry of its dictionary, whose page comes first and begins with three numbers:
    kind, size and packed size. Or rows share its beginning.
    """
    kinds, size = {*chunk.encodings}, int(chunk.total_uncompressed_size)
    stream.seek(min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset))))
    kind, unpacked = _numbers(stream.read(32), 2)
    if kind == _DICTIONARY_PAGE and "DELTA_BYTE_ARRAY" not in kinds:
        return unpacked
    return size if kinds & {"PLAIN_DICTIONARY", "RLE_DICTIONARY", "DELTA_BYTE_ARRAY"} else 0


def _numbers(data: bytes, count: int) -> list[int]:
    """Return the first numbers of a structure in Thrift's compact form, 0 for what is not there."""
    found, place = [0] * count, 0
    for index in range(count):
        if data[place : place + 1] != b"\x15":  # the next field, a number of 32 bits
            break
        value, shift = 0, 0
        for byte in data[place + 1 : place + 6]:
            place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        place, found[index] = place + 1, value >> 1  # none is negative
    return found


def _texts_as_bytes(batch: "pyarrow.RecordBatch") -> "pyarrow.RecordBatch":
    """Return a pyarrow batch without strings: pyarrow stops at one that is not UTF-8."""
    import pyarrow

    kinds = {pyarrow.string(): pyarrow.binary(), pyarrow.large_string(): pyarrow.large_binary()}
    arrays = [x.cast(kinds[x.type]) if x.type in kinds else x for x in batch.columns]
    return pyarrow.record_batch(arrays, names=batch.schema.names)


def _rows(batch: "pyarrow.RecordBatch", longest: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a pyarrow batch, of a large one without a copy of all."""
    if batch.nbytes <= longest:
        yield from batch.to_pylist()
    else:
        yield from chain.from_iterable(batch.slice(i, 1).to_pylist() for i in range(len(batch)))


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
