# SPDX-License-Identifier: Apache-2.0
"""ChemProt: which relation of a chemical and a gene a sentence states, by BLUE and by SciBERT."""

from pathlib import Path

from bcmb_jax.evaluation.examples import Dataset
from bcmb_jax.evaluation.tasks import reading

_REBUILT = ".rebuilt.tsv"


def read_blue(directory: str | Path, classes: tuple[str, ...]) -> Dataset:
    """Read train, dev and test.tsv with the columns index, sentence, label."""
    notes: list[str] = []
    splits = {}
    for split, stems in reading.SPLIT_NAMES.items():
        file = reading.find(directory, stems, (".tsv", _REBUILT))
        if _REBUILT in file.name:
            notes.append(f"{split} is rebuilt from the raw corpus ({file.name}): not BLUE's rows")
        rows = reading.read_table(file, "sentence", ("sentence", "label"))
        splits[split] = [row.example(classes, [row.cell("label")]) for row in rows]
        # Fidelity: the paper's reader numbers the labels of each split by themselves, in sorted
        # order. With all six in every split that is this numbering; with one missing it would not
        # be the same in all splits.
        present = {i for example in splits[split] for i in example.labels}
        if missing := [label for i, label in enumerate(classes) if i not in present]:
            notes.append(f"{split} has no example of {', '.join(missing)}")
    return Dataset("single_label", classes, splits, tuple(notes))


def read_scibert(directory: str | Path, classes: tuple[str, ...]) -> Dataset:
    """Read train, dev and test.txt of JSON lines with the keys text and label."""
    splits = {}
    for split, file in reading.find_splits(directory, (".txt", ".jsonl")).items():
        rows = reading.read_table(file, "text", ("text", "label"), delimiter=None)
        splits[split] = [row.example(classes, [row.cell("label")]) for row in rows]
    return reading.dataset("single_label", classes, splits)
