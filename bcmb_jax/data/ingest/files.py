# SPDX-License-Identifier: Apache-2.0
"""Input files: finding them, opening them (plain or gzip), and walking through their records."""

import gzip
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BufferedReader, TextIOWrapper
from pathlib import Path, PurePosixPath

from bcmb_jax.data.ingest.columns import Table
from bcmb_jax.data.ingest.record import Document, Record, Skipped
from bcmb_jax.errors import InputError

Stream = BufferedReader | gzip.GzipFile

Reader = Callable[[Stream, str], Table | Iterator[Record]]
"""`reader(stream, file's name)` returns a table, or the records of a format without columns."""

Regroup = Callable[[Path, str | None], str | None]
"""`regroup(file, group)` returns the group that a document of that file and group shall have."""

Repeats = Callable[[Document], str | None]
"""`repeats(document)` returns why the document repeats an earlier one, or None if it is new."""

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_GZIP_MARK = b"\x1f\x8b"


def matches(path: Path, patterns: Sequence[str]) -> bool:
    """Return whether a path ends like a pattern ("notes/*.json"), without case and `.gz`."""
    name = PurePosixPath(path.as_posix().lower().removesuffix(".gz"))
    return any(name.match(pattern.lower()) for pattern in patterns)


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case, without `.gz`."""
    return PurePosixPath(name.lower().removesuffix(".gz")).suffix


def find_files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files below a folder that match, sorted; hidden ones left out.

    Links to folders are followed, but each folder is entered once.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(place, name) for name in files if not name.startswith("."))
        found += [path for path in paths if matches(path, patterns) and path.is_file()]
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def list_files(paths: Sequence[str | Path], patterns: Sequence[str]) -> list[Path]:
    """Return the files that were given, and those below given folders that match a pattern.

    Raises:
      InputError: a path does not exist, holds no file, or is given twice.
    """
    files: list[Path] = []
    wanted = " or ".join(pattern.removeprefix("*") for pattern in patterns)
    for path in map(Path, paths):
        below = [path] if path.is_file() else find_files(path, patterns)
        if not path.exists():
            raise InputError(f"input {path} does not exist")
        if not below:
            raise InputError(f"input folder {path} holds no {wanted} file")
        files += below
    if not files:
        raise InputError(f"the input holds no {wanted} file")
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise InputError(f"input {file} is given more than once: its text would count twice")
        seen.add(file.resolve())
    return files


def open_text(stream: Stream, newline: str | None) -> TextIOWrapper:
    """Decode UTF-8, or UTF-16 with a byte order mark; undecodable bytes become lone surrogates."""
    encoding = "utf-16" if stream.peek(2)[:2] in _UTF16_MARKS else "utf-8-sig"
    return TextIOWrapper(stream, encoding, errors="surrogateescape", newline=newline)


class Records:
    """The records of many files, in order.

    Args:
      text_column: the column (or several, joined by commas) of readers that return tables.
      regroup: changes the group of every document.
      unique: makes, for each reading, the function that tells repeated documents.
    """

    def __init__(
        self,
        files: Sequence[Path],
        reader: Reader,
        text_column: str | None = None,
        group_column: str | None = None,
        *,
        regroup: Regroup | None = None,
        unique: Callable[[], Repeats] | None = None,
    ):
        self._reader = reader
        self._columns = (text_column, group_column)
        self._regroup = regroup
        self._unique = unique
        # Named from the lowest folder that holds all, so that names are short, distinct and the
        # same wherever that folder lies.
        absolute = [Path(os.path.abspath(file)) for file in files]
        root = os.path.commonpath([file.parent for file in absolute])
        self._files = [(file, file.relative_to(root).as_posix()) for file in absolute]
        self._sizes = [file.stat().st_size for file in absolute]
        self._bytes_before = 0
        self._raw: BufferedReader | None = None

    @property
    def fraction(self) -> float:
        """The part of the input's bytes that has been read, 0 to 1."""
        here = self._raw.tell() if self._raw and not self._raw.closed else 0
        return (self._bytes_before + here) / max(1, sum(self._sizes))

    def check(self) -> None:
        """Read the first record of every file, so that a missing column is found at once."""
        for file, name in self._files:
            next(self._read(file, name), None)

    def __iter__(self) -> Iterator[Record]:
        """Yield a document, or the reason why there is none, for every record."""
        self._bytes_before = 0
        repeats = self._unique() if self._unique else lambda document: None
        for (file, name), size in zip(self._files, self._sizes, strict=True):
            for record in self._read(file, name):
                if isinstance(record, Document) and (reason := repeats(record)):
                    record = Skipped(record.file, record.line, reason)
                yield record
            self._bytes_before += size

    def _read(self, file: Path, name: str) -> Iterator[Record]:
        line = 0
        with open(file, "rb") as self._raw:
            raw = self._raw
            packed = raw.peek(2)[:2] == _GZIP_MARK
            try:
                content = self._reader(gzip.GzipFile(fileobj=raw) if packed else raw, name)
                if isinstance(content, Table):
                    content = content.records(*self._columns)
                for record in content:
                    line = record.line
                    if self._regroup and isinstance(record, Document):
                        record = replace(record, group=self._regroup(file, record.group))
                    yield record
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise InputError(
                    f"input {file} is a damaged or incomplete gzip file (after line {line}): "
                    "fetch it again or leave it out"
                ) from error
            except UnicodeError as error:
                raise InputError(
                    f"input {file} holds bytes after line {line} that are not the encoding it "
                    "begins with: save it as UTF-8"
                ) from error
