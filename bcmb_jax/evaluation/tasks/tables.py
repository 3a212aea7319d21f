# SPDX-License-Identifier: Apache-2.0
"""Any table with a column of text and one of labels."""

from pathlib import Path

from bcmb_jax.data.ingest.files import matches
from bcmb_jax.data.ingest.record import Document, choose_columns
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Kind, Task
from bcmb_jax.evaluation.splits import SEED, seventy_fifteen_fifteen
from bcmb_jax.evaluation.tasks.folder import (
    SPLIT_NAMES,
    columns,
    find_splits,
    place,
    shown,
    table,
)
from bcmb_jax.evaluation.tasks.labels import labelled, untrained

SUFFIXES = (".csv", ".tsv")
_LABEL_NAMES = ("label", "labels")
_JOIN = ";"


def read(
    directory: str | Path, text_column: str | None = None, label_column: str | None = None
) -> Dataset:
    """A folder with train, validation (or dev) and test, or with one file, which is split.

    Several labels of a row are joined by ";": with one such row (of any split) the task is
    multi-label, and a row may have none. Else every row has the one label that stands there.
    """
    only = _only_table(Path(directory))
    files = {"all": only} if only else find_splits(directory, SUFFIXES)
    rows = {split: _rows(file, text_column, label_column) for split, file in files.items()}
    kind: Kind = "single_label"
    if any(_JOIN in (row.group or "") for found in rows.values() for row in found):
        kind = "multi_label"
    # A label of the test alone cannot be learned; where the split is ours, that is only told.
    source = "all" if only else "train"
    labels = tuple(sorted({name for row in rows[source] for name in _names(row, kind)}))
    if len(labels) < 2 and kind == "single_label":
        raise InputError(
            f"{files[source]} has the one label {', '.join(labels) or '(none)'}: there is nothing "
            "to tell apart"
        )
    examples = {
        split: [_example(files[split], row, kind, labels) for row in found]
        for split, found in rows.items()
    }
    splits, notes = examples, []
    if only:
        splits = seventy_fifteen_fifteen(examples["all"])
        notes = [f"{only.name} is split 70/15/15 (seed {SEED})"]
    return Dataset(kind, labels, splits, (*notes, *untrained(labels, splits)))


def _only_table(path: Path) -> Path | None:
    if path.is_file():
        return path
    tables = [file for file in path.glob("*") if matches(file, [f"*{end}" for end in SUFFIXES])]
    split_names = {name for names in SPLIT_NAMES.values() for name in names}
    if len(tables) == 1 and tables[0].name.split(".")[0].lower() not in split_names:
        return tables[0]
    return None


def _rows(file: Path, text_column: str | None, label_column: str | None) -> list[Document]:
    delimiter = "\t" if ".tsv" in file.suffixes else ","
    names = columns(file, delimiter)
    choose_columns(names, text_column, None, str(file))
    if label_column is None:
        usual = [name for name in names if name.lower() in _LABEL_NAMES]
        if len(usual) != 1:
            raise InputError(
                f"{file} has the columns {shown(names)}: say which holds the labels with "
                "--label-column"
            )
        label_column = usual[0]
    columns(file, delimiter, label_column)
    return table(file, text_column, label_column, delimiter)


def _names(row: Document, kind: Kind) -> list[str]:
    """The labels of a row."""
    written = row.group or ""
    parts = written.split(_JOIN) if kind == "multi_label" else [written]
    return [part.strip() for part in parts if part.strip()]


def _example(file: Path, row: Document, kind: Kind, labels: tuple[str, ...]) -> Example:
    names = _names(row, kind)
    if not names and kind == "single_label":
        raise InputError(
            f"{place(file, row.line)}: no label (only where labels are joined by ';' may a row "
            "have none)"
        )
    return labelled(row, file, labels, names, "training has no example of it")


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
