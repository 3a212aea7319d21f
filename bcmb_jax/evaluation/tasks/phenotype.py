# SPDX-License-Identifier: Apache-2.0
"""Phenotypes of intensive-care patients, annotated in notes of MIMIC-III."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from bcmb_jax.data.ingest.delimited import read_delimited
from bcmb_jax.data.ingest.files import Records
from bcmb_jax.data.ingest.record import Document, Skipped
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Task
from bcmb_jax.evaluation.published import LEARNING_RATES
from bcmb_jax.evaluation.splits import permuted
from bcmb_jax.evaluation.tasks.folder import columns, find, place, table
from bcmb_jax.evaluation.tasks.labels import counted, untrained

LABELS = (
    "ADVANCED.CANCER",
    "ADVANCED.HEART.DISEASE",
    "ADVANCED.LUNG.DISEASE",
    "ALCOHOL.ABUSE",
    "CHRONIC.NEUROLOGICAL.DYSTROPHIES",
    "CHRONIC.PAIN.FIBROMYALGIA",
    "DEMENTIA",
    "DEPRESSION",
    "DEVELOPMENTAL.DELAY.RETARDATION",
    "NON.ADHERENCE",
    "OBESITY",
    "OTHER.SUBSTANCE.ABUSE",
    "SCHIZOPHRENIA.AND.OTHER.PSYCHIATRIC.DISORDERS",
    "UNSURE",
)
_NONE = "NONE"
_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True}


def read(directory: str | Path) -> Dataset:
    """ACTdb102003.csv with a column a phenotype, and NOTEEVENTS.csv with ROW_ID and TEXT."""
    annotations = find(directory, ("ACTdb102003",), (".csv",))
    notes = find(directory, ("NOTEEVENTS",), (".csv",))
    columns(annotations, ",", "ROW_ID", *LABELS, _NONE)
    columns(notes, ",", "ROW_ID", "TEXT")
    oddities: Counter[str] = Counter()
    rows = []
    for row in table(annotations, "ROW_ID", _NONE, ",", reshape=_gather):
        held, none = _flags(row, annotations)
        # Fidelity: as the paper's reader, which drops what contradicts itself before it splits.
        if held and none:
            oddities["annotations with both NONE and a phenotype, left out"] += 1
        else:
            rows.append((_row_id(row.text, place(annotations, row.line)), held))
    texts = _texts(notes, {row_id for row_id, _ in rows}, oddities)
    # In the order of the annotations, as pandas' inner merge gives them: the split depends on it.
    examples = [
        Example(f"{notes.name}, ROW_ID {row_id}", texts[row_id], held)
        for row_id, held in rows
        if row_id in texts
    ]
    oddities[f"annotations of notes that {notes.name} lacks, left out"] = len(rows) - len(examples)
    if not examples:
        raise InputError(
            f"{notes} has none of the {len(rows)} annotated notes: is it that of MIMIC-III?"
        )
    rest, test = permuted(examples, 0.2)
    train, validation = permuted(rest, 0.125)
    splits = {"train": train, "validation": validation, "test": test}
    return Dataset("multi_label", LABELS, splits, (*counted(oddities), *untrained(LABELS, splits)))


def _gather(values: dict[str, Any]) -> dict[str, Any]:
    """All the flags of a row in the place of the last one."""
    return {**values, _NONE: ",".join(values[name].strip() for name in (*LABELS, _NONE))}


def _flags(row: Document, file: Path) -> tuple[tuple[int, ...], bool]:
    """The phenotypes of a row, and whether it says that there are none."""
    flags = (row.group or "").split(",")
    for name, flag in zip((*LABELS, _NONE), flags, strict=True):
        if flag not in _FLAGS:
            raise InputError(f"{place(file, row.line)}: {name} is {flag!r}, not 0 or 1")
    held = [i for i, flag in enumerate(flags) if _FLAGS[flag]]
    return tuple(i for i in held if i < len(LABELS)), len(LABELS) in held


def _row_id(written: str, where: str) -> int:
    try:
        return int(written)
    except ValueError as error:
        raise InputError(f"{where}: ROW_ID is {written[:20]!r}, not a number") from error


def _texts(file: Path, wanted: set[int], oddities: Counter[str]) -> dict[int, str]:
    """The texts of the notes wanted; of the two million others, nothing is kept or checked."""
    texts: dict[int, str] = {}
    for record in Records([file], partial(read_delimited, delimiter=","), "TEXT", "ROW_ID"):
        if isinstance(record, Skipped):
            oddities[f"rows of {file.name} left out ({record.reason})"] += 1
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
