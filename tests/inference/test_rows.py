# SPDX-License-Identifier: Apache-2.0
"""Rows of tables and texts of folders, numbered alike whatever the format."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from bcmb_jax.errors import InputError
from bcmb_jax.inference.rows import Row, Rows

NOTES = [("007", 'A "dry", cough\r\nsince May'), ("8.0", ""), ("", "N/A"), ("x", "naïve")]
EXPECTED = [
    Row(1, NOTES[0][1], "007"),
    Row(2, None, "8.0", "empty"),
    Row(3, "N/A", ""),
    Row(4, "naïve", "x"),
]


def table(suffix: str) -> bytes:
    if suffix == "jsonl":
        return "".join(json.dumps({"id": i, "Note": x}) + "\n" for i, x in NOTES).encode()
    if suffix == "parquet":
        sink = pyarrow.BufferOutputStream()
        ids, notes = zip(*NOTES, strict=True)
        pyarrow.parquet.write_table(pyarrow.table({"id": ids, "Note": notes, "n": [0] * 4}), sink)
        return sink.getvalue().to_pybytes()
    between = "\t" if suffix.startswith("tsv") else ","
    rows = [("id", "Note"), *NOTES]
    lines = [between.join('"' + x.replace('"', '""') + '"' for x in row) for row in rows]
    return ("\n".join(lines) + "\n").encode()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz", "jsonl", "parquet"])
def test_rows_are_the_same_in_every_format(write, suffix) -> None:
    file = write({f"t.{suffix}": table(suffix)}) / f"t.{suffix}"
    rows = Rows(file, "note", "id")
    assert [*rows] == EXPECTED
    assert [*rows] == EXPECTED
    assert [x.text for x in Rows(file, None, None)] == [x.text for x in EXPECTED]
    assert rows.is_table
    assert rows.fraction == 1
    assert next(iter(rows)) == EXPECTED[0]
    assert rows.fraction < 1


def test_texts_of_a_folder_are_rows_in_the_order_of_their_names(write) -> None:
    folder = write({"b.txt": "second", "a/one.txt": "first\r\nline", "c.txt": " ", "d.ann": "T1"})
    expected = [Row(1, "first\nline", "a/one"), Row(2, "second", "b"), Row(3, None, "c", "empty")]
    assert [*Rows(folder, None, "file")] == expected
    assert [*Rows(folder / "b.txt", None, None)] == [Row(1, "second", "b")]


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("t.csv", ("text", None), "t.csv has the columns id, Note, not 'text': correct --text"),
        ("t.csv", (None, "patient"), "id, Note: none is that of --id-column"),
        ("t.xml", (None, None), "t.xml is none of csv, tsv, jsonl, parquet and .txt by its name"),
        ("a", ("note", None), "a is text without columns: leave out --text-column"),
        ("a", (None, "id"), "of --id-column give 'file' or nothing"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_line(write, name, columns, message) -> None:
    folder = write({"t.csv": table("csv"), "t.xml": "<a/>", "a/n.txt": "dry cough"})
    with pytest.raises(InputError) as caught:
        [*Rows(folder / name, *columns)]
    assert message in str(caught.value)
    assert "cough" not in str(caught.value)
