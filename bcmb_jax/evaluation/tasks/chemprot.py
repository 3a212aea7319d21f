# SPDX-License-Identifier: Apache-2.0
"""ChemProt as BLUE has it: the relation of a chemical and a gene that a sentence names."""

from pathlib import Path

from bcmb_jax.evaluation.examples import Dataset, Task
from bcmb_jax.evaluation.published import LEARNING_RATES
from bcmb_jax.evaluation.tasks.folder import SPLIT_NAMES, columns, find, table
from bcmb_jax.evaluation.tasks.labels import labelled

LABELS = ("CPR:3", "CPR:4", "CPR:5", "CPR:6", "CPR:9", "false")
_REBUILT = ".rebuilt.tsv"


def read(directory: str | Path) -> Dataset:
    """train, dev and test.tsv with the columns index, sentence, label."""
    notes: list[str] = []
    splits = {}
    for split, stems in SPLIT_NAMES.items():
        file = find(directory, stems, (".tsv", _REBUILT))
        if _REBUILT in file.name:
            notes.append(f"{split} is rebuilt from the raw corpus ({file.name}): not BLUE's rows")
        columns(file, "\t", "sentence", "label")
        splits[split] = [
            labelled(row, file, LABELS, [row.group or ""])
            for row in table(file, "sentence", "label")
        ]
        # Fidelity: the paper's reader numbers the labels of each split by themselves, in sorted
        # order. With all six in every split that is this numbering; with one missing it would not
        # be the same in all splits.
        held = {i for example in splits[split] for i in example.labels}
        if missing := [label for i, label in enumerate(LABELS) if i not in held]:
            notes.append(f"{split} has no example of {', '.join(missing)}")
    return Dataset("single_label", LABELS, splits, tuple(notes))


TASK = Task(
    "chemprot",
    "single_label",
    read,
    "which of five relations, or none, a sentence states of @CHEMICAL$ and @GENE$",
    "BioCreative VI ChemProt, prepared by BLUE 0.1 (github.com/ncbi-nlp/BLUE_Benchmark); public",
    "train.tsv, dev.tsv and test.tsv (or .gz) with the columns index, sentence, label",
    learning_rates=LEARNING_RATES["chemprot"],
)
