# SPDX-License-Identifier: Apache-2.0
"""Hallmarks of Cancer by abstract."""

import re
from pathlib import Path

from bcmb_jax.evaluation.examples import Dataset, Task
from bcmb_jax.evaluation.tasks.folder import columns, find_splits, table
from bcmb_jax.evaluation.tasks.hoc import LABELS, SOURCE
from bcmb_jax.evaluation.tasks.labels import counted, labelled, untrained

_ENTITY = re.compile(r"&(?:[a-z]+|#\d+) ?;")


def read(directory: str | Path) -> Dataset:
    """train, dev and test.tsv with the columns pmid, text, labels (names joined by ";")."""
    splits = {}
    for split, file in find_splits(directory, (".tsv",)).items():
        columns(file, "\t", "text", "labels")
        splits[split] = [
            labelled(row, file, LABELS, row.group.split(";") if row.group else [])
            for row in table(file, "text", "labels")
        ]
    texts = [str(example.text) for examples in splits.values() for example in examples]
    oddities = {
        "abstracts with HTML entities (&lt;), left as they are": sum(
            bool(_ENTITY.search(text)) for text in texts
        )
    }
    notes = counted(oddities) + untrained(LABELS, splits)
    return Dataset("multi_label", LABELS, splits, tuple(notes))


TASK = Task(
    "hoc_document",
    "multi_label",
    read,
    "which of the ten hallmarks of cancer an abstract is about",
    SOURCE + ", as in github.com/BIDS-Xu-Lab/Biomedical-NLP-Benchmarks (Apache-2.0)",
    "train.tsv, dev.tsv and test.tsv with the columns pmid, text, labels",
)
