# SPDX-License-Identifier: Apache-2.0
"""Any corpus of words with BIO tags, a file a split."""

from pathlib import Path

from bcmb_jax.evaluation.examples import Dataset, Task
from bcmb_jax.evaluation.tasks.bio import SUFFIXES, read_bio


def read(directory: str | Path) -> Dataset:
    """train, dev (devel, validation, valid or val) and test in a folder."""
    return read_bio(directory)


TASK = Task(
    "conll",
    "tagging",
    read,
    "your own entities, from words with BIO tags",
    "your own files",
    f"train, dev (or devel, validation) and test, each as one of {' '.join(SUFFIXES)} (or .gz): a "
    "word a line in the first column, its tag in the last, a blank line between sentences",
)
