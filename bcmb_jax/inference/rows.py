# SPDX-License-Identifier: Apache-2.0
"""The rows of a table, or the texts of a folder, to be read by a model."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.data.ingest.columns import choose_columns
from bcmb_jax.data.ingest.files import Records, list_files, matches
from bcmb_jax.data.ingest.header import describe
from bcmb_jax.data.ingest.record import Document, Record, Skipped
from bcmb_jax.data.ingest.sources import FORMATS
from bcmb_jax.errors import InputError

TOKENS = "token ids, not a text"
TABLES = ("csv", "tsv", "jsonl", "parquet")
FILE = "file"
"""The id column of a folder of texts: the names of its files."""


class Row(NamedTuple):
    """A row with its number from 1 on, whatever file it is in.

    Attributes:
      text: None where there is none, for the reason `skipped`.
      name: what it is called: its id, or (texts) the file below the folder, without its suffix.
    """

    number: int
    text: str | None
    name: str = ""
    skipped: str = ""


class Rows:
    """Rows of one file, or of a folder's .txt files by name; read anew in each iteration.

    Args:
      text_column: a name, or several joined by commas; None for the one with a usual name.
      id_column: whose values name the rows; None for none.

    Raises:
      InputError: there is no such file, it is of no known format, or texts are given columns.
    """

    def __init__(self, path: Path, text_column: str | None, id_column: str | None):
        self._path, self._text, self._id = path, text_column, id_column
        formats = [x for x in (*TABLES, "text") if matches(path, FORMATS[x].files)]
        self.is_table = path.is_file() and formats != ["text"]
        if path.is_file() and not formats:
            raise InputError(f"--input {path} is none of {', '.join(TABLES)} and .txt by its name")
        if not self.is_table and (text_column or id_column not in (None, FILE)):
            raise InputError(
                f"--input {path} is text without columns: leave out --text-column, and of "
                f"--id-column give {FILE!r} or nothing"
            )
        source = FORMATS[formats[0] if self.is_table else "text"]
        self._files = list_files([path], source.files)
        self._records = Records(self._files, source.reader)
        self._fraction = 0.0

    @property
    def fraction(self) -> float:
        """The part of the input that has been read, 0 to 1."""
        self._fraction = max(self._fraction, self._records.fraction)
        return self._fraction

    def digest(self) -> str:
        """Return a SHA-256 of the files."""
        return self._records.digest()

    def __iter__(self) -> Iterator[Row]:
        self._fraction = 0.0
        yield from self._table() if self.is_table else self._texts()
        self._fraction = 1.0

    def _texts(self) -> Iterator[Row]:
        folder = self._path if self._path.is_dir() else self._path.parent
        for number, (file, record) in enumerate(zip(self._files, self._records, strict=True), 1):
            name = str(file.relative_to(folder)).removesuffix(".gz").removesuffix(".txt")
            yield _row(number, record, name)

    def _table(self) -> Iterator[Row]:
        for table in self._records.tables():  # one
            names = table.names or ()
            if self._id is not None and self._id not in names:
                listed = describe(names, table.below, table.file, [self._id])
                raise InputError(f"{listed}: none is that of --id-column")
            columns = choose_columns(names, self._text, self._id, table.file, table.below)
            for number, row in enumerate(table.rows(columns), 1):
                value = None if isinstance(row, Skipped) else row.values.get(columns.group or "")
                yield _row(number, columns.record(row), "" if value is None else str(value))


def _row(number: int, record: Record, name: str) -> Row:
    if isinstance(record, Document):
        return Row(number, record.text, name)
    return Row(number, None, name, record.reason if isinstance(record, Skipped) else TOKENS)
