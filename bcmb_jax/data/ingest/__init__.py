# SPDX-License-Identifier: Apache-2.0
"""From files to documents, all read through `read`.

`FORMATS` are files of the user's own, `SOURCES` datasets as they are distributed. A reader returns
a table, whose text and group columns `columns` chooses, or the documents of a format without them.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.data.ingest.columns import Table
from bcmb_jax.data.ingest.files import Reader, Records, Stream, list_files
from bcmb_jax.data.ingest.formats import read_csv, read_jsonl, read_parquet, read_text, read_tsv
from bcmb_jax.data.ingest.mds import list_indexes, read_mds
from bcmb_jax.data.ingest.record import Document, Record, Skipped
from bcmb_jax.data.ingest.sources import ALONE, SOURCES, Group, Source
from bcmb_jax.errors import InputError

__all__ = ["ALONE", "FORMATS", "SOURCES", "Document", "Format", "Skipped", "Source", "read"]


class Format(NamedTuple):
    """A plain format: its reader, its files, whether it has columns, and a line about it."""

    reader: Reader
    suffixes: tuple[str, ...]
    has_columns: bool
    about: str
    find: Callable[[Sequence[str | Path], Sequence[str]], list[Path]] = list_files


FORMATS = {
    "csv": Format(
        read_csv,
        (".csv", ".csv.gz"),
        True,
        "comma-separated with a header line; quoted fields may hold line breaks",
    ),
    "tsv": Format(
        read_tsv,
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
    progress: Callable[..., None] | None = None,
) -> Records:
    """Return the records of files and folders, in order: documents, and reasons for having none.

    Args:
      format: one of `FORMATS` or `SOURCES`.
      text_column: a column, or several to be joined ("title,abstract"). Without one, a source has
        its own; for a format the only column, or the only one with a usual name, is taken.
      group_column: the column of a patient's or article's id.
      progress: called as `progress(stage, documents, fraction=…)` while PubMed's files are read
        for the first time, before the first record.

    Raises:
      InputError: an input or a column does not exist.
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
    progress: Callable[..., None] | None,
) -> Records:
    group = Group("group", column=group_column) if group_column else source.group
    files = source.find([path for path in paths if not group.is_table(Path(path))], source.files)
    reader = source.reader
    if source.make_reader:
        # Only once records are asked for: reading all files may take an hour.
        make = cache(partial(source.make_reader, files, progress))

        def reader(stream: Stream, file: str) -> Table | Iterator[Record]:
            return make()(stream, file)

    return Records(
        files,
        reader,
        text_column or source.text_column,
        group.column,
        regroup=group.regroup(paths),
        unique=source.unique,
    )
