# SPDX-License-Identifier: Apache-2.0
"""The paper's splits: the rows that datasets and scikit-learn give, and the sizes of Table 6."""

import pytest
from sklearn.model_selection import train_test_split

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.splits import permuted, seventy_fifteen_fifteen, shuffled

# numpy.random.default_rng(42).permutation(10), of which datasets takes the first for the test.
PERMUTATION = [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]


def test_the_first_of_the_permutation_are_the_test() -> None:
    assert permuted(range(10), 0.25) == (PERMUTATION[3:], PERMUTATION[:3])  # 2.5 rounds up


@pytest.mark.parametrize("size", [2, 10, 364, 1008, 2270])
@pytest.mark.parametrize("held_out", [0.2, 0.125, 0.3, 0.5])
def test_rows_are_those_of_datasets(size: int, held_out: float) -> None:
    datasets = pytest.importorskip("datasets")
    theirs = datasets.Dataset.from_dict({"row": list(range(size))})
    split = theirs.train_test_split(test_size=held_out, seed=42)
    assert permuted(range(size), held_out) == (split["train"]["row"][:], split["test"]["row"][:])


def test_rows_are_those_of_scikit_learn() -> None:
    train, rest = train_test_split(list(range(2434)), test_size=0.30, random_state=42)
    validation, test = train_test_split(rest, test_size=0.50, random_state=42)
    ours = seventy_fifteen_fifteen(range(2434), shuffled)
    assert ours == {"train": train, "validation": validation, "test": test}
    assert [len(rows) for rows in ours.values()] == [1703, 365, 366]  # Table 6, DEID


@pytest.mark.parametrize(
    ("examples", "sizes"), [(364, [254, 55, 55]), (1008, [705, 151, 152])], ids=["social", "cos"]
)
def test_sizes_are_those_of_table_6(examples: int, sizes: list[int]) -> None:
    splits = seventy_fifteen_fifteen(range(examples))
    assert [len(rows) for rows in splits.values()] == sizes
    assert sorted(row for rows in splits.values() for row in rows) == list(range(examples))


def test_phenotypes_sizes_are_those_of_table_6() -> None:
    rest, test = permuted(range(2270), 0.2)
    train, validation = permuted(rest, 0.125)
    assert [len(train), len(validation), len(test)] == [1589, 227, 454]


@pytest.mark.parametrize("cut", [permuted, shuffled])
def test_too_few_examples_are_refused(cut) -> None:
    with pytest.raises(InputError, match="1 examples are too few to hold out 30.0%"):
        cut([0], 0.3)
