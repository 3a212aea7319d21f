# SPDX-License-Identifier: Apache-2.0
"""Input files: finding them, opening them (plain or gzip), and walking through their records."""

import gzip
import hashlib
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedReader, RawIOBase, TextIOWrapper
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bcmb_jax.data.ingest.columns import Table
from bcmb_jax.data.ingest.encodings import recode
from bcmb_jax.data.ingest.record import Document, Record, Skipped
from bcmb_jax.errors import InputError, record_error
from bcmb_jax.files import sha256

log = logging.getLogger(__name__)

Stream = BufferedReader | gzip.GzipFile

LONGEST = 2**26
"""Bytes (of text characters) of a record that is read, unless another number is given."""


class Bounds(NamedTuple):
    """How much memory and time an input file may take.

    Attributes:
      record: bytes, of text characters, of a record; longer ones are left out and counted.
      expansion: how many times its size a compressed file may become, but for one record.
    """

    record: int = LONGEST
    expansion: int = 100


BOUNDS = Bounds()

Reader = Callable[[Stream, str, int], Table | Iterator[Record]]
"""`reader(stream, file's name, bound of a record)` returns a table, or the records of a format
without columns."""

Regroup = Callable[[Path, str | None], str | None]
"""`regroup(file, group)` returns the group that a document of that file and group shall have."""

Repeats = Callable[[Document], str | None]
"""`repeats(document)` returns why the document repeats an earlier one, or None if it is new."""

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_GZIP_MARK = b"\x1f\x8b"
_CONVERSIONS = {
    b"PK\x03\x04": "an Excel workbook or a zip archive: save it as CSV UTF-8, or unzip it",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save it as CSV UTF-8",
    b"BZh": "compressed with bzip2: bunzip2 --keep FILE",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard: zstd --decompress FILE",
    b"\xfd7zXZ\0": "compressed with xz: xz --decompress --keep FILE",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: 7z x FILE",
}
"""First bytes of files of other kinds, and how they become files that are read here."""

_CONVERTIBLE = tuple(f"*.{x}" for x in ("xlsx", "xls", "xlsm", "zip", "bz2", "zst", "xz", "7z"))
_TRAINED_ON = re.compile(r"(?<![a-z])train(ing)?(?![a-z])", re.IGNORECASE)
_HELD_OUT = re.compile(r"(?<![a-z])(dev|val|valid(ation)?|eval(uation)?|test(ing)?)(?![a-z])", re.I)


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
            others = [file.name for file in find_files(path, _CONVERTIBLE)]
            hint = f" ({len(others):,} to be converted first, as {others[0]})" if others else ""
            raise InputError(f"input folder {path} holds no {wanted} file{hint}")
        files += below
        outside = [x for x in below if not x.resolve().is_relative_to(path.resolve())]
        if outside:
            log.warning(
                "input folder %s: %d of %d files lie outside of it, behind links, the first %s at "
                "%s; they are read",
                *(path, len(outside), len(below), outside[0], outside[0].resolve()),
            )
    if not files:
        raise InputError(f"the input holds no {wanted} file")
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise InputError(f"input {file} is given more than once: its text would count twice")
        seen.add(file.resolve())
    return files


def refuse_parts(paths: Sequence[str | Path], files: Sequence[Path]) -> None:
    """Refuse folders that hold training and evaluation parts of a data set as one corpus.

    Raises:
      InputError: names of files or folders below a given folder say so.
    """
    for folder in filter(Path.is_dir, map(Path, paths)):
        inside = [x.relative_to(folder).as_posix() for x in files if x.is_relative_to(folder)]
        trained_on = [name for name in inside if _TRAINED_ON.search(name)]
        held_out = [name for name in inside if _HELD_OUT.search(name)]
        if trained_on and held_out:
            raise InputError(
                f"input folder {folder} holds parts to train on and to evaluate with "
                f"({trained_on[0]}, {held_out[0]}): name the files to be used, or add --all-parts"
            )


def open_text(stream: Stream, newline: str | None) -> TextIOWrapper:
    """Decode UTF-8, or UTF-16 with a byte order mark; undecodable bytes become lone surrogates."""
    encoding = "utf-16" if stream.peek(2)[:2] in _UTF16_MARKS else "utf-8-sig"
    return TextIOWrapper(stream, encoding, errors="surrogateescape", newline=newline)


class Lines:
    """The lines of a text, once; None for each longer than `longest`, of which nothing is kept.

    Attributes:
      characters: how many have been read.
    """

    def __init__(self, lines: TextIOWrapper, longest: int):
        self.characters = 0
        self._lines, self._longest = lines, longest

    def __iter__(self) -> Iterator[str | None]:
        with self._lines as lines:
            while line := lines.readline(self._longest + 1):
                self.characters += len(line)
                if len(line) <= self._longest:
                    yield line
                    continue
                while line and not line.endswith("\n"):
                    line = lines.readline(self._longest)
                yield None


class _Unpacked(RawIOBase):
    """The content of a gzip file, up to a bound."""

    def __init__(self, file: BufferedReader, bounds: Bounds):
        self.name = file.name  # what lies beside a file is found by it
        self._stream, self._expansion = gzip.GzipFile(fileobj=file), bounds.expansion
        self._size = os.fstat(file.fileno()).st_size
        self._bound = max(bounds.record, bounds.expansion * self._size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._stream.readinto(buffer)
        if self._stream.tell() > self._bound:
            raise InputError(
                f"input {self.name} unpacks to more than {self._expansion:,} times its "
                f"{self._size:,} bytes: if it is not a mistake, allow more with --max-expansion"
            )
        return count


class Records:
    """The records of many files, in order.

    Args:
      text_column: the column (or several, joined by commas) of readers that return tables, as the
        two that follow; `skip_column` marks records to be left out.
      regroup: changes the group of every document.
      unique: makes, for each reading, the function that tells repeated documents.
      encoding: of all files; None has it recognised.
      bounds: of a record's length and of a file's expansion.
      beside: files that are read with them and hold no records of their own.
    """

    def __init__(
        self,
        files: Sequence[Path],
        reader: Reader,
        text_column: str | None = None,
        group_column: str | None = None,
        skip_column: str | None = None,
        *,
        regroup: Regroup | None = None,
        unique: Callable[[], Repeats] | None = None,
        encoding: str | None = None,
        bounds: Bounds = BOUNDS,
        beside: Sequence[Path] = (),
    ):
        self._bounds = bounds
        self._reader = reader
        self._columns = (text_column, group_column, skip_column)
        self._regroup = regroup
        self._unique = unique
        self._encoding = encoding
        self.written: dict[str, str] = {}
        """How files are written, by name, where it is not as usual; known once they were begun."""
        # Named from the lowest folder that holds all, so that names are short, distinct and the
        # same wherever that folder lies.
        absolute = [Path(os.path.abspath(file)) for file in files]
        root = os.path.commonpath([file.parent for file in absolute])
        self._files = [(file, file.relative_to(root).as_posix()) for file in absolute]
        self._sizes = [file.stat().st_size for file in absolute]
        self._beside = beside
        self._bytes_before = 0
        self._raw: BufferedReader | None = None

    @property
    def fraction(self) -> float:
        """The part of the input's bytes that has been read, 0 to 1."""
        here = self._raw.tell() if self._raw and not self._raw.closed else 0
        return (self._bytes_before + here) / max(1, sum(self._sizes))

    def digest(self) -> str:
        """Return a SHA-256 of all files that are read, by their order and content."""
        files = [*(file for file, _ in self._files), *self._beside]
        return hashlib.sha256("\n".join(map(sha256, files)).encode()).hexdigest()

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

    def tables(self) -> Iterator[Table]:
        """Yield the table of every file whose format has columns, to be read before the next."""
        for file, name in self._files:
            with self._open(file, name) as (content, _):
                if isinstance(content, Table):
                    yield content

    def _read(self, file: Path, name: str) -> Iterator[Record]:
        with self._open(file, name) as (content, place):
            if isinstance(content, Table):
                content = content.records(*self._columns)
            for record in content:
                place.line = record.line
                if self._regroup and isinstance(record, Document):
                    record = replace(record, group=self._regroup(file, record.group))
                yield record

    @contextmanager
    def _open(self, file: Path, name: str) -> Iterator[tuple[Table | Iterator[Record], "_Place"]]:
        place = _Place()
        with open(file, "rb") as self._raw:
            raw = self._raw
            begin = raw.peek(8)
            for mark, how in _CONVERSIONS.items():
                if begin.startswith(mark):
                    raise InputError(f"input {file} is {how.replace('FILE', file.name)}")
            try:
                stream = raw
                if begin[:2] == _GZIP_MARK:
                    stream = BufferedReader(_Unpacked(raw, self._bounds), 2**18)
                if self._encoding:
                    stream = recode(stream, self._encoding)
                content = self._reader(stream, name, self._bounds.record)
                if isinstance(content, Table) and content.written:
                    self.written[name] = content.written
                yield content, place
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                where = " after this line" if place.line else ""
                what = f"damaged or incomplete gzip file{where}: fetch it again or leave it out"
                raise record_error(file, place.line, what) from error
            except UnicodeError as error:
                encoding = self._encoding or "the encoding it begins with"
                what = (
                    f"bytes after this line are not {encoding}: save the file as UTF-8, or name "
                    "another with --encoding"
                )
                raise record_error(file, place.line, what) from error


@dataclass
class _Place:
    """Where in its file the reading stands."""

    line: int = 0
