# SPDX-License-Identifier: Apache-2.0
"""Concepts of i2b2 2010 and pairs of MedNLI: made-up files of their layouts, and hostile ones."""

import json

import pytest

from tests.fixtures.task_readers import read, refused, tagged

SECRET = "Zebulon"
TEXT = "Assessment :\nHas a mild cough , takes syrup .\n"
CONCEPTS = 'c="a mild cough" 2:1 2:3||t="problem"\nc="syrup" 2:6 2:6||t="treatment"\n'


def notes(bad: str = ""):
    files = {f"training/txt/n{i}.txt": TEXT for i in range(10)}
    files |= {f"training/concept/n{i}.con": CONCEPTS for i in range(10)}
    return files | {"test_data/n1.txt": TEXT, "test_reference/n1.con": CONCEPTS + bad}


def test_concepts_become_tags_of_their_words(write) -> None:
    dataset = read("i2b2_2010", write(notes()))
    assert [len(x) for x in dataset.splits.values()] == [18, 2, 2]
    first, second = dataset.splits["test"]
    assert [x for _, x in tagged(dataset, first)] == ["O", "O"]
    tags = ["O", "B-problem", "I-problem", "I-problem", "O", "O", "B-treatment", "O"]
    assert [x for _, x in tagged(dataset, second)] == tags


def test_a_concept_over_lines_is_counted(write) -> None:
    dataset = read("i2b2_2010", write(notes('c="x" 1:1 2:0||t="test"\n')))
    assert any(x.startswith("1 spans in several pieces") for x in dataset.notes)


@pytest.mark.parametrize(
    "bad",
    [
        f'c="{SECRET}" 3:0 3:0||t="problem"\n',
        f'c="{SECRET}" 0:0 0:0||t="problem"\n',
        f'c="{SECRET}" 2:3 2:99||t="problem"\n',
        f'c="{SECRET}" 2:3 2:1||t="problem"\n',
        f'c="{SECRET}" 2:1 2:1||t="{SECRET}"\n',
        f'c="{SECRET}" 2:1||t="problem"\n',
        f"{SECRET}\n",
    ],
)
def test_hostile_concepts_are_named_by_line(bad: str, write) -> None:
    message = refused("i2b2_2010", write(notes(bad)))
    assert "n1.con, line 3" in message
    assert SECRET not in message
    assert "\n" not in message


def pair(label: str = "neutral", **others: str) -> str:
    values = {
        "sentence1": "He coughs.",
        "sentence2": "He is ill.",
        "gold_label": label,
        "pairID": "1",
    }
    return json.dumps(values | others) + "\n"


def mednli(bad: str = ""):
    good = pair("entailment") + pair() + pair("contradiction")
    files = {f"mli_{split}_v1.jsonl": good for split in ("train", "dev")}
    return files | {"mli_test_v1.jsonl": good + bad}


def test_pairs_are_one_text(write) -> None:
    dataset = read("mednli", write(mednli()))
    assert [len(x) for x in dataset.splits.values()] == [3, 3, 3]
    first = dataset.splits["test"][0]
    assert first.text.split() == ["He", "coughs.", "He", "is", "ill."]
    assert dataset.labels[first.labels[0]] == "entailment"


@pytest.mark.parametrize(
    "bad", [pair(SECRET), f'{{"sentence1": "{SECRET}\n', json.dumps({"sentence1": SECRET}) + "\n"]
)
def test_hostile_pairs_are_named_by_line(bad: str, write) -> None:
    message = refused("mednli", write(mednli(bad)))
    assert "mli_test_v1.jsonl, line 4" in message
    assert SECRET not in message
