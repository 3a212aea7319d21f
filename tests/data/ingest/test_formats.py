# SPDX-License-Identifier: Apache-2.0
"""Plain formats: quotes and delimiters of csv and tsv, and what is broken."""

from pathlib import Path

import pytest

from bcmb_jax.data.ingest import Bounds
from bcmb_jax.errors import InputError
from tests.fixtures.ingested import records

BOM = b"\xef\xbb\xbf"


def test_csv_fields_may_hold_lines_quotes_and_delimiters(tmp_path: Path) -> None:
    content = BOM + b'id,text\r\n1,"a, ""b""\r\nc"\r\n2,d\r\n'
    assert records(tmp_path, content, "csv") == [('a, "b"\r\nc', 2), ("d", 4)]


def test_long_csv_fields_are_read(tmp_path: Path) -> None:
    text = "word " * 100_000
    assert records(tmp_path, f"text\n{text}\n".encode(), "csv") == [(text, 2)]


def test_csv_counts_what_it_cannot_use(tmp_path: Path) -> None:
    content = b'id,text\n1,a\n2\n3,b,c\n\n4,\n5," \n "\n"6"x,d\n7,\xff\n8,e\n'
    assert records(tmp_path, content, "csv") == [
        ("a", 2),
        ("broken: wrong number of columns", 3),
        ("broken: wrong number of columns", 4),
        ("empty", 5),
        ("empty", 6),
        ("empty", 7),
        ("broken: misplaced quote", 9),
        ("broken: not valid Unicode", 10),
        ("e", 11),
    ]


def test_an_open_quote_is_an_error_and_not_one_long_document(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 3: a quote .* is still open at line 4"):
        records(tmp_path, b'id,text\n1,a\n2,"b\n3,c\n', "csv")
    cut = b'id,text\n1,a\n2,"b'
    assert records(tmp_path, cut, "csv") == [("a", 2), ("broken: misplaced quote", 3)]


def test_the_rest_of_a_broken_record_is_no_document(tmp_path: Path) -> None:
    broken = b'1,"Pain "bad" today\nDenies fever, chills\nHome, stable"\n'
    assert records(tmp_path, b"id,text\n" + broken + b"2,fine\n3,too\n", "csv") == [
        *(("broken: misplaced quote", line) for line in (2, 3, 4)),
        ("fine", 5),
        ("too", 6),
    ]
    unclosed = b'id,text\n1,"a\n2,"b"\n3,"c"\n4,d\n'
    assert records(tmp_path, unclosed, "csv") == [
        ("broken: misplaced quote", 2),
        ("c", 4),
        ("d", 5),
    ]


def test_a_quote_left_open_does_not_fill_the_memory(tmp_path: Path) -> None:
    lines = "".join(f"{n},a short text\n" for n in range(2, 200))
    with pytest.raises(InputError, match="line 2: a quote opened in this record is still"):
        content = f'id,text\n1,"open\n{lines}'.encode()
        records(tmp_path, content, "csv", bounds=Bounds(1000))


def test_another_delimiter_is_seen(tmp_path: Path) -> None:
    assert records(tmp_path, b"mrn;note\n1;John\n", "csv") == [("John", 2)]
    with pytest.raises(InputError, match=r"is not delimited by ','.* --delimiter"):
        records(tmp_path, b"mrn;note\n1,John\n2,Anna\n", "csv")


def test_tsv(tmp_path: Path) -> None:
    assert records(tmp_path, b"id\tnote\n1\ta, b\n", "tsv") == [("a, b", 2)]


def test_utf16_tables_are_read(tmp_path: Path) -> None:
    assert records(tmp_path, "text\nnaïve\n".encode("utf-16"), "csv") == [("naïve", 2)]
