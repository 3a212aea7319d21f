# SPDX-License-Identifier: Apache-2.0
"""Identifiers as a list of phrases, in made-up files of PhysioNet's layout, and hostile ones."""

import pytest

from tests.fixtures.task_readers import everything, read, refused, tagged

SECRET = "Zebulon"


def files(bad: str = ""):
    text = "".join(
        f"START_OF_RECORD={patient}||||{note}||||\nSeen by {SECRET}\ntoday .\n||||END_OF_RECORD\n\n"
        for patient in range(1, 9)
        for note in (1, 2)
    )
    phrases = "".join(
        f"{patient} {note} 8 15 HCPName {SECRET}\n{patient} {note} 16 21 Date today\n"
        for patient in range(1, 9)
        for note in (1, 2)
    )
    return {"id.text": text, "id-phi.phrase": phrases + bad}


def test_phrases_become_tags_and_patients_stay_whole(write) -> None:
    dataset = read("physionet_phi", write(files()))
    examples = everything(dataset)
    assert len(examples) == 16
    for example in examples:
        tags = [x for _, x in tagged(dataset, example)]
        assert tags == ["O", "O", "B-HCPName", "B-Date", "O"]
    patients = [
        {(int(x.where.rpartition(" ")[2]) - 1) // 10 for x in found}
        for found in dataset.splits.values()
    ]
    assert sum(map(len, patients)) == 8


@pytest.mark.parametrize(
    "bad",
    [
        f"1 1 8 9999 HCPName {SECRET}",
        f"1 1 15 8 HCPName {SECRET}",
        f"1 1 8 15 {SECRET} {SECRET}",
        f"99 1 8 15 HCPName {SECRET}",
        f"1 1 8 HCPName {SECRET}",
        "1 1 8 15 HCPName",
    ],
)
def test_hostile_phrases_are_named_by_line(bad: str, write) -> None:
    message = refused("physionet_phi", write(files(bad + "\n")))
    assert "id-phi.phrase, line 33" in message
    assert SECRET not in message
    assert "\n" not in message
