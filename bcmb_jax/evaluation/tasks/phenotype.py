# SPDX-License-Identifier: Apache-2.0
"""Phenotypes of intensive-care patients, annotated in notes of MIMIC-III."""

from collections import Counter
from pathlib import Path

from bcmb_jax.data.ingest.files import Records
from bcmb_jax.data.ingest.formats import read_csv
from bcmb_jax.data.ingest.record import Document, Skipped
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Task
from bcmb_jax.evaluation.published import LEARNING_RATES
from bcmb_jax.evaluation.tasks.reading import (
    Row,
    find,
    note_counts,
    note_untrained,
    place,
    read_columns,
    read_table,
    split_permuted,
)

LABELS = (
    *("ADVANCED.CANCER", "ADVANCED.HEART.DISEASE", "ADVANCED.LUNG.DISEASE", "ALCOHOL.ABUSE"),
    *("CHRONIC.NEUROLOGICAL.DYSTROPHIES", "CHRONIC.PAIN.FIBROMYALGIA", "DEMENTIA", "DEPRESSION"),
    *("DEVELOPMENTAL.DELAY.RETARDATION", "NON.ADHERENCE", "OBESITY", "OTHER.SUBSTANCE.ABUSE"),
    *("SCHIZOPHRENIA.AND.OTHER.PSYCHIATRIC.DISORDERS", "UNSURE"),
)
_NONE = "NONE"
_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True}


def read(directory: str | Path) -> Dataset:
    """Read ACTdb102003.csv with a column for each phenotype, and NOTEEVENTS.csv with the texts."""
    annotations = find(directory, ("ACTdb102003",), (".csv",))
    notes = find(directory, ("NOTEEVENTS",), (".csv",))
    read_columns(annotations, ",", "ROW_ID", *LABELS, _NONE)
    read_columns(notes, ",", "ROW_ID", "TEXT")
    counts: Counter[str] = Counter()
    rows = []
    for row in read_table(annotations, "ROW_ID", ","):
        labels, none = _flags(row)
        # Fidelity: as the paper's reader, which drops what contradicts itself before it splits.
        if labels and none:
            counts["annotations with both NONE and a phenotype, left out"] += 1
        else:
            rows.append((_row_id(row.text, place(annotations, row.line)), labels))
    texts = _read_texts(notes, {row_id for row_id, _ in rows}, counts)
    # In the order of the annotations, as pandas' inner merge gives them: the split depends on it.
    examples = [
        Example(f"{notes.name}, ROW_ID {row_id}", texts[row_id], labels)
        for row_id, labels in rows
        if row_id in texts
    ]
    counts[f"annotations of notes that {notes.name} lacks, left out"] = len(rows) - len(examples)
    if not examples:
        raise InputError(
            f"{notes} has none of the {len(rows)} annotated notes: is it that of MIMIC-III?"
        )
    rest, test = split_permuted(examples, 0.2)
    train, validation = split_permuted(rest, 0.125)
    splits = {"train": train, "validation": validation, "test": test}
    remarks = (*note_counts(counts), *note_untrained(LABELS, splits))
    return Dataset("multi_label", LABELS, splits, remarks)


def _flags(row: Row) -> tuple[tuple[int, ...], bool]:
    """Return the phenotypes of a row, and whether it says that there are none."""
    flags = [row.cell(name).strip() for name in (*LABELS, _NONE)]
    for name, flag in zip((*LABELS, _NONE), flags, strict=True):
        if flag not in _FLAGS:
            raise InputError(f"{place(row.file, row.line)}: {name} is {flag!r}, not 0 or 1")
    *phenotypes, none = (_FLAGS[flag] for flag in flags)
    return tuple(i for i, holds in enumerate(phenotypes) if holds), none


def _row_id(written: str, where: str) -> int:
    try:
        return int(written)
    except ValueError as error:
        raise InputError(f"{where}: ROW_ID is {written[:20]!r}, not a number") from error


def _read_texts(file: Path, wanted: set[int], counts: Counter[str]) -> dict[int, str]:
    """Return the texts of the wanted notes; the two million others are neither kept nor checked."""
    texts: dict[int, str] = {}
    for record in Records([file], read_csv, "TEXT", "ROW_ID"):
        if isinstance(record, Skipped):
            counts[f"rows of {file.name} left out ({record.reason})"] += 1
        elif isinstance(record, Document):
            row_id = _row_id(record.group or "", place(file, record.line))
            if row_id in texts:
                raise InputError(f"{place(file, record.line)}: ROW_ID {row_id} a second time")
            if row_id in wanted:
                texts[row_id] = record.text
    return texts


TASK = Task(
    "phenotype",
    "multi_label",
    read,
    "which of 13 phenotypes a discharge summary shows, or that the annotator was unsure; notes of "
    "one patient may be in several splits, as in the paper",
    "PhysioNet: phenotype-annotations-mimic 1.20.03 and MIMIC-III; credentialed, own agreement",
    "ACTdb102003.csv and NOTEEVENTS.csv (or .gz)",
    learning_rates=LEARNING_RATES["phenotype"],
)
