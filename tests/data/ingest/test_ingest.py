# SPDX-License-Identifier: Apache-2.0
"""Readers: every record of every format is a document or is accounted for."""

import gzip
import json
from decimal import Decimal
from pathlib import Path

import pytest

from bcmb_jax.data.ingest import Document, Skipped, read
from bcmb_jax.data.ingest.files import list_files
from bcmb_jax.errors import InputError
from tests.fixtures.ingested import records

BOM = b"\xef\xbb\xbf"


def test_links_out_of_a_folder_are_counted_and_named(tmp_path: Path, caplog) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    (tmp_path / "in" / "b.txt").symlink_to(tmp_path / "in" / "c.md")
    (tmp_path / "in" / "c.md").write_text("inside")
    (tmp_path / "far").mkdir()
    for name in ("1.txt", "2.txt"):
        (tmp_path / "far" / name).write_text(name)
    assert len(list_files([tmp_path / "in"], ["*.txt"])) == 2
    assert not caplog.records
    (tmp_path / "in" / "far").symlink_to(tmp_path / "far")
    assert len(list_files([tmp_path / "in"], ["*.txt"])) == 4
    (line,) = (record.getMessage() for record in caplog.records)
    assert f"{tmp_path / 'in'}: 2 of 4 files lie outside of it, behind links" in line
    assert f"{tmp_path / 'in/far/1.txt'} at {tmp_path / 'far/1.txt'};" in line


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/a.txt").write_text("linked")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path / "far")
    (tmp_path / "far/loop").symlink_to(tmp_path / "in")
    assert [r.text for r in read([tmp_path / "in"], "text")] == ["linked"]


def test_utf16_without_its_mark_is_no_text(tmp_path: Path) -> None:
    assert records(tmp_path, b"t\0e\0x\0t\0", "text") == [("broken: holds NUL characters", 1)]


def test_jsonl_counts_what_it_cannot_use(tmp_path: Path) -> None:
    lines = [
        b'{"text": "a\\u2028b"}',
        b'{"text": ',
        b"[1]",
        b"",
        b'{"text": null}',
        b'{"text": 5}',
        b'{"other": "x"}',
        b'{"text": "\\ud800"}',
        b'{"text": "\xff"}',
        b'{"text":\r "\xe2\x80\xa8c"}',
    ]
    assert records(tmp_path, BOM + b"\n".join(lines), "jsonl") == [
        ("a\u2028b", 1),
        ("broken: not a JSON object", 2),
        ("broken: not a JSON object", 3),
        ("empty", 4),
        ("empty", 5),
        ("broken: text is not a string", 6),
        ("broken: no text column", 7),
        ("broken: not valid Unicode", 8),
        ("broken: not valid Unicode", 9),
        ("\u2028c", 10),
    ]


def test_jsonl_keys_may_appear_late_but_not_never(tmp_path: Path) -> None:
    content = b'{"id": 1}\n{"id": 2, "text": "a"}\n'
    assert records(tmp_path, content, "jsonl")[1] == ("a", 2)
    with pytest.raises(InputError, match="columns id, text, not 'body': correct --text-column"):
        records(tmp_path, content, "jsonl", "body")


def test_a_file_that_is_no_jsonl_is_refused(tmp_path: Path) -> None:
    assert records(tmp_path, b"[\n1\n]\n", "jsonl") == [
        ("broken: not a JSON object", line) for line in (1, 2, 3)
    ]
    assert records(tmp_path, b"", "jsonl") == []
    with pytest.raises(InputError, match="none of the first 100 lines"):
        records(tmp_path, b"x\n" * 200, "jsonl")


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "notes.parquet"
    notes = [*(f"note {i}" for i in range(3000)), None, " "]
    patients = [i // 2 for i in range(3002)]
    parquet.write_table(pyarrow.table({"note": notes, "patient": patients}), file)
    found = list(read([file], "parquet", group_column="patient"))
    assert found[2500] == Document("note 2500", "1250", "notes.parquet", 2501)
    assert found[3000:] == [Skipped("notes.parquet", line, "empty") for line in (3001, 3002)]
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match="not readable as Parquet"):
        read([file], "parquet")


def test_parquet_counts_what_it_cannot_use(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    notes = pyarrow.array([b"fine", b"na\xefve"], pyarrow.binary()).view(pyarrow.string())
    table = pyarrow.table({"note": notes, "patient": [float("nan"), 2.0]})
    parquet.write_table(table, tmp_path / "notes.parquet")
    assert list(read([tmp_path], "parquet", group_column="patient")) == [
        Document("fine", None, "notes.parquet", 1),
        Skipped("notes.parquet", 2, "broken: not valid Unicode"),
    ]


def test_text_is_one_document_a_file_in_its_encoding(tmp_path: Path) -> None:
    contents = {
        "b/1.txt": "é\r\nx\n".encode("utf-8-sig"),
        "b/2.txt": "é\r\nx\n".encode("utf-16"),
        "a.txt": b" \n",
        "c.TXT": b"\xff\xfe\x00",
        "d.txt": b"caf\xe9",
        "e.md": b"no",
        ".hidden/f.txt": b"no",
    }
    for name, content in contents.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    (tmp_path / "in/z.txt.gz").write_bytes(gzip.compress(b"zipped"))
    assert list(read([tmp_path / "in"], "text")) == [
        Skipped("a.txt", 1, "empty"),
        Document("é\nx\n", None, "b/1.txt", 1),
        Document("é\nx\n", None, "b/2.txt", 1),
        Skipped("c.TXT", 1, "broken: not valid Unicode"),
        Skipped("d.txt", 1, "broken: not valid Unicode"),
        Document("zipped", None, "z.txt.gz", 1),
    ]


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "text"])
def test_every_plain_format_may_be_gzipped(tmp_path: Path, format: str) -> None:
    plain = {"jsonl": b'{"text": "x"}\n', "text": b"x"}.get(format, b"text\nx\n")
    packed = gzip.compress(plain)
    assert records(tmp_path, packed, format) == records(tmp_path, plain, format)
    assert records(tmp_path, plain, format)[0][0] == "x"


def test_a_cut_gzip_file_is_an_error(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": f"note {hash(i * 7919)}"}) + "\n" for i in range(20_000))
    file = tmp_path / "notes.jsonl.gz"
    file.write_bytes(gzip.compress(lines.encode())[:-100])
    with pytest.raises(
        InputError, match=r", line \d\d+: damaged or incomplete gzip file after this"
    ):
        list(read([file], "jsonl"))


def test_several_columns_are_joined_by_blank_lines(tmp_path: Path) -> None:
    content = b"title,abstract,pmid\na,b,1\nc,,2\n,,3\n"
    expected = [("a\n\nb", 2), ("c", 3), ("empty", 4)]
    assert records(tmp_path, content, "csv", "title,abstract") == expected
    odd = b'"title,abstract",b\nx,y\n'
    assert records(tmp_path, odd, "csv", "title,abstract") == [("x", 2)]


@pytest.mark.parametrize(
    ("header", "expected"),
    [("BODY", "x"), ("id,TEXT", "y"), ("note_text,id", "x"), ("id,Notes", "y")],
)
def test_the_text_column_is_found(tmp_path: Path, header: str, expected: str) -> None:
    row = ["x", "y"][: header.count(",") + 1]
    content = f"{header}\n{','.join(row)}\n".encode()
    assert records(tmp_path, content, "csv") == [(expected, 2)]


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        ("id,body", (), "columns id, body: say which holds the text with --text-column"),
        ("text,note", (), "columns text, note: say which"),
        ("id,text", ("txt",), "columns id, text, not 'txt': correct --text-column"),
        ("id,text", ("text", "mrn"), "columns id, text, not 'mrn': correct --group-column"),
        ("text,text", ("text",), "'text' more than once"),
        ("", (), "does not begin with a header line"),
    ],
)
def test_a_wrong_column_names_those_that_exist(
    tmp_path: Path, header: str, columns: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        records(tmp_path, f"{header}\na,b\n".encode(), "csv", *columns)


def test_a_text_taken_for_a_header_is_not_shown(tmp_path: Path) -> None:
    for first in ("90,John Smith,HIV positive", "John Smith,was admitted with pain in the chest"):
        with pytest.raises(InputError, match="columns, not all of them with names") as caught:
            records(tmp_path, f"{first}\n2,other\n".encode(), "csv")
        assert "John" not in str(caught.value)


def test_a_missing_column_is_found_before_any_reading(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("id,text\n1,a\n")
    (tmp_path / "2.csv").write_text("id,txt\n1,a\n")
    with pytest.raises(InputError, match=r"^2.csv has the columns id, txt, not 'text'"):
        read([tmp_path], "csv", "text")


def test_groups_and_file_names(tmp_path: Path) -> None:
    for site in ("north", "south"):
        (tmp_path / site).mkdir()
        (tmp_path / site / "notes.csv").write_text("text,mrn\na,7\nb,\n")
    paths = [tmp_path / "south", tmp_path / "north/notes.csv"]
    assert list(read(paths, "csv", group_column="mrn")) == [
        Document("a", "7", "south/notes.csv", 2),
        Document("b", None, "south/notes.csv", 3),
        Document("a", "7", "north/notes.csv", 2),
        Document("b", None, "north/notes.csv", 3),
    ]


SAME = ["10006", "10006.0", " 10006", "10006 ", "10006.", "1.0006e+4", "1.0006E+04"]
OTHER = ["010006", "10006.5", "10007", "A10006", "10006a", "1.0006E4", "10,006"]
NONE = ["NaN", "nan", "NULL", "NA", "N/A", "None", "<NA>", "\\\\N", " ", "-"]


def test_ids_that_are_equal_are_one_group(tmp_path: Path) -> None:
    ids = [*SAME, *OTHER, *NONE]
    contents = {
        "csv": "id,text\n" + "".join(f'"{x}",a\n' for x in ids).replace("\\\\", "\\"),
        "jsonl": "".join(f'{{"id": "{x}", "text": "a"}}\n' for x in ids),
        "tsv": "id\ttext\n" + "".join(f"{x}\ta\n" for x in ids).replace("\\\\", "\\"),
    }
    expected = ["10006"] * len(SAME) + OTHER + [None] * len(NONE)
    for format, content in contents.items():
        file = tmp_path / f"notes.{format}"
        file.write_text(content)
        groups = [getattr(r, "group", "") for r in read([file], format, "text", "id")]
        assert groups == expected


def test_numbers_of_any_type_are_one_group(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    values = [
        pyarrow.array([10006], pyarrow.int64()),
        pyarrow.array([10006.0], pyarrow.float64()),
        pyarrow.array([10006.0], pyarrow.float32()),
        pyarrow.array([Decimal("10006.00")], pyarrow.decimal128(10, 2)),
        pyarrow.array(["10006 "]),
        pyarrow.array(["10006"]).dictionary_encode(),
    ]
    for i, ids in enumerate(values):
        parquet.write_table(pyarrow.table({"id": ids, "text": ["a"]}), tmp_path / f"{i}.parquet")
    found = read([tmp_path], "parquet", "text", "id")
    assert {getattr(record, "group", "") for record in found} == {"10006"}
    (tmp_path / "a.jsonl").write_text(
        '{"id": 10006, "text": "a"}\n{"id": 10006.0, "text": "a"}\n{"id": NaN, "text": "a"}\n'
        '{"id": 12345678901234567890, "text": "a"}\n{"id": 1e16, "text": "a"}\n'
        '{"id": 0.50, "text": "a"}\n{"id": null, "text": "a"}\n'
    )
    found = read([tmp_path / "a.jsonl"], "jsonl", "text", "id")
    assert [getattr(record, "group", "") for record in found] == [
        *("10006", "10006", None, "12345678901234567890", "10000000000000000", "0.5", None)
    ]


def test_wrong_inputs_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("x")
    for arguments, message in [
        (([file, tmp_path], "text"), "more than once"),
        (([tmp_path / "b"], "text"), "b does not exist"),
        (([tmp_path], "csv"), r"no \.csv or \.csv\.gz file"),
        (([file], "mds5"), "there is no source 'mds5': choose from csv"),
        (([file], "text", "note"), "text has no columns"),
    ]:
        with pytest.raises(InputError, match=message):
            read(*arguments)  # type: ignore[arg-type]


def test_fraction_says_how_far_reading_is(tmp_path: Path) -> None:
    for name in ("1.jsonl", "2.jsonl"):
        (tmp_path / name).write_text('{"text": "some words"}\n' * 5000)
    found = read([tmp_path], "jsonl")
    fractions = [found.fraction for _ in found]
    assert fractions == sorted(fractions)
    assert fractions[0] < 0.2 < 0.5 <= fractions[5000] < 0.7
    assert found.fraction == 1


def test_real_sources(shared: Path) -> None:
    clinical = shared / "data/pretrain/clinical"
    notes = list(read([clinical / "mtsamples/mtsamples_subset.csv.gz"], "csv"))
    assert len(notes) == 911
    assert all(isinstance(note, Document) for note in notes)
    interviews = list(read([clinical / "simulated_resp_interviews"], "text"))
    assert len(interviews) == 272
    assert all(isinstance(interview, Document) for interview in interviews)
    dialogues = list(
        read([clinical / "aci_bench"], "csv", "dialogue,note", "encounter_id", all_parts=True)
    )
    assert len({d.group for d in dialogues if isinstance(d, Document)}) == len(dialogues) == 207
