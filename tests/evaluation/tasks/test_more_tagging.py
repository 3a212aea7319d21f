# SPDX-License-Identifier: Apache-2.0
"""Open corpora of entities in the layout of MTL-Bioinformatics-2016, on made-up words."""

import pytest

from tests.fixtures.task_readers import everything, read, refused, tagged

SECRET = "Zebulon"
KINDS = [
    ("anatem", ("Anatomy",)),
    ("jnlpba", ("DNA", "RNA", "cell_line", "cell_type", "protein")),
    ("bc2gm", ("GENE",)),
]


def sentences(kinds: tuple[str, ...]) -> str:
    return "".join(f"The\tO\nbig\tB-{kind}\nthing\tI-{kind}\n.\tO\n\n" for kind in kinds)


@pytest.mark.parametrize(("task", "kinds"), KINDS)
def test_words_and_tags(task: str, kinds: tuple[str, ...], write) -> None:
    text = sentences(kinds)
    dataset = read(task, write({"train.tsv": text, "devel.tsv": text, "test.tsv": text}))
    assert len(dataset.labels) == 2 * len(kinds) + 1
    assert [len(x) for x in dataset.splits.values()] == [len(kinds)] * 3
    first = tagged(dataset, dataset.splits["train"][0])
    kind = kinds[0]
    assert first == [("The", "O"), ("big", f"B-{kind}"), ("thing", f"I-{kind}"), (".", "O")]
    assert everything(dataset)[0].where == "devel.tsv, line 1"


@pytest.mark.parametrize(("task", "kinds"), KINDS)
@pytest.mark.parametrize("bad", [SECRET, f"{SECRET}\t{SECRET}", f"x\tB-{SECRET}"])
def test_hostile_lines_are_named_by_number(task: str, kinds, bad: str, write) -> None:
    text = sentences(kinds)
    message = refused(
        task, write({"train.tsv": text, "devel.tsv": f"{text}{bad}\n", "test.tsv": text})
    )
    assert f"devel.tsv, line {text.count(chr(10)) + 1}" in message
    assert SECRET not in message
    assert "\n" not in message
