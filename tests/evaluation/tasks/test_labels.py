# SPDX-License-Identifier: Apache-2.0
"""Persons and texts become no labels, unless whoever knows them lists them."""

import pytest

from bcmb_jax.evaluation.tasks.labels import FEWEST_USES, MOST_LABELS
from tests.fixtures.canaries import DATES, LABELS, NAMES, RECORDS, hits, note
from tests.fixtures.task_readers import read, refused


@pytest.fixture(autouse=True)
def rare_labels() -> None:
    """Leave the bound as it is, unlike the other tests of this folder."""


def table(labels: list[str], rows: int = 120) -> str:
    """A table whose rows have these labels in turn, and persons."""
    lines = [f"text {i};{labels[i % len(labels)]};{NAMES[i % 30]}" for i in range(rows)]
    return "\n".join(["text;label;patient", *lines]) + "\n"


WRONG = {
    "patients": (NAMES, "30 different labels and 120 rows, 4.0 for each where 10 or more"),
    "more patients": (
        [f"{x} {y}" for x in NAMES[:4] for y in NAMES],
        "120 different labels, and more than 30 are taken from a list",
    ),
    "notes": ([note(i) for i in range(30)], "at most 100 are one: say which column holds"),
    "short notes": ([f"{x} {y}" for x, y in zip(NAMES, LABELS * 3, strict=True)], "4.0 for each"),
    "records": (RECORDS[:3], "3 labels of 3 that hold a date or five digits in a row"),
    "dates": (DATES[:4], "4 labels of 4 that hold a date or five digits"),
    "dates as written": (["12/24/1971", "24.12.71", "cough"], "2 labels of 3 that hold a date"),
}


@pytest.mark.parametrize("case", WRONG)
def test_persons_and_texts_are_no_labels(write, case: str) -> None:
    labels, message = WRONG[case]
    folder = write({"all.csv": table([x if len(x) < 60 else x * 2 for x in labels])})
    told = refused("csv", folder)
    assert message in told
    assert "--label-column" in told
    assert not hits(told)
    assert len(told) < 500


def test_labels_of_one_group_alone_are_its_name(write) -> None:
    rows = [f"text {i},{NAMES[i % 4]},{LABELS[i % 4]}" for i in range(80)]
    folder = write({"all.csv": "\n".join(["text,label,patient", *rows]) + "\n"})
    told = refused("csv", folder, group_column="patient")
    assert "each of the 4 labels stands in one group of 'patient' alone, as a name" in told
    assert not hits(told)
    assert len(read("csv", folder).labels) == 4  # nothing tells them from labels then


@pytest.mark.parametrize("separator", ["", ";"], ids=["one each", "several"])
def test_bounds_are_where_they_are_said_to_be(write, separator: str) -> None:
    """The labels just within, then one more, and one use less."""
    names = [f"L{i}" for i in range(MOST_LABELS + 1)]
    whole = [name for name in names[:-1] for _ in range(FEWEST_USES)]

    def file(labels: list[str]) -> str:
        return "\n".join(["text\tlabel", *(f"a {x}\t{x}{separator}" for x in labels)]) + "\n"

    folder = write({"all.tsv": file(whole)})
    assert len(read("csv", folder).labels) == MOST_LABELS
    assert read("csv", folder).kind == ("multi_label" if separator else "single_label")
    write({"all.tsv": file(whole[1:])})
    assert "30 different labels and 299 rows, 10.0 for each where" in refused("csv", folder)
    write({"all.tsv": file([*whole, *names])})
    assert "31 different labels" in refused("csv", folder)


def test_listed_labels_are_taken_in_their_order(write) -> None:
    listed = [f"{i:05}" for i in range(40, 0, -1)]
    folder = write({"all.csv": table(listed), "list/labels.txt": "\n".join(listed) + "\n\n"})
    dataset = read("csv", folder, labels=str(folder / "list/labels.txt"))
    assert dataset.labels == tuple(listed)
    example = dataset.splits["train"][0]
    row = int(example.where.split("line ")[1]) - 2
    assert dataset.labels[example.labels[0]] == listed[row % 40]
    write({"all.csv": table([*listed, NAMES[3]])})
    told = refused("csv", folder, labels=str(folder / "list/labels.txt"))
    assert f"all.csv, line 42: a label of {len(NAMES[3])} characters that is none of 000" in told
    assert told.endswith("00021, …: it is not on the list --labels")
    assert not hits(told)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x\ny\n\nx \n", "labels.txt, line 4: the label of line 1 again"),
        (f"x\n{note(1) * 2}\n", "labels.txt, line 2: "),
        ("\n \n", "lists 0 labels, not 1 to 10,000"),
        ("\n".join(map(str, range(10_001))), "lists 10,001 labels"),
        (b"x\n\xff\n", "labels.txt, line 2: bytes that are not UTF-8"),
    ],
    ids=["twice", "long", "empty", "many", "bytes"],
)
def test_lists_of_labels_are_checked(write, text: str | bytes, message: str) -> None:
    folder = write({"all.csv": table(["x", "y"]), "list/labels.txt": text})
    told = refused("csv", folder, labels=str(folder / "list/labels.txt"))
    assert message in told
    assert not hits(told)
    assert "is no file" in refused("csv", folder, labels=str(folder / "none"))


def tagged(kinds: list[str], sentences: int = 40) -> str:
    return "".join(f"seen\tO\n{kinds[i % len(kinds)]}\n\n" for i in range(sentences))


def test_kinds_of_entity_are_labels_too(write) -> None:
    def corpus(kinds: list[str]):
        lines = [f"{NAMES[0].split()[0]}\tB-{kind}" for kind in kinds]
        return write({f"{x}.tsv": tagged(lines) for x in ("train", "dev", "test")})

    persons = [name.replace(" ", "_") for name in NAMES]
    told = refused("conll", corpus(persons))
    assert "30 different labels and 40 entities, 1.3 for each" in told
    assert "see that the last column holds tags" in told
    assert not hits(told)
    told = refused("conll", corpus(["cough", "x" * 101]))
    assert "train.tsv, line 5: a label of 101 characters, at most 100 are one" in told
    folder = corpus(["name", "date"])
    assert read("conll", folder).labels == ("B-date", "B-name", "I-date", "I-name", "O")
    listed = write({"labels.txt.list": "name\ndate\nplace\n"}) / "labels.txt.list"
    assert "B-place" in read("conll", folder, labels=str(listed)).labels
    write({"labels.txt.list": "name\n"})
    told = refused("conll", folder, labels=str(listed))
    assert "train.tsv, line 5: of its kinds of entity a label of 4 characters that" in told
    assert told.endswith("is none of name: this is not on the list --labels")
