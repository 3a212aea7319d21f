# SPDX-License-Identifier: Apache-2.0
"""From files to documents, all read through `read`.

`FORMATS` are files of the user's own, `SOURCES` datasets as they are distributed. A reader returns
a table, whose text and group columns `columns` chooses, or the documents of a format without them.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from bcmb_jax.data.ingest.delimited import one_letter, read_delimited
from bcmb_jax.data.ingest.encodings import check_encoding
from bcmb_jax.data.ingest.files import BOUNDS, Bounds, Reader, Records, refuse_parts
from bcmb_jax.data.ingest.record import Document, Skipped
from bcmb_jax.data.ingest.sources import ALONE, FORMATS, SOURCES, Group, Source
from bcmb_jax.errors import InputError

__all__ = ["ALONE", "FORMATS", "SOURCES", "Bounds", "Document", "Skipped", "Source", "read"]


def read(
    paths: Sequence[str | Path],
    format: str,
    text_column: str | None = None,
    group_column: str | None = None,
    skip_column: str | None = None,
    *,
    licenses: Sequence[str] = (),
    progress: Callable[..., None] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    all_parts: bool = False,
    bounds: Bounds = BOUNDS,
    check: bool = True,
) -> Records:
    """Return the records of files and folders, in order: documents, and reasons for having none.

    Args:
      format: one of `FORMATS` or `SOURCES`.
      text_column: a column, or several to be joined ("title,abstract"). Without one, a source has
        its own; for a format the only column, or the only one with a usual name, is taken.
      group_column: the column of a patient's or article's id.
      skip_column: the column that marks records to be left out; "none" overrides a source's own.
      licenses: of PMC, those of the articles to be kept, as the .json beside each says it.
      progress: called as `progress(stage, documents, fraction=…)` while PubMed's files are read
        for the first time, before the first record.
      delimiter: of csv and tsv files, a character or "tab"; None has it recognised.
      encoding: of all files; None has it recognised.
      all_parts: a folder of train and test parts is one corpus.
      bounds: of a record's length and of a file's expansion.
      check: whether a missing column is to be found at once, by the first record of every file.

    Raises:
      InputError: an input or a column does not exist.
    """
    known = {**FORMATS, **SOURCES}
    if format not in known:
        raise InputError(f"there is no source {format!r}: choose from {', '.join(known)}")
    source = known[format]
    if not source.has_columns and (text_column or group_column or skip_column):
        raise InputError(
            f"source {format} has no columns: leave out the text, group and skip column"
        )
    if licenses and format != "pmc":
        raise InputError(f"--licenses chooses among PMC's articles: leave it out for {format}")
    skip_column = skip_column or source.skip_column
    group = Group("group", column=group_column) if group_column else source.group
    files = source.find([path for path in paths if not group.is_table(Path(path))], source.files)
    if format in FORMATS and not all_parts:
        refuse_parts(paths, files)
    if encoding and format in ("parquet", "mds", "pubmed", "pmc"):
        raise InputError(f"--encoding is for tables and texts: {format} says its own")
    reader = source.reader
    if delimiter:
        if format not in ("csv", "tsv"):
            raise InputError(f"--delimiter is for csv and tsv: leave it out for {format}")
        letter = one_letter(delimiter)
        reader = partial(read_delimited, delimiter=letter, recognise=False)
    if source.make_reader:
        # Only once records are asked for: reading all files may take an hour.
        make_reader: Callable[[], Reader]
        if format == "pubmed":
            make_reader = partial(source.make_reader, files, progress, bounds=bounds)
        else:
            make_reader = partial(source.make_reader, files, progress, licenses=licenses)
        make = cache(make_reader)
        reader = lambda stream, file, longest: make()(stream, file, longest)  # noqa: E731
    records = Records(
        files,
        reader,
        text_column or source.text_column,
        group.column,
        None if skip_column == "none" else skip_column,
        regroup=group.regroup(paths),
        unique=source.unique,
        encoding=encoding and check_encoding(encoding),
        bounds=bounds,
        beside=[*group.tables(paths), *source.beside(files)],
    )
    if check and source.has_columns:
        records.check()
    return records
