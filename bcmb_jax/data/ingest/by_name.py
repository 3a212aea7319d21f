# SPDX-License-Identifier: Apache-2.0
"""Sources whose files are of several plain formats: the name says which."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from bcmb_jax.data.ingest.delimited import read_delimited
from bcmb_jax.data.ingest.files import Reshape
from bcmb_jax.data.ingest.jsonl import read_jsonl
from bcmb_jax.data.ingest.record import Record
from bcmb_jax.data.ingest.text import read_text


def read_by_name(
    stream: Any,
    file: str,
    text_column: str | None,
    group_column: str | None,
    *,
    reshape: Reshape = lambda values: values,
) -> Iterator[Record]:
    """Reads text, which has no columns, jsonl or tsv, and everything else as csv."""
    suffix = PurePosixPath(file.lower().removesuffix(".gz")).suffix
    if suffix == ".txt":
        return read_text(stream, file, text_column, group_column)
    if suffix == ".jsonl":
        return read_jsonl(stream, file, text_column, group_column, reshape=reshape)
    delimiter = "\t" if suffix == ".tsv" else ","
    return read_delimited(
        stream, file, text_column, group_column, delimiter=delimiter, reshape=reshape
    )
