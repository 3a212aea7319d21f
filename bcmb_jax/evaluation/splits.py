# SPDX-License-Identifier: Apache-2.0
"""The two seeded splits of the paper's readers, with identical rows in identical order."""

from collections.abc import Callable, Sequence
from math import ceil
from typing import TypeVar

import numpy as np

from bcmb_jax.errors import InputError

T = TypeVar("T")
SEED = 42  # of every split, whatever the seed of the training

Cut = Callable[[Sequence[T], float], tuple[list[T], list[T]]]
"""`cut(items, test_size)` is those to train on and those held out, each in its new order."""


def permuted(items: Sequence[T], test_size: float, seed: int = SEED) -> tuple[list[T], list[T]]:
    """As `datasets.Dataset.train_test_split(test_size, seed=seed)` does it."""
    held_out = _held_out(items, test_size)
    order = np.random.default_rng(seed).permutation(len(items))
    return [items[i] for i in order[held_out:]], [items[i] for i in order[:held_out]]


def shuffled(items: Sequence[T], test_size: float, seed: int = SEED) -> tuple[list[T], list[T]]:
    """As scikit-learn's `train_test_split(items, test_size=…, random_state=seed)` does it."""
    from sklearn.model_selection import (
        train_test_split,  # a second that listing tasks can do without
    )

    _held_out(items, test_size)
    train, test = train_test_split(list(items), test_size=test_size, random_state=seed)
    return train, test


def seventy_fifteen_fifteen(items: Sequence[T], cut: Cut[T] = permuted) -> dict[str, list[T]]:
    """By split: 30 % are held out, and half of these are the test."""
    train, rest = cut(items, 0.3)
    validation, test = cut(rest, 0.5)
    return {"train": train, "validation": validation, "test": test}


def _held_out(items: Sequence[T], test_size: float) -> int:
    count = ceil(test_size * len(items))
    if not 0 < count < len(items):
        raise InputError(
            f"{len(items)} examples are too few to hold out {test_size:.1%} of them: "
            "is this the whole data set?"
        )
    return count
