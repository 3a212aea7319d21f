# SPDX-License-Identifier: Apache-2.0
"""Any table with a column of texts and one of labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.data.ingest.columns import choose_columns, group_value
from bcmb_jax.data.ingest.files import matches
from bcmb_jax.errors import InputError, record_error
from bcmb_jax.evaluation.examples import Dataset, Example, Kind
from bcmb_jax.evaluation.tasks import reading
from bcmb_jax.evaluation.tasks.labels import (
    check_groups,
    check_labels,
    check_lengths,
    read_labels,
)
from bcmb_jax.evaluation.tasks.reading import Row

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_LABEL_COLUMNS = ("label", "labels")
_SEPARATOR = ";"
_HOW = (
    "name three files train, validation (or dev) and test, or give one file as --data, which is "
    "then split 70/15/15"
)


class Labelled(NamedTuple):
    """A row, the cell of its labels, and its group."""

    row: Row
    cell: str
    group: str | None


def read(
    directory: str | Path,
    text_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    labels: str | None = None,
) -> Dataset:
    """Read a folder with train, validation (or dev) and test, or split one file.

    Several labels of a row are joined by ";". With one such row (of any split) the task is
    multi-label, and a row may have none. Otherwise every row has exactly one label.

    Args:
      group_column: what must stay in one split, such as the patient.
      labels: a file that lists the labels; None for such as `check_labels` lets pass.

    Raises:
      InputError: a file or a column is missing, a row has no label or one that training or the list
        lacks, labels may be names or texts, or the given splits share a group.
    """
    only = _only_table(Path(directory))
    files = {"train": only} if only else reading.find_splits(directory, SUFFIXES, _HOW)
    rows = {split: _read(x, text_column, label_column, group_column) for split, x in files.items()}
    several = any(_SEPARATOR in x.cell for found in rows.values() for x in found)
    kind: Kind = "multi_label" if several else "single_label"
    named = {s: [(x.row, _names(x.cell, kind)) for x in rows[s]] for s in rows}
    groups = {s: [x.group for x in rows[s]] for s in rows}
    if labels:
        known, hint = read_labels(labels), "it is not on the list --labels"
    else:
        _check(files, named, groups, group_column)
        # A label of the test alone cannot be learned; where the split is ours, it is only a note.
        known = tuple(sorted({name for _, names in named["train"] for name in names}))
        hint = "training has no example of it"
    if len(known) < 2 and kind == "single_label":
        raise InputError(f"{files['train']} has {len(known)} label: there is nothing to tell apart")
    examples = {
        split: [_example(row, names, kind, known, hint) for row, names in pairs]
        for split, pairs in named.items()
    }
    if not only:
        refuse_shared(files, groups, group_column)
        return reading.dataset(kind, known, examples)
    note = f"one file is split 70/15/15 (seed {reading.SEED})"
    if group_column:
        note += f", its {len(set(groups['train']) - {None}):,} groups of {group_column!r} whole"
    splits = split_whole_groups(examples["train"], groups["train"], only)
    return reading.dataset(kind, known, splits, [note])


def _check(
    files: Mapping[str, Path],
    named: Mapping[str, Sequence[tuple[Row, list[str]]]],
    groups: Mapping[str, Sequence[str | None]],
    group_column: str | None,
) -> None:
    """Refuse labels that may be names or texts."""
    fix = "say which column holds the labels with --label-column"
    uses: dict[str, Counter[str]] = {}
    pairs: set[tuple[str, str]] = set()
    for split, rows in named.items():
        cells = [(row.line, name) for row, names in rows for name in names]
        check_lengths(cells, files[split], fix)
        uses[split] = Counter(name for _, name in cells)
        for (_, names), group in zip(rows, groups[split], strict=True):
            pairs |= {(name, group) for name in names if group is not None}
    check_labels(uses, files["train"], "rows", fix)
    check_groups(pairs, files["train"], group_column or "")


def _only_table(path: Path) -> Path | None:
    if path.is_file():
        return path
    tables = [file for file in path.glob("*") if matches(file, [f"*{end}" for end in SUFFIXES])]
    split_names = {name for names in reading.SPLIT_NAMES.values() for name in names}
    if len(tables) == 1 and tables[0].name.split(".")[0].lower() not in split_names:
        return tables[0]
    return None


def _read(
    file: Path, text_column: str | None, label_column: str | None, group_column: str | None
) -> list[Labelled]:
    delimiter = None if matches(file, ["*.jsonl", "*.parquet"]) else ","
    delimiter = "\t" if matches(file, ["*.tsv"]) else delimiter
    table = reading.read_head(file, delimiter)
    names = table.names or ()
    group = choose_columns(names, text_column, group_column, str(file), table.below).group
    usual = [name for name in names if name.lower() in _LABEL_COLUMNS]
    if label_column is None and len(usual) != 1:
        raise InputError(
            f"{reading.list_columns(file, table)}: say which holds the labels with --label-column"
        )
    label = label_column or usual[0]
    return [
        Labelled(row, row.cell(label), group_value(row.values.get(group)) if group else None)
        for row in reading.read_table(file, text_column, [label, *filter(None, [group])], delimiter)
    ]


def refuse_shared(
    files: Mapping[str, Path], groups: Mapping[str, Sequence[str | None]], column: str | None
) -> None:
    """Raise `InputError` where two given splits share a group."""
    for one, other in combinations(files, 2):
        if shared := set(groups[one]) & set(groups[other]) - {None}:
            raise InputError(
                f"{files[one]} and {files[other].name} share {len(shared):,} groups of {column!r}: "
                "move each into one of them, or give all rows as one file, which is then split by "
                "group"
            )


def split_whole_groups(
    examples: Sequence[Example], groups: Sequence[str | None], file: Path
) -> dict[str, list[Example]]:
    """Split 70/15/15 by groups; an example without one is a group of its own."""
    members: dict[str | int, list[Example]] = {}
    for i, (example, group) in enumerate(zip(examples, groups, strict=True)):
        members.setdefault(i if group is None else group, []).append(example)
    if any(groups) and len(members) < reading.FEWEST:
        raise InputError(
            f"{file} has {len(members)} groups: three splits need at least {reading.FEWEST}"
        )
    splits = reading.split_seventy_fifteen_fifteen(list(members.values()))
    return {split: list(chain.from_iterable(parts)) for split, parts in splits.items()}


def _names(cell: str, kind: Kind) -> list[str]:
    parts = cell.split(_SEPARATOR) if kind == "multi_label" else [cell]
    return [part.strip() for part in parts if part.strip()]


def _example(row: Row, names: list[str], kind: Kind, labels: tuple[str, ...], hint: str) -> Example:
    if not names and kind == "single_label":
        what = "no label (only where labels are joined by ';' may a row have none)"
        raise record_error(row.file, row.line, what)
    return row.example(labels, names, hint)
