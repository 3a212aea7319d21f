# SPDX-License-Identifier: Apache-2.0
"""Phenotypes of intensive-care patients, annotated in notes of MIMIC-III."""

from collections import Counter
from pathlib import Path

from bcmb_jax.data.ingest.columns import group_value, is_yes
from bcmb_jax.data.ingest.files import Records
from bcmb_jax.data.ingest.formats import read_csv
from bcmb_jax.data.ingest.record import Document, Skipped
from bcmb_jax.errors import InputError, record_error
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.tasks import reading

_NONE = "NONE"


def read(directory: str | Path, classes: tuple[str, ...]) -> Dataset:
    """Read ACTdb102003.csv with a column for each phenotype, and NOTEEVENTS.csv with the texts."""
    annotations = reading.find(directory, ("ACTdb102003",), (".csv",))
    notes = reading.find(directory, ("NOTEEVENTS",), (".csv",))
    flags = (*classes, _NONE)
    reading.read_columns(notes, ",", ("ROW_ID", "TEXT"))
    counts: Counter[str] = Counter()
    rows = []
    for row in reading.read_table(annotations, "ROW_ID", ("ROW_ID", *flags), ","):
        held = {name: _is_held(row, name) for name in flags}
        none = held.pop(_NONE)
        # Fidelity: as the paper's reader, which drops what contradicts itself before it splits.
        if any(held.values()) and none:
            counts["annotations with both NONE and a phenotype, left out"] += 1
        else:
            labels = tuple(i for i, name in enumerate(classes) if held[name])
            rows.append((row.line, _row_id(row.text, annotations, row.line), labels))
    texts = _read_texts(notes, {row_id for _, row_id, _ in rows}, counts)
    # In the order of the annotations, as pandas' inner merge gives them: the split depends on it.
    examples = [
        Example(reading.place(annotations.name, line), texts[row_id], labels)
        for line, row_id, labels in rows
        if row_id in texts
    ]
    counts[f"annotations of notes that {notes.name} lacks, left out"] = len(rows) - len(examples)
    if not examples:
        raise InputError(
            f"{notes} has none of the {len(rows)} annotated notes: is it that of MIMIC-III?"
        )
    rest, test = reading.split_permuted(examples, 0.2)
    train, validation = reading.split_permuted(rest, 0.125)
    splits = {"train": train, "validation": validation, "test": test}
    return reading.dataset("multi_label", classes, splits, reading.note_counts(counts))


def _is_held(row: reading.Row, name: str) -> bool:
    cell = row.cell(name).strip()
    held = is_yes(cell) if group_value(cell) else None
    if held is None:
        raise record_error(row.file, row.line, f"{name} is not 0 or 1")
    return held


def _row_id(written: str, file: Path, line: int) -> int:
    try:
        return int(group_value(written) or "")
    except ValueError:
        raise record_error(file, line, "ROW_ID is not a number") from None


def _read_texts(file: Path, wanted: set[int], counts: Counter[str]) -> dict[int, str]:
    """Return the texts of the wanted notes; the two million others are neither kept nor checked."""
    texts: dict[int, str] = {}
    for record in Records([file], read_csv, "TEXT", "ROW_ID"):
        if isinstance(record, Skipped):
            counts[f"rows of {file.name} left out ({record.reason})"] += 1
        elif isinstance(record, Document):
            row_id = _row_id(record.group or "", file, record.line)
            if row_id in texts:
                raise record_error(file, record.line, "a ROW_ID that has come before")
            if row_id in wanted:
                texts[row_id] = record.text
    return texts
