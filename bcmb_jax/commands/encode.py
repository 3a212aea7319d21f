# SPDX-License-Identifier: Apache-2.0
"""Turn texts into vectors."""

import argparse
import io
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

import conversion
from bcmb_jax.commands.predict import answers, facts_of
from bcmb_jax.files import new_file
from bcmb_jax.inference.journal import journal
from bcmb_jax.inference.rows import Row, Rows
from bcmb_jax.terminal import say_next

HEADER = 128  # bytes before the vectors of an .npy file, as numpy writes them
ROWS_AT_ONCE = 1024  # of a Parquet file


def main(options: argparse.Namespace) -> None:
    """Write the vectors."""
    model = conversion.from_pretrained(
        options.model,
        "encoder",
        precision=options.precision,
        online=options.online,
        hub_token_file=options.hub_token_file,
    )
    rows = Rows(options.input, options.text_column, options.id_column)

    def each(texts: Iterator[str]) -> Iterator[np.ndarray]:
        return model.encode_each(texts, options.pooling, normalize=options.normalize)

    if options.output.suffix.lower() == ".npy":
        parts = ("text_column", "pooling", "normalize")
        facts = facts_of(model, rows, [str(getattr(options, name)) for name in parts])
        count = write_npy(options.output, facts, rows, each, model.config.hidden_size)
    else:
        count = write_parquet(options.output, answers(rows, each), bool(options.id_column))
    print(f"written: {options.output}, {count:,} vectors of {model.config.hidden_size:,} numbers")
    say_next("read {} with numpy.load or pyarrow.parquet.read_table", options.output)


def write_npy(
    file: Path,
    facts: Mapping[str, str],
    rows: Rows,
    each: Callable[[Iterator[str]], Iterator[np.ndarray]],
    width: int,
) -> int:
    """Write an array `[rows, width]`, or go on with one that was begun, and return its rows."""
    nothing = np.full(width, np.nan, np.float32)

    def complete(out: BinaryIO) -> None:
        header = io.BytesIO()
        shape = {"descr": "<f4", "fortran_order": False, "shape": (kept.rows, width)}
        np.lib.format.write_array_header_1_0(header, shape)
        assert len(header.getvalue()) == HEADER
        out.seek(0)
        out.write(header.getvalue())

    with journal(file, facts, complete=complete) as kept:
        if not kept.rows:
            kept.add(bytes(HEADER), 0)
        for _, vector in answers(rows, each, kept.rows, kept.commit):
            kept.add((nothing if vector is None else vector).astype("<f4").tobytes())
        kept.commit()
    return kept.rows


def write_parquet(file: Path, found: Iterator[tuple[Row, np.ndarray | None]], with_id: bool) -> int:
    """Write a table of rows and their vectors, whole or not at all, and return its rows."""
    import pyarrow
    import pyarrow.parquet

    fields = {"row": pyarrow.int64()} | ({"id": pyarrow.string()} if with_id else {})
    schema = pyarrow.schema(fields | {"vector": pyarrow.list_(pyarrow.float32())})
    count = 0
    with new_file(file) as out, pyarrow.parquet.ParquetWriter(out, schema) as writer:
        while batch := [*islice(found, ROWS_AT_ONCE)]:
            columns = {
                "row": [row.number for row, _ in batch],
                "id": [row.name for row, _ in batch],
                "vector": [vector for _, vector in batch],
            }
            writer.write_batch(
                pyarrow.record_batch([columns[name] for name in schema.names], schema=schema)
            )
            count += len(batch)
    return count
