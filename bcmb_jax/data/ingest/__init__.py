# SPDX-License-Identifier: Apache-2.0
"""From files to documents: one short module per source format, all read through `read`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.data.ingest.delimited import read_delimited
from bcmb_jax.data.ingest.files import Reader, Records, list_files
from bcmb_jax.data.ingest.jsonl import read_jsonl
from bcmb_jax.data.ingest.parquet import read_parquet
from bcmb_jax.data.ingest.record import Document, Skipped
from bcmb_jax.data.ingest.text import read_text
from bcmb_jax.errors import InputError

__all__ = ["FORMATS", "Document", "Format", "Skipped", "read"]


class Format(NamedTuple):
    """How one source is read: its files, its columns, and a line about it."""

    reader: Reader
    suffixes: tuple[str, ...]
    has_columns: bool
    about: str


FORMATS = {
    "csv": Format(
        partial(read_delimited, delimiter=","),
        (".csv", ".csv.gz"),
        True,
        "comma-separated with a header line; quoted fields may hold line breaks",
    ),
    "tsv": Format(
        partial(read_delimited, delimiter="\t"),
        (".tsv", ".tsv.gz"),
        True,
        "tab-separated with a header line; quoted as csv is",
    ),
    "jsonl": Format(
        read_jsonl, (".jsonl", ".jsonl.gz"), True, "one JSON object a line; its keys are columns"
    ),
    "parquet": Format(read_parquet, (".parquet",), True, "Parquet tables"),
    "text": Format(
        read_text, (".txt", ".txt.gz"), False, "one document a file, UTF-8 or UTF-16 with a BOM"
    ),
}


def read(
    paths: Sequence[str | Path],
    format: str,
    text_column: str | None = None,
    group_column: str | None = None,
) -> Records:
    """Iterates over a `Document` or a `Skipped` for every record of files and folders, in order.

    `text_column` may join several ("title,abstract"); without one, an only column or an only one
    with a usual name is taken. Raises `InputError` at once if an input or a column does not exist.
    """
    if format not in FORMATS:
        raise InputError(f"there is no source {format!r}: choose from {', '.join(FORMATS)}")
    reader, suffixes, has_columns, _ = FORMATS[format]
    if not has_columns and (text_column or group_column):
        raise InputError(f"source {format} has no columns: leave out the text and group column")
    records = Records(list_files(paths, suffixes), reader, text_column, group_column)
    if has_columns:
        records.check()
    return records
