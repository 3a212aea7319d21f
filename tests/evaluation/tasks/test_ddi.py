# SPDX-License-Identifier: Apache-2.0
"""Drugs in the DDI corpus's XML, made up, and hostile files."""

import pytest

from tests.fixtures.task_readers import read, refused, tagged

SECRET = "Zebulon"


def document(
    offset: str = "5-11", kind: str = "brand", text: str = "Take Zebulon with milk."
) -> str:
    entity = f'<entity id="e0" charOffset="{offset}" type="{kind}" text="{SECRET}"/>'
    return (
        f'<document id="d0">\n<sentence id="s0" text="{text}">\n{entity}\n</sentence></document>\n'
    )


def files(bad: str = ""):
    found = {f"Train/DrugBank/{i}.xml": document() for i in range(10)}
    return found | {
        "Test/Test for DrugNER task/a.xml": bad or document(),
        "Test/Test for DDI Extraction task/b.xml": document(),
    }


def test_drugs_become_tags(write) -> None:
    dataset = read("ddi_drugs", write(files()))
    assert [len(x) for x in dataset.splits.values()] == [9, 1, 1]
    tags = [x for _, x in tagged(dataset, dataset.splits["test"][0])]
    assert tags == ["O", "B-brand", "O", "O", "O"]
    assert "1 files of the test of relations, left out" in dataset.notes


def test_pieces_with_words_between_are_left_out(write) -> None:
    apart = document("5-8;13-16").replace(f'text="{SECRET}"/>', 'text="Zebu with"/>')
    dataset = read("ddi_drugs", write(files(apart)))
    assert any(x.startswith("1 spans in several pieces") for x in dataset.notes)
    assert {x for _, x in tagged(dataset, dataset.splits["test"][0])} == {"O"}


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        (document("5-99"), 2),
        (document("11-5"), 2),
        (document(SECRET), 2),
        (document(kind=SECRET), 2),
        (document().replace("</sentence>", ""), 4),
        (f'<!DOCTYPE x [<!ENTITY a "{SECRET}">]>\n' + document(text="&a;&a;"), 1),
    ],
)
def test_hostile_files_are_named_by_line(bad: str, line: int, write) -> None:
    message = refused("ddi_drugs", write(files(bad)))
    assert f"a.xml, line {line}" in message
    assert SECRET not in message
    assert "\n" not in message
