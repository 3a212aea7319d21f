# SPDX-License-Identifier: Apache-2.0
"""Read the files of a task's folder, turn label names into indices, and split examples.

A record that cannot be used is an error, not one document less: a test set with rows missing is
another test set.
"""

import contextlib
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np

from bcmb_jax.data.ingest.columns import Table, choose_columns
from bcmb_jax.data.ingest.delimited import read_delimited
from bcmb_jax.data.ingest.files import Stream, matches, open_text
from bcmb_jax.data.ingest.formats import read_jsonl, read_parquet
from bcmb_jax.data.ingest.header import describe
from bcmb_jax.data.ingest.record import BROKEN_UNICODE, Document, Skipped
from bcmb_jax.errors import InputError, record_error
from bcmb_jax.evaluation.examples import Dataset, Example, Kind

T = TypeVar("T")
SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("dev", "devel", "validation", "valid", "val"),
    "test": ("test",),
}
FEWEST = 4  # examples that can be split 70/15/15
SEED = 42  # of every split, whatever the seed of the training
MOST_FILES, MOST_LABELS = 8, 20  # named in a message


def find(
    directory: str | Path, stems: Sequence[str], suffixes: Sequence[str], hint: str = ""
) -> Path:
    """Return the one file with such a name, plain or `.gz`; `InputError` says what is there."""
    directory = _folder(directory)
    names = [stem + suffix + gz for stem in stems for suffix in suffixes for gz in ("", ".gz")]
    files = [directory / name for name in names if (directory / name).is_file()]
    if len(files) > 1:
        both = ", ".join(file.name for file in files)
        raise InputError(f"data folder {directory} holds {both}: keep the one that is meant")
    if not files:
        wanted = f"{' or '.join(stems)} as {' or '.join(suffixes)} (or .gz)"
        content = _content(directory) + (hint and ": ") + hint
        raise InputError(f"data folder {directory} holds no {wanted}; {content}")
    return files[0]


def find_splits(directory: str | Path, suffixes: Sequence[str], hint: str = "") -> dict[str, Path]:
    """Return the file of each split, under any of its usual names."""
    return {split: find(directory, stems, suffixes, hint) for split, stems in SPLIT_NAMES.items()}


def find_all(directory: str | Path, pattern: str) -> list[Path]:
    """Return the files that match and lie in the folder itself, sorted by name; at least one."""
    directory = _folder(directory)
    files = sorted(file for file in directory.glob(pattern) if file.is_file())
    if not files:
        raise InputError(f"data folder {directory} holds no {pattern}; {_content(directory)}")
    return files


def _folder(directory: str | Path) -> Path:
    directory = Path(directory)
    if not directory.is_dir():
        state = "is a file, not a folder" if directory.exists() else "does not exist"
        raise InputError(f"data folder {directory} {state}: --data is the folder of the task")
    return directory


def _content(directory: Path) -> str:
    names = sorted(entry.name + "/" * entry.is_dir() for entry in directory.iterdir())
    return f"it holds {list_names(names) or 'nothing'}"


def list_names(names: Sequence[str]) -> str:
    """List the first names of files for a message, and count the others."""
    more = f" and {len(names) - MOST_FILES:,} more" if len(names) > MOST_FILES else ""
    return ", ".join(names[:MOST_FILES]) + more


def place(file: str | Path, line: int) -> str:
    """Name a line of a file, as `Example.where`."""
    return f"{file}, line {line}"


def _refuse(path: Path, line: int, reason: str) -> NoReturn:
    if reason == BROKEN_UNICODE:
        raise record_error(path, line, "bytes that are not UTF-8: save the file as UTF-8")
    raise record_error(path, line, f"{reason}: mend the row or take it out")


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Stream]:
    """Open a file, plain or gzip."""
    with path.open("rb") as raw:
        is_gzip = raw.peek(2)[:2] == b"\x1f\x8b"
        try:
            yield gzip.GzipFile(fileobj=raw) if is_gzip else raw
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"input {path} is a damaged or incomplete gzip file: fetch it again"
            ) from error
        except UnicodeDecodeError as error:
            raise InputError(f"input {path} is not valid UTF-16: save it as UTF-8") from error


def read_text(path: Path, newline: str | None = None) -> str:
    """Return the text of a file, plain or gzip; line ends become line feeds unless `newline=""`."""
    with _open(path) as stream, open_text(stream, newline=newline) as lines:
        text = lines.read()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        _refuse(path, text.count("\n", 0, error.start) + 1, BROKEN_UNICODE)
    return text


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file without their ends, numbered from 1; blank ones too."""
    return enumerate(read_text(path).split("\n"), start=1)


def load_json(path: Path) -> Any:
    """Return the one JSON value that a file holds."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise record_error(path, error.lineno, "not JSON", column=error.colno) from error


class Row(NamedTuple):
    """A row of a table: its text, and its values by column."""

    file: Path
    line: int
    text: str
    values: Mapping[str, Any]

    def cell(self, column: str) -> str:
        """Return the value of a column as text; empty if there is none."""
        value = self.values.get(column)
        if isinstance(value, list):  # as jsonl and Parquet may have several labels
            return ";".join(map(str, value))
        return "" if value is None else str(value)

    def example(self, labels: Sequence[str], names: Sequence[str], hint: str = "") -> Example:
        """Make the row's example with the labels of these names, which may repeat."""
        indices = label_indices(labels, names, self.file, self.line, hint)
        return Example(place(self.file.name, self.line), self.text, tuple(sorted(set(indices))))


def read_columns(path: Path, delimiter: str | None, needed: Sequence[str] = ()) -> list[str]:
    """Return the columns of a csv, tsv or (`delimiter=None`) jsonl or Parquet; check the needed.

    These may differ in case; they are returned as `needed` writes them.
    """
    table = read_head(path, delimiter)
    names = list(table.names or ())
    spelled = dict(zip(names, names, strict=True))
    for name in needed:
        plain = [x for x in names if x.strip().casefold() == name.casefold()]
        found = [x for x in names if x == name] or plain
        if not found:
            raise InputError(
                f"{list_columns(path, table, needed)}: none is {name!r}, and {', '.join(needed)} "
                "are needed"
            )
        if len(found) > 1:
            raise record_error(path, 1, f"two columns {name!r}: rename one of them")
        spelled[found[0]] = name
    return [spelled[name] for name in names]


def read_head(path: Path, delimiter: str | None) -> Table:
    """Return a table whose columns and first rows are known; its rows can no longer be read."""
    with _open_table(path, delimiter) as table:
        return table


def list_columns(path: Path, table: Table, asked: Sequence[str] = ()) -> str:
    """Return a clause that says what columns a table has, as `header.describe` may."""
    return describe(table.names or (), table.below, str(path), asked)


def read_table(
    path: Path, text: str | None, needed: Sequence[str], delimiter: str | None = "\t"
) -> list[Row]:
    """Read the rows of a csv or tsv with a header line, or of jsonl or Parquet (`delimiter=None`).

    Args:
      text: the column of texts, several with commas, or None for the one with a usual name.
      needed: columns that must be there.

    Raises:
      InputError: a column is missing, a row cannot be used, or there is none.
    """
    names = read_columns(path, delimiter, needed)
    rows = []
    with _open_table(path, delimiter) as table:
        spelled = dict(zip(table.names or (), names, strict=True))
        columns = choose_columns(table.names or (), text, None, str(path), table.below)
        others = [name for name in spelled if spelled[name] in needed]
        for row in table.rows(replace(columns, text=(*columns.text, *others))):
            record = row if isinstance(row, Skipped) else columns.record(row)
            if isinstance(record, Skipped):
                _refuse(path, record.line, record.reason)
            assert isinstance(record, Document)
            assert not isinstance(row, Skipped)
            values = {spelled.get(name, name): value for name, value in row.values.items()}
            rows.append(Row(path, row.line, record.text, values))
    if not rows:
        raise InputError(f"{path} holds no row")
    return rows


@contextlib.contextmanager
def _open_table(path: Path, delimiter: str | None) -> Iterator[Table]:
    with _open(path) as stream:
        if matches(path, ["*.parquet"]):
            yield read_parquet(stream, str(path))
        elif delimiter is None:
            yield read_jsonl(stream, str(path))
        else:
            yield read_delimited(stream, str(path), delimiter=delimiter)


def label_indices(
    labels: Sequence[str], names: Sequence[str], file: str | Path, line: int, hint: str = ""
) -> list[int]:
    """Return the indices of label names; `InputError` for a name that is no label."""
    index = {label: i for i, label in enumerate(labels)}
    for name in names:
        if name not in index:
            what = unknown_label(name, labels) + (f": {hint}" if hint else "")
            raise record_error(file, line, what)
    return [index[name] for name in names]


def unknown_label(name: str, labels: Sequence[str]) -> str:
    """Return a clause about a name that is none of the labels; only they are in it."""
    known = ", ".join(labels[:MOST_LABELS]) + ", …" * (len(labels) > MOST_LABELS)
    if not name:
        return f"no label where one of {known} is expected"
    return f"a label of {len(name):,} characters that is none of {known}"


def bio_tags(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return B- of every kind, I- of every kind, and O."""
    ordered = sorted(set(kinds))
    return (*(f"B-{kind}" for kind in ordered), *(f"I-{kind}" for kind in ordered), "O")


def dataset(
    kind: Kind,
    labels: tuple[str, ...],
    splits: Mapping[str, Sequence[Example]],
    notes: Sequence[str] = (),
) -> Dataset:
    """Make a dataset; if validation or test have labels that training lacks, a note says so."""
    present = {split: {i for e in examples for i in e.labels} for split, examples in splits.items()}
    if missing := sorted(set().union(*present.values()) - present["train"]):
        names = ", ".join(labels[i] for i in missing)
        notes = (*notes, f"training has no example of {names}, which validation or test have")
    return Dataset(kind, labels, splits, tuple(notes))


def note_counts(counts: Mapping[str, int]) -> list[str]:
    """Return a note for each count that is not zero."""
    return [f"{count:,} {what}" for what, count in counts.items() if count]


def split_permuted(items: Sequence[T], test_size: float) -> tuple[list[T], list[T]]:
    """Split as `datasets.Dataset.train_test_split(test_size, seed=42)`, in the same order."""
    test = _test_count(items, test_size)
    order = np.random.default_rng(SEED).permutation(len(items))
    return [items[i] for i in order[test:]], [items[i] for i in order[:test]]


def split_shuffled(items: Sequence[T], test_size: float) -> tuple[list[T], list[T]]:
    """Split as scikit-learn's `train_test_split(items, test_size=…, random_state=42)`."""
    from sklearn.model_selection import train_test_split  # takes a second to import

    _test_count(items, test_size)
    train, test = train_test_split(list(items), test_size=test_size, random_state=SEED)
    return train, test


def split_seventy_fifteen_fifteen(
    items: Sequence[T],
    split: Callable[[Sequence[T], float], tuple[list[T], list[T]]] = split_permuted,
) -> dict[str, list[T]]:
    """Hold out 30 %, and halve these into validation and test."""
    train, rest = split(items, 0.3)
    validation, test = split(rest, 0.5)
    return {"train": train, "validation": validation, "test": test}


def _test_count(items: Sequence[T], test_size: float) -> int:
    count = ceil(test_size * len(items))
    if not 0 < count < len(items):
        raise InputError(
            f"{len(items)} examples are too few to hold out {test_size:.1%} of them: "
            "is this the whole data set?"
        )
    return count
