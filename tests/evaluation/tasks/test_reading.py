# SPDX-License-Identifier: Apache-2.0
"""The paper's splits: the rows that datasets and scikit-learn give, and the sizes of Table 6."""

import hashlib
import json

import pytest
from sklearn.model_selection import train_test_split

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.tasks.reading import (
    split_permuted,
    split_seventy_fifteen_fifteen,
    split_shuffled,
)

# numpy.random.default_rng(42).permutation(10), of which datasets takes the first for the test.
PERMUTATION = [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]
# Of [train, test] as JSON, what datasets 5.2.0 gave for Dataset.train_test_split(size, seed=42) of
# so many rows: the beginning of its SHA-256.
DATASETS = {
    (2, 0.2): "9c731319e6f8d3c3",
    (2, 0.125): "9c731319e6f8d3c3",
    (2, 0.3): "9c731319e6f8d3c3",
    (2, 0.5): "9c731319e6f8d3c3",
    (10, 0.2): "cdb02a5e0b4314d0",
    (10, 0.125): "cdb02a5e0b4314d0",
    (10, 0.3): "29394b41eb16bf37",
    (10, 0.5): "a9bb040028b64649",
    (364, 0.2): "08ae9840f5cc8c81",
    (364, 0.125): "1299907044fc6c1d",
    (364, 0.3): "ab014060d7b82594",
    (364, 0.5): "4d363eca48e67144",
    (1008, 0.2): "5865e0f045348699",
    (1008, 0.125): "ce91ea8cf9cae78c",
    (1008, 0.3): "7d35ff1a28ae07d8",
    (1008, 0.5): "a6205007b71c431b",
    (2270, 0.2): "0812727a7555a96c",
    (2270, 0.125): "395fe47964c4da8f",
    (2270, 0.3): "c2f61a017b8b8684",
    (2270, 0.5): "685121be23b084b4",
}


def test_the_first_of_the_permutation_are_the_test() -> None:
    assert split_permuted(range(10), 0.25) == (PERMUTATION[3:], PERMUTATION[:3])  # 2.5 rounds up


@pytest.mark.parametrize(("size", "held_out"), DATASETS)
def test_rows_are_those_of_datasets(size: int, held_out: float) -> None:
    rows = json.dumps(split_permuted(range(size), held_out))
    assert hashlib.sha256(rows.encode()).hexdigest()[:16] == DATASETS[size, held_out]


def test_rows_are_those_of_scikit_learn() -> None:
    train, rest = train_test_split(list(range(2434)), test_size=0.30, random_state=42)
    validation, test = train_test_split(rest, test_size=0.50, random_state=42)
    ours = split_seventy_fifteen_fifteen(range(2434), split_shuffled)
    assert ours == {"train": train, "validation": validation, "test": test}
    assert [len(rows) for rows in ours.values()] == [1703, 365, 366]  # Table 6, DEID


@pytest.mark.parametrize(
    ("examples", "sizes"), [(364, [254, 55, 55]), (1008, [705, 151, 152])], ids=["social", "cos"]
)
def test_sizes_are_those_of_table_6(examples: int, sizes: list[int]) -> None:
    splits = split_seventy_fifteen_fifteen(range(examples))
    assert [len(rows) for rows in splits.values()] == sizes
    assert sorted(row for rows in splits.values() for row in rows) == list(range(examples))


def test_phenotypes_sizes_are_those_of_table_6() -> None:
    rest, test = split_permuted(range(2270), 0.2)
    train, validation = split_permuted(rest, 0.125)
    assert [len(train), len(validation), len(test)] == [1589, 227, 454]


@pytest.mark.parametrize("cut", [split_permuted, split_shuffled])
def test_too_few_examples_are_refused(cut) -> None:
    with pytest.raises(InputError, match=r"1 examples are too few to hold out 30.0%"):
        cut([0], 0.3)
