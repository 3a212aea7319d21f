# SPDX-License-Identifier: Apache-2.0
"""The files of a task's folder: found by name, and read whole, by line or as a table, or refused.

They are read by `bcmb_jax.data.ingest`; here a record that cannot be used is an error, not one
document less: a test set with rows missing is another test set.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from bcmb_jax.data.ingest.delimited import read_delimited
from bcmb_jax.data.ingest.files import Reader, Records, open_text
from bcmb_jax.data.ingest.jsonl import read_jsonl
from bcmb_jax.data.ingest.record import BROKEN_UNICODE, Document, Record, Skipped
from bcmb_jax.errors import InputError

SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("dev", "devel", "validation", "valid", "val"),
    "test": ("test",),
}
_MOST_SHOWN = 8
_LONGEST_NAME = 60  # a longer one is a record's text, which must not be shown


def find(directory: str | Path, stems: Sequence[str], suffixes: Sequence[str]) -> Path:
    """The one file with such a name, plain or `.gz`; `InputError` says what is there instead."""
    directory = _folder(directory)
    names = [stem + suffix + gz for stem in stems for suffix in suffixes for gz in ("", ".gz")]
    found = [directory / name for name in names if (directory / name).is_file()]
    if len(found) > 1:
        both = ", ".join(file.name for file in found)
        raise InputError(f"data folder {directory} holds {both}: keep the one that is meant")
    if not found:
        wanted = f"{' or '.join(stems)} as {' or '.join(suffixes)} (or .gz)"
        raise InputError(f"data folder {directory} holds no {wanted}; {_holds(directory)}")
    return found[0]


def find_splits(directory: str | Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The file of each split, by the names that people give them."""
    return {split: find(directory, stems, suffixes) for split, stems in SPLIT_NAMES.items()}


def find_all(directory: str | Path, pattern: str) -> list[Path]:
    """The files of a folder itself that match, sorted by name; at least one."""
    directory = _folder(directory)
    files = sorted(file for file in directory.glob(pattern) if file.is_file())
    if not files:
        raise InputError(f"data folder {directory} holds no {pattern}; {_holds(directory)}")
    return files


def _folder(directory: str | Path) -> Path:
    directory = Path(directory)
    if not directory.is_dir():
        state = "is a file, not a folder" if directory.exists() else "does not exist"
        raise InputError(f"data folder {directory} {state}: --data is the folder of the task")
    return directory


def _holds(directory: Path) -> str:
    names = sorted(entry.name + "/" * entry.is_dir() for entry in directory.iterdir())
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return f"it holds {', '.join(names[:_MOST_SHOWN]) or 'nothing'}{more}"


def place(file: str | Path, line: int) -> str:
    """Where something stands, for messages."""
    return f"{file}, line {line}"


def _refuse(path: Path, line: int, reason: str) -> NoReturn:
    told = f"{reason}: mend the row or take it out"
    if reason == BROKEN_UNICODE:
        told = "bytes that are not UTF-8: save the file as UTF-8"
    raise InputError(f"{place(path, line)}: {told}")


def _read_whole(stream: Any, file: str, *_: str | None) -> Iterator[Record]:
    with open_text(stream, newline=None) as lines:
        yield Document(lines.read(), None, file, 1)


def _read_head(stream: Any, file: str, *_: str | None) -> Iterator[Record]:
    with open_text(stream, newline=None) as lines:
        yield Document(lines.readline(), None, file, 1)


def _one(path: Path, reader: Reader) -> str:
    document = next(iter(Records([path], reader, None, None)))
    assert isinstance(document, Document)
    try:
        document.text.encode()
    except UnicodeEncodeError as error:
        _refuse(path, document.text.count("\n", 0, error.start) + 1, BROKEN_UNICODE)
    return document.text


def whole(path: Path) -> str:
    """A file's text; line ends become plain line feeds."""
    return _one(path, _read_whole)


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """A file's lines without their ends, numbered from 1; blank ones too."""
    return enumerate(whole(path).split("\n"), start=1)


def load_json(path: Path) -> Any:
    """A file that is one JSON value."""
    try:
        return json.loads(whole(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{place(path, error.lineno)}: not JSON ({error.msg})") from error


def _split_header(line: str, delimiter: str | None) -> list[str]:
    if delimiter is not None:
        return next(csv.reader([line.rstrip("\n")], delimiter=delimiter), [])
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    return list(value) if isinstance(value, dict) else []


def shown(names: Sequence[str]) -> str:
    """The names of columns, for messages."""
    short = (n if len(n) <= _LONGEST_NAME else f"<{len(n):,} characters>" for n in names)
    return ", ".join(short) or "none"


def columns(path: Path, delimiter: str | None, *needed: str) -> list[str]:
    """The names of a table's columns (or of the keys of jsonl, `delimiter=None`), if all that are
    needed are there."""
    names = _split_header(_one(path, _read_head), delimiter)
    for name in needed:
        if name not in names:
            raise InputError(
                f"{place(path, 1)}: no column {name!r} among {shown(names)}: "
                f"expected {', '.join(needed)}"
            )
    return names


def table(
    path: Path,
    text: str | None,
    label: str,
    delimiter: str | None = "\t",
    reshape: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: values,
) -> list[Document]:
    """The rows of a table, or of jsonl (`delimiter=None`): their text, and their label as `group`.

    Quotes are those of csv. An unusable row is an `InputError`, and so is a file without rows.
    """
    reader: Reader = partial(read_jsonl, reshape=reshape)
    if delimiter is not None:
        reader = partial(read_delimited, delimiter=delimiter, reshape=reshape)
    rows: list[Document] = []
    for record in Records([path], reader, text, label):
        if isinstance(record, Skipped):
            _refuse(path, record.line, record.reason)
        assert isinstance(record, Document)
        rows.append(record)
    if not rows:
        raise InputError(f"{path} holds no row")
    return rows
