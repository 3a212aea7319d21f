# SPDX-License-Identifier: Apache-2.0
"""Hallmarks of Cancer: which of ten hallmarks an abstract, or one of its sentences, is about."""

import re
from pathlib import Path

from bcmb_jax.errors import InputError, record_error
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.tasks import reading

_ENTITY = re.compile(r"&(?:[a-z]+|#\d+) ?;")


def read_documents(directory: str | Path, classes: tuple[str, ...]) -> Dataset:
    """Read train, dev and test.tsv with the columns pmid, text, labels (names joined by ";")."""
    splits, entities = {}, 0
    for split, file in reading.find_splits(directory, (".tsv",)).items():
        rows = reading.read_table(file, "text", ("text", "labels"))
        entities += sum(bool(_ENTITY.search(row.text)) for row in rows)
        splits[split] = [
            row.example(classes, row.cell("labels").split(";") if row.cell("labels") else [])
            for row in rows
        ]
    counts = {"abstracts with HTML entities (&lt;), left as they are": entities}
    return reading.dataset("multi_label", classes, splits, reading.note_counts(counts))


def read_sentences(directory: str | Path, classes: tuple[str, ...]) -> Dataset:
    """Read train, dev and test.tsv with the columns labels ("0_0,1_1,…,9_0"), sentence, index."""
    files = reading.find_splits(directory, (".tsv",))
    splits = {split: _read_sentences(file, len(classes)) for split, file in files.items()}
    return reading.dataset("multi_label", classes, splits)


def _read_sentences(file: Path, classes: int) -> list[Example]:
    names = reading.read_columns(file, "\t", ("labels", "sentence"))
    written = re.compile(",".join(f"{i}_([01])" for i in range(classes)))
    examples = []
    # Not csv: quotes are the sentences' own, unescaped (`" Reactive " or activated stroma`).
    for number, line in list(reading.read_lines(file))[1:]:
        if not line:
            continue
        cells = line.split("\t")
        if len(cells) != len(names):
            what = f"{len(cells)} columns, where the header has {len(names)}"
            raise record_error(file, number, what)
        row = dict(zip(names, cells, strict=True))
        flags = written.fullmatch(row["labels"])
        if not flags:
            column = 1 + names.index("labels")
            what = "labels are not as '0_0,1_1,…,9_0'"
            raise record_error(file, number, what, column=column)
        if not row["sentence"].strip():
            raise record_error(file, number, "the sentence is empty: take the row out")
        labels = tuple(i for i, flag in enumerate(flags.groups()) if flag == "1")
        examples.append(Example(reading.place(file.name, number), row["sentence"], labels))
    if not examples:
        raise InputError(f"{file} holds no row")
    return examples
