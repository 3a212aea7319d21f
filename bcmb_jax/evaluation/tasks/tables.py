# SPDX-License-Identifier: Apache-2.0
"""Any table with a column of texts and one of labels."""

from pathlib import Path

from bcmb_jax.data.ingest.columns import choose_columns
from bcmb_jax.data.ingest.files import matches
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Kind, Task
from bcmb_jax.evaluation.tasks.reading import (
    SEED,
    SPLIT_NAMES,
    Row,
    find_splits,
    label_row,
    list_columns,
    note_untrained,
    place,
    read_columns,
    read_table,
    split_seventy_fifteen_fifteen,
)

SUFFIXES = (".csv", ".tsv")
_LABEL_COLUMNS = ("label", "labels")
_SEPARATOR = ";"


def read(
    directory: str | Path, text_column: str | None = None, label_column: str | None = None
) -> Dataset:
    """Read a folder with train, validation (or dev) and test, or split its one file.

    Several labels of a row are joined by ";". With one such row (of any split) the task is
    multi-label, and a row may have none. Otherwise every row has exactly one label.
    """
    only = _only_table(Path(directory))
    files = {"all": only} if only else find_splits(directory, SUFFIXES)
    cells = {split: _read(file, text_column, label_column) for split, file in files.items()}
    several = any(_SEPARATOR in cell for rows in cells.values() for _, cell in rows)
    kind: Kind = "multi_label" if several else "single_label"
    named = {
        split: [(row, _names(cell, kind)) for row, cell in rows] for split, rows in cells.items()
    }
    # A label of the test alone cannot be learned; where the split is ours, that is only a note.
    source = "all" if only else "train"
    labels = tuple(sorted({name for _, names in named[source] for name in names}))
    if len(labels) < 2 and kind == "single_label":
        raise InputError(
            f"{files[source]} has the one label {', '.join(labels) or '(none)'}: there is nothing "
            "to tell apart"
        )
    examples = {
        split: [_example(row, names, kind, labels) for row, names in rows]
        for split, rows in named.items()
    }
    splits, notes = examples, []
    if only:
        splits = split_seventy_fifteen_fifteen(examples["all"])
        notes = [f"{only.name} is split 70/15/15 (seed {SEED})"]
    return Dataset(kind, labels, splits, (*notes, *note_untrained(labels, splits)))


def _only_table(path: Path) -> Path | None:
    if path.is_file():
        return path
    tables = [file for file in path.glob("*") if matches(file, [f"*{end}" for end in SUFFIXES])]
    split_names = {name for names in SPLIT_NAMES.values() for name in names}
    if len(tables) == 1 and tables[0].name.split(".")[0].lower() not in split_names:
        return tables[0]
    return None


def _read(file: Path, text_column: str | None, label_column: str | None) -> list[tuple[Row, str]]:
    """Return the rows of a file, each with the cell of its labels."""
    delimiter = "\t" if ".tsv" in file.suffixes else ","
    names = read_columns(file, delimiter)
    choose_columns(names, text_column, None, str(file))
    if label_column is None:
        usual = [name for name in names if name.lower() in _LABEL_COLUMNS]
        if len(usual) != 1:
            raise InputError(
                f"{file} has the columns {list_columns(names)}: say which holds the labels with "
                "--label-column"
            )
        label_column = usual[0]
    read_columns(file, delimiter, label_column)
    return [(row, row.cell(label_column)) for row in read_table(file, text_column, delimiter)]


def _names(cell: str, kind: Kind) -> list[str]:
    parts = cell.split(_SEPARATOR) if kind == "multi_label" else [cell]
    return [part.strip() for part in parts if part.strip()]


def _example(row: Row, names: list[str], kind: Kind, labels: tuple[str, ...]) -> Example:
    if not names and kind == "single_label":
        raise InputError(
            f"{place(row.file, row.line)}: no label (only where labels are joined by ';' may a "
            "row have none)"
        )
    return label_row(row, labels, names, "training has no example of it")


TASK = Task(
    "csv",
    "single_label",
    read,
    "your own labels of texts: one each, or several where a row joins them by ';'",
    "your own files",
    "train, validation (or dev) and test as .csv or .tsv (or .gz) with a header line, or one such "
    "file, of which 70 % are trained on, 15 % validate and 15 % test (seed 42)",
    options={
        "text_column": "the column of texts, or several to be joined (title,abstract)",
        "label_column": "the column of labels, if it is not called label or labels",
    },
)
