# SPDX-License-Identifier: Apache-2.0
"""Pairs of sentences: MedNLI, whether a premise from a clinical note entails a hypothesis."""

from pathlib import Path

from bcmb_jax.evaluation.examples import Dataset
from bcmb_jax.evaluation.tasks import reading

_STEMS = {"train": "mli_train_v1", "validation": "mli_dev_v1", "test": "mli_test_v1"}


def read_mednli(directory: str | Path, classes: tuple[str, ...]) -> Dataset:
    """Read JSON lines with the keys sentence1, sentence2 and gold_label, in the official splits.

    The layout is that of Romanov and Shivade 2018 (physionet.org/content/mednli). The text is both
    sentences, the premise first, as other columns are joined.
    """
    splits = {}
    for split, stem in _STEMS.items():
        file = reading.find(directory, (stem,), (".jsonl",))
        needed = ("sentence1", "sentence2", "gold_label")
        rows = reading.read_table(file, "sentence1,sentence2", needed, delimiter=None)
        splits[split] = [row.example(classes, [row.cell("gold_label")]) for row in rows]
    return reading.dataset("single_label", classes, splits)
