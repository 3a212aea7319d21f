# SPDX-License-Identifier: Apache-2.0
"""ChemProt: which relation of a chemical and a gene a sentence states, by BLUE and by SciBERT."""

from pathlib import Path

from bcmb_jax.evaluation.examples import Dataset, Task
from bcmb_jax.evaluation.published import LEARNING_RATES
from bcmb_jax.evaluation.tasks.reading import (
    SPLIT_NAMES,
    find,
    find_splits,
    label_row,
    note_untrained,
    read_columns,
    read_table,
)

BLUE_LABELS = ("CPR:3", "CPR:4", "CPR:5", "CPR:6", "CPR:9", "false")
SCIBERT_LABELS = (
    *("ACTIVATOR", "AGONIST", "AGONIST-ACTIVATOR", "AGONIST-INHIBITOR", "ANTAGONIST"),
    *("DOWNREGULATOR", "INDIRECT-DOWNREGULATOR", "INDIRECT-UPREGULATOR", "INHIBITOR"),
    *("PRODUCT-OF", "SUBSTRATE", "SUBSTRATE_PRODUCT-OF", "UPREGULATOR"),
)
_REBUILT = ".rebuilt.tsv"


def read_blue(directory: str | Path) -> Dataset:
    """Read train, dev and test.tsv with the columns index, sentence, label."""
    notes: list[str] = []
    splits = {}
    for split, stems in SPLIT_NAMES.items():
        file = find(directory, stems, (".tsv", _REBUILT))
        if _REBUILT in file.name:
            notes.append(f"{split} is rebuilt from the raw corpus ({file.name}): not BLUE's rows")
        read_columns(file, "\t", "sentence", "label")
        rows = read_table(file, "sentence")
        splits[split] = [label_row(row, BLUE_LABELS, [row.cell("label")]) for row in rows]
        # Fidelity: the paper's reader numbers the labels of each split by themselves, in sorted
        # order. With all six in every split that is this numbering; with one missing it would not
        # be the same in all splits.
        present = {i for example in splits[split] for i in example.labels}
        if missing := [label for i, label in enumerate(BLUE_LABELS) if i not in present]:
            notes.append(f"{split} has no example of {', '.join(missing)}")
    return Dataset("single_label", BLUE_LABELS, splits, tuple(notes))


def read_scibert(directory: str | Path) -> Dataset:
    """Read train, dev and test.txt of JSON lines with the keys text and label."""
    splits = {}
    for split, file in find_splits(directory, (".txt", ".jsonl")).items():
        read_columns(file, None, "text", "label")
        rows = read_table(file, "text", delimiter=None)
        splits[split] = [label_row(row, SCIBERT_LABELS, [row.cell("label")]) for row in rows]
    notes = note_untrained(SCIBERT_LABELS, splits)
    return Dataset("single_label", SCIBERT_LABELS, splits, tuple(notes))


BLUE = Task(
    "chemprot",
    "single_label",
    read_blue,
    "which of five relations, or none, a sentence states of @CHEMICAL$ and @GENE$",
    "BioCreative VI ChemProt, prepared by BLUE 0.1 (github.com/ncbi-nlp/BLUE_Benchmark); public",
    "train.tsv, dev.tsv and test.tsv (or .gz) with the columns index, sentence, label",
    learning_rates=LEARNING_RATES["chemprot"],
)
SCIBERT = Task(
    "chemprot_scibert",
    "single_label",
    read_scibert,
    "which of thirteen relations a sentence states of << >> and [[ ]]: another task than chemprot",
    "github.com/allenai/scibert, data/text_classification/chemprot; Apache-2.0",
    "train.txt, dev.txt and test.txt (or .gz), JSON lines with text and label",
)
