# SPDX-License-Identifier: Apache-2.0
"""Hallmarks of Cancer by sentence, as BLUE has it."""

import re
from pathlib import Path

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Task
from bcmb_jax.evaluation.tasks.folder import columns, find_splits, lines, place
from bcmb_jax.evaluation.tasks.hoc import LABELS, SOURCE
from bcmb_jax.evaluation.tasks.labels import untrained

_FLAGS = re.compile(",".join(f"{i}_([01])" for i in range(len(LABELS))))


def read(directory: str | Path) -> Dataset:
    """train, dev and test.tsv with the columns labels ("0_0,1_1,…,9_0"), sentence, index."""
    files = find_splits(directory, (".tsv",))
    splits = {split: _read_rows(file) for split, file in files.items()}
    return Dataset("multi_label", LABELS, splits, tuple(untrained(LABELS, splits)))


def _read_rows(file: Path) -> list[Example]:
    names = columns(file, "\t", "labels", "sentence")
    examples = []
    # Not csv: quotes are the sentences' own, unescaped (`" Reactive " or activated stroma`).
    for number, line in list(lines(file))[1:]:
        where = place(file, number)
        cells = line.split("\t")
        if not line:
            continue
        if len(cells) != len(names):
            raise InputError(f"{where}: {len(cells)} columns, where the header has {len(names)}")
        row = dict(zip(names, cells, strict=True))
        found = _FLAGS.fullmatch(row["labels"])
        if not found:
            raise InputError(f"{where}: labels {row['labels'][:60]!r} are not as '0_0,1_1,…,9_0'")
        if not row["sentence"].strip():
            raise InputError(f"{where}: the sentence is empty: take the row out")
        held = tuple(i for i, flag in enumerate(found.groups()) if flag == "1")
        examples.append(Example(place(file.name, number), row["sentence"], held))
    if not examples:
        raise InputError(f"{file} holds no row")
    return examples


TASK = Task(
    "hoc_sentence",
    "multi_label",
    read,
    "which of the ten hallmarks of cancer a sentence states; most state none",
    SOURCE + ", prepared by BLUE 0.1 (github.com/ncbi-nlp/BLUE_Benchmark)",
    "train.tsv, dev.tsv and test.tsv with the columns labels, sentence, index",
)
