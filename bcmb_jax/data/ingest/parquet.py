# SPDX-License-Identifier: Apache-2.0
"""Parquet tables, read in small batches; a record's line is its row, counted from 1."""

from collections.abc import Iterator
from typing import Any

from bcmb_jax.data.ingest.record import Record, choose_columns
from bcmb_jax.errors import InputError

_BATCH_ROWS = 1024


def read_parquet(
    stream: Any, file: str, text_column: str | None, group_column: str | None
) -> Iterator[Record]:
    """Yields a record a row."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(stream)
        names = table.schema_arrow.names
        columns = choose_columns(names, text_column, group_column, file)
        wanted = [*columns.text, *([columns.group] if columns.group else [])]
        row = 0
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
            for values in _as_bytes(batch).to_pylist():
                row += 1
                yield columns.record(_decoded(values), file, row)
    except pyarrow.ArrowException as error:
        raise InputError(f"{file} is not readable as Parquet: fetch it again") from error


def _as_bytes(batch: Any) -> Any:
    """Its texts as bytes: one that is not UTF-8 is then a broken record, not the end of reading."""
    import pyarrow

    kinds = {pyarrow.string(): pyarrow.binary(), pyarrow.large_string(): pyarrow.large_binary()}
    arrays = [x.cast(kinds[x.type]) if x.type in kinds else x for x in batch.columns]
    return pyarrow.record_batch(arrays, names=batch.schema.names)


def _decoded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: x.decode("utf-8", "surrogateescape") if isinstance(x, bytes) else x
        for name, x in values.items()
    }
