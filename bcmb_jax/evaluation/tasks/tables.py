# SPDX-License-Identifier: Apache-2.0
"""Any table with a column of texts and one of labels."""

from pathlib import Path

from bcmb_jax.data.ingest.columns import choose_columns
from bcmb_jax.data.ingest.files import matches
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Kind
from bcmb_jax.evaluation.tasks import reading
from bcmb_jax.evaluation.tasks.reading import Row

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
    files = {"train": only} if only else reading.find_splits(directory, SUFFIXES)
    rows = {split: _read(file, text_column, label_column) for split, file in files.items()}
    several = any(_SEPARATOR in cell for pairs in rows.values() for _, cell in pairs)
    kind: Kind = "multi_label" if several else "single_label"
    named = {s: [(row, _names(cell, kind)) for row, cell in rows[s]] for s in rows}
    # A label of the test alone cannot be learned; where the split is ours, that is only a note.
    labels = tuple(sorted({name for _, names in named["train"] for name in names}))
    if len(labels) < 2 and kind == "single_label":
        raise InputError(
            f"{files['train']} has the one label {', '.join(labels) or '(none)'}: there is nothing "
            "to tell apart"
        )
    examples = {s: [_example(row, names, kind, labels) for row, names in named[s]] for s in named}
    if not only:
        return reading.dataset(kind, labels, examples)
    splits = reading.split_seventy_fifteen_fifteen(examples["train"])
    note = f"{only.name} is split 70/15/15 (seed {reading.SEED})"
    return reading.dataset(kind, labels, splits, [note])


def _only_table(path: Path) -> Path | None:
    if path.is_file():
        return path
    tables = [file for file in path.glob("*") if matches(file, [f"*{end}" for end in SUFFIXES])]
    split_names = {name for names in reading.SPLIT_NAMES.values() for name in names}
    if len(tables) == 1 and tables[0].name.split(".")[0].lower() not in split_names:
        return tables[0]
    return None


def _read(file: Path, text_column: str | None, label_column: str | None) -> list[tuple[Row, str]]:
    """Return the rows of a file, each with the cell of its labels."""
    delimiter = "\t" if ".tsv" in file.suffixes else ","
    names = reading.read_columns(file, delimiter)
    choose_columns(names, text_column, None, str(file))
    usual = [name for name in names if name.lower() in _LABEL_COLUMNS]
    if label_column is None and len(usual) != 1:
        raise InputError(
            f"{file} has the columns {reading.list_columns(names)}: say which holds the labels "
            "with --label-column"
        )
    label = label_column or usual[0]
    return [(x, x.cell(label)) for x in reading.read_table(file, text_column, [label], delimiter)]


def _names(cell: str, kind: Kind) -> list[str]:
    parts = cell.split(_SEPARATOR) if kind == "multi_label" else [cell]
    return [part.strip() for part in parts if part.strip()]


def _example(row: Row, names: list[str], kind: Kind, labels: tuple[str, ...]) -> Example:
    if not names and kind == "single_label":
        raise InputError(
            f"{reading.place(row.file, row.line)}: no label (only where labels are joined by ';' "
            "may a row have none)"
        )
    return row.example(labels, names, "training has no example of it")
