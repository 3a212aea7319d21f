# SPDX-License-Identifier: Apache-2.0
"""What tests of task readers ask of them."""

from pathlib import Path
from typing import Any

import pytest

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.tasks import TASKS


def read(task: str, folder: Path, **options: Any) -> Dataset:
    return TASKS[task].read(folder, **options)


def refused(task: str, folder: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(task, folder, **options)
    return str(caught.value)


def everything(dataset: Dataset) -> list[Example]:
    return sorted(example for examples in dataset.splits.values() for example in examples)


def tagged(dataset: Dataset, example: Example) -> list[tuple[str, str]]:
    return [(w, dataset.labels[i]) for w, i in zip(example.text, example.labels, strict=True)]


def tags_of(dataset: Dataset, where: str) -> list[str]:
    """The tags of the one example from there."""
    (example,) = (example for example in everything(dataset) if example.where == where)
    return [dataset.labels[i] for i in example.labels]
