# SPDX-License-Identifier: Apache-2.0
"""Spans whose offsets count otherwise than brat's, are broken by white space, or are empty."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bcmb_jax.evaluation.examples import Dataset
from tests.fixtures.task_readers import everything, read, refused, tags_of

LINES = "SOCIAL HISTORY:\nSmokes daily now.\nDrinks wine weekly.\n"
PARTS = (("Tobacco", "Smokes"), ("Frequency", "daily"), ("Alcohol", "Drinks wine"))
TAGS = ["O", "O", "B-Tobacco", "B-Frequency", "O", "B-Alcohol", "I-Alcohol", "O"]
FILLER = {f"f{i}.{end}": text for i in range(4) for end, text in (("txt", "Fine."), ("ann", ""))}


def ann(before: Callable[[str], int], text: str, parts=PARTS) -> str:
    """An .ann file whose offsets are the sizes of what stands before them."""
    lines = []
    for i, (kind, part) in enumerate(parts):
        first = text.index(part)
        start, end = before(text[:first]), before(text[: first + len(part)])
        shown = " ".join(part.split())
        lines.append(f"T{i}\t{kind} {start} {end}\t{shown}\n")
    return "".join(lines)


def tags(folder: Path, corrected: bool = False) -> list[str]:
    dataset = read("social_history", folder, corrected=corrected)
    return tags_of(dataset, f"{folder.name}/n1.txt")


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize(
    ("case", "before"),
    [
        ("lf", 0),
        ("crlf-one", 0),
        ("crlf-two", 0),
        ("crlf-two-paper", 0),
        ("bom", 0),
        ("emoji-codepoints", 1),
        ("emoji-utf16", 1),
        ("utf8-bytes", 1),
        ("notes-normalization", 0),
    ],
)
def test_every_case_has_the_tags_of_its_words(
    shared: Path, tmp_path: Path, case: str, before: int, corrected: bool
) -> None:
    shutil.copytree(shared / "cases/11-brat-offsets" / case, tmp_path / case)
    last = "B-Frequency" if corrected else "O"  # "weekly." is not wholly inside
    expected = ["O"] * before + [
        *("O", "O", "B-Tobacco", "B-Frequency", "O", "B-Alcohol", "O", last),
    ]
    assert tags(tmp_path / case, corrected) == expected


@pytest.mark.parametrize("case", ["span-linebreak", "fragments-linebreak", "fragments-adjacent"])
def test_every_broken_case_is_one_span(shared: Path, tmp_path: Path, case: str) -> None:
    shutil.copytree(shared / "cases/11-brat-offsets" / case, tmp_path / case)
    expected = ["O", "O", "B-LivingStatus", "I-LivingStatus", "O", "O", "O"]
    assert tags(tmp_path / case) == tags(tmp_path / case, corrected=True) == expected


def test_cases_that_cannot_be_put_right(shared: Path, tmp_path: Path) -> None:
    shutil.copytree(shared / "cases/11-brat-offsets", tmp_path / "cases")
    message = refused("social_history", tmp_path / "cases/beyond")
    assert "1 .ann files left out" in message  # and three are too few to be split
    assert "by name they are number 1;" in message
    empty = read("social_history", tmp_path / "cases/empty-span")
    assert tags_of(empty, "empty-span/n1.txt") == ["O"] * 8
    assert "1 spans without a character, left out" in empty.notes
    for case in ("tab-kind", "trailing-space"):
        assert "n1.ann, line 1: not a span" in refused("social_history", tmp_path / "cases" / case)


COUNTED: dict[str, tuple[str, Callable[[str], int]]] = {
    "characters": (LINES, len),
    "bytes": ("Né\u00e9 à 3 ½.\n" + LINES, lambda x: len(x.encode())),
    "UTF-16 units": ("🚭🍷 no\n" + LINES, lambda x: len(x.encode("utf-16-le")) // 2),
    "characters, CR LF as two": (LINES.replace("\n", "\r\n"), len),
    "bytes, CR LF as two": (
        "café\r\n" + LINES.replace("\n", "\r\n"),
        lambda x: len(x.encode()),
    ),
    "UTF-16 units, CR LF as two": (
        "🚭\r\n" + LINES.replace("\n", "\r\n"),
        lambda x: len(x.encode("utf-16-le")) // 2,
    ),
    "characters, every line end as two": (LINES, lambda x: len(x) + x.count("\n")),
    "characters, with a byte order mark": (LINES, lambda x: len(x) + 1),
    "bytes, with a byte order mark": (LINES, lambda x: len(x) + 3),
    "characters, from the first word": ("\n \n" + LINES, lambda x: len(x) - 3),
    "mixed line ends": (LINES.replace("\n", "\r\n", 1), len),
    "a lone CR": (LINES.replace("\n", "\r"), len),
}


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("way", COUNTED)
def test_ways_of_counting_are_recognised(write, way: str, corrected: bool) -> None:
    text, before = COUNTED[way]
    folder = write({**FILLER, "n1.txt": text.encode(), "n1.ann": ann(before, text)})
    dataset = read("social_history", folder, corrected=corrected)
    found = tags_of(dataset, f"{folder.name}/n1.txt")
    assert found[-8:] == TAGS
    assert set(found[:-8]) <= {"O"}
    put_right = [note for note in dataset.notes if "put right" in note]
    if way not in ("characters", "mixed line ends", "a lone CR"):
        assert put_right == [f"1 files whose offsets count {way}, put right"]


def test_a_file_with_a_byte_order_mark_is_read_in_both_ways(write) -> None:
    for shift in (0, 1, 3):
        offsets = ann(lambda x, shift=shift: len(x) + shift, LINES)
        folder = write({**FILLER, "n1.txt": "\ufeff" + LINES, "n1.ann": offsets})
        assert tags(folder) == TAGS


MISPLACED = {
    "one span": "T1\tTobacco 16 22\tSmokes\nT2\tAlcohol 20 24\twine\n",
    "beyond the end": "T1\tTobacco 16 22\tSmokes\nT2\tAlcohol 900 904\twine\n",
    "all by five": "T1\tTobacco 21 27\tSmokes\nT2\tFrequency 28 33\tdaily\n",
    "another text": "T1\tTobacco 3 10\tchewing\nT2\tFrequency 11 16\tnever\n",
    "inside a character": "T1\tTobacco 16 22\tSmokes\nT2\tAlcohol 41 45;46 49\twine now\n",
}


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("case", MISPLACED)
def test_files_whose_offsets_mean_nothing_are_left_out_and_numbered(
    write, case: str, corrected: bool
) -> None:
    folder = write({**FILLER, "n1.txt": LINES, "n1.ann": MISPLACED[case]})
    dataset = read("social_history", folder, corrected=corrected)
    assert len(everything(dataset)) == len(FILLER) // 2
    (note,) = (note for note in dataset.notes if "left out" in note)
    assert note.startswith("1 .ann files left out, as in no way of counting")
    assert note.endswith("by name they are number 5")
    assert "n1" not in note
    assert "wine" not in note


def test_offsets_that_may_mean_two_things_are_left_out(write) -> None:
    """One A stands at this offset in bytes, another where a byte order mark counts."""
    folder = write({**FILLER, "n1.txt": "éé AAx", "n1.ann": "T1\tType 5 6\tA\n"})
    assert len(everything(read("social_history", folder))) == len(FILLER) // 2


def test_a_folder_without_a_file_that_fits_is_refused(write) -> None:
    wrong = {
        f"{i}.{end}": x
        for i in range(3)
        for end, x in (("txt", "No."), ("ann", "T1\tType 0 3\tYes\n"))
    }
    message = refused("social_history", write(wrong))
    assert "3 .ann files left out" in message
    assert "are the .txt files those annotated?" in message


def test_a_changed_text_beside_a_span_proves_nothing(write) -> None:
    spans = ann(len, LINES) + "T9\tExtent 23 32\tdaily nuw\n"
    dataset = read("social_history", write({**FILLER, "n1.txt": LINES, "n1.ann": spans}))
    assert "1 spans that say another text than stands there" in dataset.notes
    assert len(everything(dataset)) == 1 + len(FILLER) // 2


PIECES = [
    ("lives\nalone now", "0 5;6 11", True),
    ("lives \n\t alone now", "0 5;9 14", True),
    ("lives\r\nalone now", "0 5;6 11", True),
    ("lives\nalone now", "0 5;5 6;6 11", True),
    ("lives\nalone now", "6 11;0 5", True),
    ("li\nves\nalone now", "0 2;3 6;7 12", True),
    ("lives all alone now", "0 5;10 15", False),
    ("lives, alone now", "0 5;7 12", False),
]


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize(("text", "offsets", "is_one"), PIECES)
def test_pieces_with_white_space_between_are_one_span(
    write, text: str, offsets: str, is_one: bool, corrected: bool
) -> None:
    spans = f"T1\tLivingStatus {offsets}\tlives alone\n"
    if offsets == "0 2;3 6;7 12":
        spans = f"T1\tLivingStatus {offsets}\tli ves alone\n"
    folder = write({**FILLER, "n1.txt": text, "n1.ann": spans})
    found = [tag for tag in tags(folder, corrected) if tag != "O"]
    words = 3 if text.startswith("li\n") else 2
    assert found == (["B-LivingStatus", *["I-LivingStatus"] * (words - 1)] if is_one else [])
    notes = read("social_history", folder, corrected=corrected).notes
    assert ("1 spans in several pieces, left out" in notes) == (not is_one)


@pytest.mark.parametrize(
    "empty", ["T9\tType 4 4\t\n", "T9\tType 0 0\n", "T9\tType 7 7;9 9\t\n", "T9\tOther 58 58\t \n"]
)
def test_empty_spans_do_not_refuse_a_data_set(write, empty: str) -> None:
    folder = write({**FILLER, "n1.txt": LINES, "n1.ann": empty + ann(len, LINES)})
    assert tags(folder) == TAGS
    assert "1 spans without a character, left out" in read("social_history", folder).notes
    write({"n1.ann": "T1\tType 9 4\tx\n"})
    assert "n1.ann, line 1: not a span" in refused("social_history", folder)


# COS: the text stands in the .ann file itself

REPORTS = {f"f{i}.ann": "T1\tSnippet 0 5\tclear\n" for i in range(5)}


def cos(write, snippet: str, before: Callable[[str], int], start: int) -> Dataset:
    spans = ann(lambda x: start + before(x), snippet, (("Loc", "left lung"), ("Val", "clear")))
    whole = f"T9\tSnippet {start} {start + before(snippet)}\t{snippet}\n"
    return read("cos", write({**REPORTS, "a.ann": spans + whole}))


@pytest.mark.parametrize(
    ("snippet", "before"),
    [
        ("Now the left lung is clear", len),
        ("T° 38 é: the left lung is clear", lambda x: len(x.encode())),
        ("🫁 the left lung is clear", lambda x: len(x.encode("utf-16-le")) // 2),
        ("Hôpital, été: left lung is clear", lambda x: len(x.encode())),
    ],
)
def test_cos_offsets_are_recognised_too(write, snippet: str, before: Callable[[str], int]) -> None:
    found = tags_of(cos(write, snippet, before, 200), "a.ann, line 3")
    assert [tag for tag in found if tag != "O"] == ["B-Loc", "I-Loc", "B-Val"]
    assert found[-1] == "B-Val"


def test_cos_files_whose_offsets_mean_nothing_are_left_out_and_numbered(write) -> None:
    spans = "T1\tSnippet 10 25\tThe left is new\nT2\tLoc 11 15\tleft\nT3\tVal 22 25\tnew\n"
    dataset = read("cos", write({**REPORTS, "a.ann": spans}))
    assert len(everything(dataset)) == len(REPORTS)
    (note,) = (note for note in dataset.notes if "1 .ann files left out" in note)
    assert note.endswith("by name they are number 1")


def test_cos_snippets_over_a_line_end_are_whole(write) -> None:
    spans = "T1\tSnippet 10 18;19 24\tThe left is new\nT2\tLoc 14 18\tleft\nT3\tVal 22 25\tnew\n"
    spans = spans.replace("19 24", "19 25")
    dataset = read("cos", write({**REPORTS, "a.ann": spans}))
    assert tags_of(dataset, "a.ann, line 1") == ["O", "B-Loc", "O", "B-Val"]
    write({"a.ann": spans.replace("10 18;19 25", "10 18;25 31")})
    assert "1 spans in several pieces, left out" in read("cos", write({})).notes


def test_cos_blanks_before_a_snippet_shift_it_only_as_upstream(write) -> None:
    spans = "T1\tSnippet 9 25\t The left is new\nT2\tLoc 14 18\tleft\nT3\tVal 22 25\tnew\n"
    folder = write({**REPORTS, "a.ann": spans})
    assert tags_of(read("cos", folder), "a.ann, line 1") == ["O", "O", "O", "O"]
    corrected = read("cos", folder, corrected=True)
    assert tags_of(corrected, "a.ann, line 1") == ["O", "B-Loc", "O", "B-Val"]
