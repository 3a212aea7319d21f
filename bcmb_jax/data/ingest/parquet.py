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
            for values in batch.to_pylist():
                row += 1
                yield columns.record(values, file, row)
    except pyarrow.ArrowException as error:
        raise InputError(f"{file} is not readable as Parquet: fetch it again") from error
