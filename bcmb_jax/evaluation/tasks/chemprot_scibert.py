# SPDX-License-Identifier: Apache-2.0
"""ChemProt as SciBERT has it: the relation by its name, of pairs that have one."""

from pathlib import Path

from bcmb_jax.evaluation.examples import Dataset, Task
from bcmb_jax.evaluation.tasks.folder import columns, find_splits, table
from bcmb_jax.evaluation.tasks.labels import labelled, untrained

LABELS = (
    "ACTIVATOR",
    "AGONIST",
    "AGONIST-ACTIVATOR",
    "AGONIST-INHIBITOR",
    "ANTAGONIST",
    "DOWNREGULATOR",
    "INDIRECT-DOWNREGULATOR",
    "INDIRECT-UPREGULATOR",
    "INHIBITOR",
    "PRODUCT-OF",
    "SUBSTRATE",
    "SUBSTRATE_PRODUCT-OF",
    "UPREGULATOR",
)


def read(directory: str | Path) -> Dataset:
    """train, dev and test.txt of JSON lines with the keys text and label."""
    splits = {}
    for split, file in find_splits(directory, (".txt", ".jsonl")).items():
        columns(file, None, "text", "label")
        splits[split] = [
            labelled(row, file, LABELS, [row.group or ""])
            for row in table(file, "text", "label", delimiter=None)
        ]
    return Dataset("single_label", LABELS, splits, tuple(untrained(LABELS, splits)))


TASK = Task(
    "chemprot_scibert",
    "single_label",
    read,
    "which of thirteen relations a sentence states of << >> and [[ ]]: another task than chemprot",
    "github.com/allenai/scibert, data/text_classification/chemprot; Apache-2.0",
    "train.txt, dev.txt and test.txt (or .gz), JSON lines with text and label",
)
