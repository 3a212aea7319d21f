# SPDX-License-Identifier: Apache-2.0
"""Finding, opening and walking through input files: plain or gzip, with the way gone in bytes."""

import gzip
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BufferedReader, TextIOWrapper
from pathlib import Path, PurePosixPath
from typing import IO, Any

from bcmb_jax.data.ingest.record import REPEATED, Document, Record, Skipped, digest
from bcmb_jax.errors import InputError

Reader = Callable[[Any, str, str | None, str | None], Iterator[Record]]
"""`reader(binary stream, file's name, text column, group column)` yields its records."""

Reshape = Callable[[dict[str, Any]], dict[str, Any]]
"""`reshape(values by column)` is the values that a record is made of."""

Regroup = Callable[[Path, str | None], str | None]
"""`regroup(a document's file, its group)` is the group that it shall have."""

Repeats = Callable[[Document], str | None]
"""`repeats(document)` is why it does not count after those before it; None if it does."""

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def matches(path: Path, patterns: Sequence[str]) -> bool:
    """Whether a path ends as one of the patterns ("notes/*.json") does, case and `.gz` aside."""
    name = PurePosixPath(path.as_posix().lower().removesuffix(".gz"))
    return any(name.match(pattern.lower()) for pattern in patterns)


def is_jsonl(name: str) -> bool:
    """Whether a file of this name holds a JSON object a line."""
    return matches(Path(name), ("*.jsonl",))


def find_files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files below a folder that match, sorted; hidden ones left out."""
    found = [file for file in _below(folder) if matches(file, patterns) and file.is_file()]
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def _below(folder: Path) -> Iterator[Path]:
    """Also through links to folders, each folder once."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [x for x in folders if not x.startswith(".")]
        if real not in seen:
            yield from (Path(place, x) for x in files if not x.startswith("."))
        seen.add(real)


def list_files(paths: Sequence[str | Path], patterns: Sequence[str]) -> list[Path]:
    """The files as given, and all below folders that match a pattern."""
    files: list[Path] = []
    wanted = " or ".join(pattern.removeprefix("*") for pattern in patterns)
    for path in map(Path, paths):
        if path.is_file():
            files.append(path)
        elif not path.exists():
            raise InputError(f"input {path} does not exist")
        elif below := find_files(path, patterns):
            files.extend(below)
        else:
            raise InputError(f"input folder {path} holds no {wanted} file")
    if not files:
        raise InputError(f"the input holds no {wanted} file")
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise InputError(f"input {file} is given more than once: its text would count twice")
        seen.add(file.resolve())
    return files


def open_text(stream: BufferedReader | gzip.GzipFile, newline: str | None) -> IO[str]:
    """Decodes UTF-8, or UTF-16 that says so; undecodable bytes become lone surrogates."""
    encoding = "utf-16" if stream.peek(2)[:2] in _UTF16_MARKS else "utf-8-sig"
    return TextIOWrapper(stream, encoding, errors="surrogateescape", newline=newline)


def by_text() -> Repeats:
    """A text counts only where it comes first."""
    seen: set[bytes] = set()

    def repeats(document: Document) -> str | None:
        known = digest(document.text)
        if known in seen:
            return REPEATED
        seen.add(known)
        return None

    return repeats


class Records:
    """The records of many files in order; `fraction` of their bytes have been read.

    `unique` makes, for every reading, what leaves out documents that count already.
    """

    def __init__(
        self,
        files: Sequence[Path],
        reader: Reader,
        text_column: str | None,
        group_column: str | None,
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
        """Reads the first record of every file, so that a missing column is not a late surprise."""
        for file, name in self._files:
            next(self._read(file, name), None)

    def __iter__(self) -> Iterator[Record]:
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
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            stream = gzip.GzipFile(fileobj=raw) if packed else raw
            try:
                for record in self._reader(stream, name, *self._columns):
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
