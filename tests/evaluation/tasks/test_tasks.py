# SPDX-License-Identifier: Apache-2.0
"""Every task on a wrong folder, and what the data hold."""

import pytest

from bcmb_jax.evaluation.examples import (
    Dataset,
    Example,
    dataset_statistics,
    statistics_tables,
)
from bcmb_jax.evaluation.tasks import TASKS
from tests.fixtures.task_readers import refused

NAMES = [
    "chemprot",
    "phenotype",
    "cos",
    "social_history",
    "deid",
    "hoc_document",
    "hoc_sentence",
    "bc5cdr",
    "ncbi_disease",
    "anatem",
    "jnlpba",
    "bc2gm",
    "ddi_drugs",
    "pubmedqa",
    "chemprot_scibert",
    "i2b2_2006_deid",
    "i2b2_2006_smoking",
    "i2b2_2012",
    "i2b2_2014_deid",
    "mednli",
    "i2b2_2010",
    "physionet_phi",
    "conll",
    "csv",
]


def test_the_tasks_come_in_order_and_say_what_they_are() -> None:
    assert list(TASKS) == NAMES
    for name, task in TASKS.items():
        assert task.name == name
        terms = "not stated" if name in ("conll", "csv") else task.source.strip()
        assert task.agreement("").license == terms
        assert task.agreement("DUA 12").license == "DUA 12"
        assert task.about
        assert task.source
        assert task.files
        assert set(task.learning_rates) == {"base", "large"}


def test_the_papers_learning_rates() -> None:
    rates = {name: tuple(TASKS[name].learning_rates.values()) for name in NAMES[:5]}
    assert rates == {
        "chemprot": (5e-5, 2e-5),
        "phenotype": (8e-5, 5e-5),
        "cos": (1e-4, 1.5e-4),
        "social_history": (1.5e-4, 2e-4),
        "deid": (7e-5, 7e-5),
    }


@pytest.mark.parametrize("task", NAMES)
def test_a_wrong_folder_is_told_with_what_it_holds(task: str, write) -> None:
    folder = write({"poem.doc": "x"})
    message = refused(task, folder)
    assert f"data folder {folder} holds no " in message
    assert "it holds poem.doc" in message
    assert "does not exist" in refused(task, folder / "missing")


@pytest.mark.parametrize("task", ["social_history", "cos", "deid", "chemprot"])
def test_a_file_is_no_folder(task: str, write) -> None:
    file = write({"train.tsv": "x"}) / "train.tsv"
    assert f"{file} is a file, not a folder" in refused(task, file)


def test_statistics() -> None:
    dataset = Dataset(
        "tagging",
        ("B-a", "O"),
        {
            "train": [Example("1", ("x", "y"), (0, 1)), Example("2", ("z",), (1,))],
            "validation": [Example("3", (), ())],
            "test": [],
        },
        ("one thing",),
    )
    found = dataset_statistics(dataset, len)
    train = found["train"]
    assert (train.examples, train.mean_tokens, train.longest, train.empty) == (2, 3.5, 4, 0)
    assert train.by_label == (1, 2)
    assert found["validation"].empty == 1
    text = statistics_tables(dataset, found)
    assert "2 labels (tagging); tokens with 2 special ones" in text
    assert "| train | 2 | 3.5 | 4 | 0 |" in text
    assert "| O | 2 | 0 | 0 |" in text
    assert text.endswith("\n- one thing\n")
