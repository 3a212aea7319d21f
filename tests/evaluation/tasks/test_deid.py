# SPDX-License-Identifier: Apache-2.0
"""The reader of DEID on made-up records: where a mask's words end, and what it is of."""

import pytest
from sklearn.model_selection import train_test_split

from bcmb_jax.evaluation.examples import SPLITS, Dataset
from bcmb_jax.evaluation.tasks.deid import category
from tests.fixtures.task_readers import everything, read, refused, tagged


def records(*texts: str) -> str:
    return "".join(
        f"START_OF_RECORD={i}||||1||||\n{text}\n||||END_OF_RECORD\n\n"
        for i, text in enumerate([*texts, *["Stable."] * 10], start=1)
    )


def deid(*pairs: tuple[str, str]) -> dict[str, str | bytes]:
    texts, masks = zip(*pairs, strict=True)
    return {"id.text": records(*texts), "id.res": records(*masks)}


def test_deid(write) -> None:
    masked = "Seen by [**Known lastname 3**],\non [**4-18**] in\n[**Hospital Ward 1**]"
    dataset = read("deid", write(deid(("Seen by Ann Lee,\non 4/9 in\nThe North", masked))))
    assert dataset.labels[0] == "O"
    assert len(dataset.labels) == 13
    assert [len(dataset.splits[split]) for split in SPLITS] == [7, 2, 2]
    example = next(e for e in everything(dataset) if e.where == "id.text, line 1")
    assert tagged(dataset, example) == [
        ("Seen", "O"),
        ("by", "O"),
        ("Ann", "B-name"),
        ("Lee", "I-name"),
        (",", "O"),
        ("on", "O"),
        ("4/9", "B-date"),
        ("in", "O"),
        ("The", "B-location"),
        ("North", "I-location"),
    ]


def first(dataset: Dataset) -> list[tuple[str, str]]:
    return tagged(dataset, next(e for e in everything(dataset) if e.where == "id.text, line 1"))


def test_deid_masks_of_no_category_are_other(write) -> None:
    dataset = read("deid", write(deid(("In Ohio now", "In [**State 1**] now"))))
    assert first(dataset)[1] == ("Ohio", "B-other")
    assert "1 masks of no category of the paper, read as other" in dataset.notes
    corrected = read("deid", write(deid(("In Ohio now", "In [**State 1**] now"))), corrected=True)
    assert first(corrected)[1] == ("Ohio", "B-location")


def test_deid_adjacent_masks(write) -> None:
    folder = write(deid(("By Ann Lee now", "By [**First Name 1**][**Known lastname 2**] now")))
    dataset = read("deid", folder)
    assert first(dataset)[1:] == [
        ("Ann", "B-name"),
        ("Lee", "I-name"),
        ("now", "I-name"),
        ("now", "O"),
    ]
    assert dataset.notes[:3] == (
        "1 masks right after another",
        "1 records whose two texts do not agree, read as far as they do",
        "1 masks without a word of text",
    )
    corrected = read("deid", folder, corrected=True)
    assert first(corrected)[1:] == [("Ann", "B-name"), ("Lee", "I-name"), ("now", "O")]


def test_deid_ends_that_come_early_are_corrected(write) -> None:
    folder = write(deid(("By Dr. Lee Jr.", "By [**Known lastname 2**].")))
    assert first(read("deid", folder))[1:] == [("Dr", "B-name"), (".", "O")]
    words = [("Dr.", "B-name"), ("Lee", "I-name"), ("Jr", "I-name"), (".", "O")]
    assert first(read("deid", folder, corrected=True))[1:] == words


def test_deid_texts_that_disagree_are_counted(write) -> None:
    folder = write(deid(("He left by Ann.", "She left by [**Name 2**]!")))
    note = "1 records whose two texts do not agree, "
    assert note + "read as far as they do" in read("deid", folder).notes
    corrected = read("deid", folder, corrected=True)
    assert note + "left out" in corrected.notes
    assert len(everything(corrected)) == 10


def test_deid_is_split_as_by_scikit_learn(write) -> None:
    dataset = read("deid", write(deid(("a", "a"))))
    train, rest = train_test_split(range(1, 12), test_size=0.3, random_state=42)
    validation, test = train_test_split(rest, test_size=0.5, random_state=42)
    for split, rows in zip(SPLITS, (train, validation, test), strict=True):
        lines = [int(e.where.split("line ")[1]) for e in dataset.splits[split]]
        assert [1 + line // 4 for line in lines] == rows


def test_deid_surrogates_are_not_empty_when_corrected(write) -> None:
    folder = write(deid(("Seen now", "Seen [**Name 1**]now")))
    assert "1 masks without a word of text" in read("deid", folder).notes
    assert len(everything(read("deid", folder, corrected=True))) == 10


def test_deid_leaves_out_records_without_a_word(write) -> None:
    dataset = read("deid", write(deid((" ", " "))))
    assert len(everything(dataset)) == 10
    assert "1 records without a word, left out" in dataset.notes


def test_deid_names_what_does_not_fit(write) -> None:
    folder = write({"id.text": records("a", "b"), "id.res": records("a")})
    assert "id.text has 12 records and" in refused("deid", folder)
    write({"id.res": records("a", "b").replace("RECORD=2|", "RECORD=7|")})
    message = refused("deid", folder)
    assert "id.text, line 5: the record of another patient or note than in line 5 of" in message
    write({"id.res": records("a", "b").replace("2||||1||||", "x")})
    assert "id.res, line 5: a record begins without patient||||note||||" in refused("deid", folder)
    write({"id.res": records("a", "b") + "START_OF_RECORD=13||||1||||\ncut"})
    assert "id.res: 13 records begin, but 12 end" in refused("deid", folder)
    write({"id.res": "text"})
    assert "id.res holds no record" in refused("deid", folder)


@pytest.mark.parametrize(
    ("mask", "kind", "corrected"),
    [
        ("Known lastname 33", "name", "name"),
        ("Wardname 5", "name", "location"),
        ("E-mail address 30", "other", "other"),
        ("Telephone/Fax (1) 7", "phone_nb", "phone_nb"),
        ("Age over 90 ", "age", "age"),
        ("Location (un) 62", "location", "location"),
        ("Unit Number 1", "location", "location"),
        ("1959", "date", "date"),
        ("4-18", "date", "date"),
        ("1901-12-16", "date", "date"),
        ("1901-12-6", None, "date"),
        ("Month/Year 3", "date", "date"),
        ("Holiday 3", None, "date"),
        ("", "other", "other"),
        ("Company 52", "other", "other"),
        ("Medical Record Number 1", None, None),
    ],
)
def test_the_category_of_a_mask(mask: str, kind: str | None, corrected: str | None) -> None:
    assert category(f"[**{mask}**]", corrected=False) == kind
    assert category(f"[**{mask}**]", corrected=True) == corrected
