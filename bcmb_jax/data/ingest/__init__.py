# SPDX-License-Identifier: Apache-2.0
"""From files to documents: one short module per source format, all read through `read`.

`FORMATS` are files of the user's own, `SOURCES` datasets as they are distributed.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from bcmb_jax.data.ingest.delimited import read_delimited
from bcmb_jax.data.ingest.files import Reader, Records, list_files
from bcmb_jax.data.ingest.groups import Group
from bcmb_jax.data.ingest.jsonl import read_jsonl
from bcmb_jax.data.ingest.mds import read_mds
from bcmb_jax.data.ingest.mds_index import list_indexes
from bcmb_jax.data.ingest.parquet import read_parquet
from bcmb_jax.data.ingest.record import Document, Record, Skipped
from bcmb_jax.data.ingest.source import Source
from bcmb_jax.data.ingest.sources import SOURCES
from bcmb_jax.data.ingest.text import read_text
from bcmb_jax.data.progress import Progress, silent
from bcmb_jax.errors import InputError

__all__ = ["FORMATS", "SOURCES", "Document", "Format", "Skipped", "Source", "read"]


class Format(NamedTuple):
    """How one plain format is read: its files, whether it has columns, and a line about it."""

    reader: Reader
    suffixes: tuple[str, ...]
    has_columns: bool
    about: str
    find: Callable[[Sequence[str | Path], Sequence[str]], list[Path]] = list_files


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
    "mds": Format(
        read_mds,
        ("index.json",),
        True,
        "MosaicML streaming's shards, plain or compressed; token columns stay the tokens they are",
        list_indexes,
    ),
    "text": Format(
        read_text, (".txt", ".txt.gz"), False, "one document a file, UTF-8 or UTF-16 with a BOM"
    ),
}


def read(
    paths: Sequence[str | Path],
    format: str,
    text_column: str | None = None,
    group_column: str | None = None,
    progress: Progress = silent,
) -> Records:
    """Iterates over a `Document` or a `Skipped` for every record of files and folders, in order.

    `format` is one of `FORMATS` or `SOURCES`. `text_column` may join several ("title,abstract");
    without one, a source has its own, and of a format an only column or an only one with a usual
    name is taken. `progress` is of what is read before the first record, if anything is. Raises
    `InputError` at once if an input or a column does not exist.
    """
    if format not in {**FORMATS, **SOURCES}:
        raise InputError(
            f"there is no source {format!r}: choose from {', '.join([*FORMATS, *SOURCES])}"
        )
    known = FORMATS.get(format) or SOURCES[format]
    if not known.has_columns and (text_column or group_column):
        raise InputError(f"source {format} has no columns: leave out the text and group column")
    if isinstance(known, Source):
        records = _read_source(paths, known, text_column, group_column, progress)
    else:
        files = known.find(paths, [f"*{suffix}" for suffix in known.suffixes])
        records = Records(files, known.reader, text_column, group_column)
    if known.has_columns:
        records.check()
    return records


def _read_source(
    paths: Sequence[str | Path],
    source: Source,
    text_column: str | None,
    group_column: str | None,
    progress: Progress,
) -> Records:
    group = Group("group", column=group_column) if group_column else source.group
    texts = [path for path in paths if not group.holds(Path(path))]
    files = source.find(texts, source.files)
    return Records(
        files,
        partial(_read_after, cache(partial(source.reader_of, files, progress)))
        if source.reader_of
        else source.reader,
        text_column or source.text_column,
        group.column,
        regroup=group.regroup(paths),
        unique=source.unique,
    )


def _read_after(make: Callable[[], Reader], *arguments: Any) -> Iterator[Record]:
    """With a reader that sees all files, only once records are asked for: that may take an hour."""
    return make()(*arguments)
