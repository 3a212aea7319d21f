# SPDX-License-Identifier: Apache-2.0
"""Tables as hospitals have them: encodings, delimiters, headers, broken records, other formats."""

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import pytest

from bcmb_jax.data.ingest import Document, read
from bcmb_jax.data.ingest.header import is_header
from bcmb_jax.data.ingest.peek import peek
from bcmb_jax.errors import InputError
from tests.fixtures.ingested import records

QUOTE = "broken: misplaced quote"
WESTERN = "id,text\n1,Señor Núñez: naïve to treatment\n2,37.5 °C – “stable” ± 0.2 µg\n3,Müller’s\n"
KOREAN = "id,text\n1,우측 MCA 경색\n2,특이 소견 없음\n3,두통 and nausea\n"
POLISH = "text\nból głowy i gorączka\nźle się czuł i osłabiony\nżółtaczka\n"


def texts(folder: Path, content: bytes, format: str = "csv", **options: str) -> list[str]:
    (folder / f"notes.{format}").write_bytes(content)
    found = list(read([folder / f"notes.{format}"], format, "text", **options))
    assert all(isinstance(record, Document) for record in found), found
    return [record.text for record in found]


# Encodings


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (WESTERN, "cp1252"),
        ("text\n" + "plain words\n" * 500 + "café\n", "cp1252"),
        ("text\ncan’t walk\nfell\n", "cp1252"),
        ("text\nÀ jeun depuis 8 h\nà revoir – fièvre à 39°\n", "cp1252"),
        ("text\ndon´t know\n20\xa0mg\xa0daily\nÄRZTLICH geprüft\n", "cp1252"),
        ("text\nblå og øm\ni dag på ø-afsnit\n", "cp1252"),
        ("text\n가슴통증과호흡곤란\n두통\n", "utf-16-le"),
        (KOREAN, "cp949"),
        (KOREAN, "utf-16"),
        (KOREAN, "utf-16-le"),
        (WESTERN, "utf-16-be"),
        (WESTERN, "utf-8"),
        (KOREAN, "utf-8-sig"),
        (POLISH, "utf-8"),
    ],
)
def test_the_encoding_is_recognised_and_said(tmp_path, content, encoding) -> None:
    rows = [line.split(",", 1) for line in content.strip().split("\n")[1:]]
    body = "text\tid\n" + "".join(f"{row[-1]}\t{row[0]}\n" for row in rows)
    assert texts(tmp_path, body.encode(encoding), "tsv") == [row[-1] for row in rows]
    written = read([tmp_path / "notes.tsv"], "tsv", "text").written
    said = {} if encoding.startswith("utf-8") else {"notes.tsv": encoding}
    assert written == said


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (POLISH, "cp1250"),
        ("text\nПациент стабилен\nболь в груди\nжалоб нет\n", "cp1251"),
        ("text\n患者情况稳定\n头痛伴恶心\n胸部疼痛\n", "gb18030"),
        ("text\n右側の脳梗塞\n頭痛と吐き気\n特記事項なし\n", "shift_jis"),
        ("text\nfièvre élevée et très fatigué\nâgé de 80 années\ndécédé\n", "cp850"),
    ],
)
def test_an_encoding_that_cannot_be_told_is_asked_for(tmp_path, content, encoding) -> None:
    (tmp_path / "notes.tsv").write_bytes(content.encode(encoding))
    with pytest.raises(InputError, match=r"notes\.tsv is not UTF-8 .* name it with --encoding"):
        read([tmp_path / "notes.tsv"], "tsv", "text")
    found = texts(tmp_path, content.encode(encoding), "tsv", encoding=encoding)
    assert found == content.strip().split("\n")[1:]


@pytest.mark.parametrize("format", ["csv", "jsonl", "text"])
def test_an_encoding_that_is_named_counts_for_every_format(tmp_path, format) -> None:
    content = {"csv": "text\ngłowa\n", "jsonl": '{"text": "głowa"}\n', "text": "głowa"}[format]
    file = tmp_path / "in.txt.gz"
    file.write_bytes(gzip.compress(content.encode("cp1250")))
    assert [r.text for r in read([file], format, encoding="cp1250")] == ["głowa"]
    with pytest.raises(InputError, match="--encoding is for tables and texts: pubmed says its"):
        read([file], "pubmed", encoding="cp1250")
    with pytest.raises(InputError, match="--encoding klingon: Python knows no encoding"):
        read([file], format, encoding="klingon")


def test_an_encoding_that_is_named_is_taken_also_against_what_is_seen(tmp_path) -> None:
    (tmp_path / "in.csv").write_bytes("text\nMüller\nfine\n".encode("cp1252"))
    found = list(read([tmp_path], "csv", encoding="utf-8"))
    assert [getattr(r, "text", getattr(r, "reason", "")) for r in found] == [
        "broken: not valid Unicode",
        "fine",
    ]
    (tmp_path / "in.csv").write_bytes("\ufefftext\nnaïve\n".encode())
    assert [r.text for r in read([tmp_path], "csv", "text", encoding="utf-8")] == ["naïve"]
    with pytest.raises(
        InputError, match=r"in.csv: bytes .* not utf-16: .* another with --encoding"
    ):
        list(read([tmp_path], "csv", "text", encoding="utf-16"))


def test_a_damaged_byte_does_not_make_another_encoding(tmp_path) -> None:
    rows = "".join(f"{n},Müller’s note\n" for n in range(50))
    content = f"id,text\n{rows}".encode() + b"50,bad \xff\xfe byte\n51,fine\n"
    found = records(tmp_path, content, "csv")
    assert found[-2:] == [("broken: not valid Unicode", 52), ("fine", 53)]
    assert found[0] == ("Müller’s note", 2)


# Delimiters


@pytest.mark.parametrize("delimiter", [";", "|", "\t", ","])
def test_the_delimiter_is_recognised_and_said(tmp_path, delimiter) -> None:
    rows = [["mrn", "text", "value"], ["1", "a, b; c", "3,5"], ["2", 'said "hi"', "4,5"]]
    quoted = [['"{}"'.format(x.replace('"', '""')) for x in row] for row in rows]
    content = "\n".join(delimiter.join(row) for row in quoted).encode()
    for format, usual in (("csv", ","), ("tsv", "\t")):
        assert texts(tmp_path, content, format) == ["a, b; c", 'said "hi"']
        written = read([tmp_path / f"notes.{format}"], format).written
        name = {";": "semicolons", "|": "pipes", "\t": "tabs", ",": "commas"}[delimiter]
        assert written == ({} if delimiter == usual else {f"notes.{format}": name})


def test_more_commas_than_semicolons_do_not_make_commas(tmp_path) -> None:
    rows = "".join(f"{n};pain, fever{', chills' * (n % 4)};{n},5\n" for n in range(9))
    assert len(texts(tmp_path, f"id;text;dose, in mg\n{rows}".encode())) == 9


def test_a_single_column_with_another_delimiter_in_its_text_stays_one(tmp_path) -> None:
    assert texts(tmp_path, b'text\n"a; b"\n"c; d"\n') == ["a; b", "c; d"]


def test_a_delimiter_may_be_named(tmp_path) -> None:
    content = b"id~text\n1~a, b\n"
    assert texts(tmp_path, content, delimiter="~") == ["a, b"]
    assert texts(tmp_path, b"id\ttext\n1\ta\n", delimiter="tab") == ["a"]
    for wrong in ("ab", '"', ""):
        if wrong:
            with pytest.raises(InputError, match="give one character, or tab"):
                texts(tmp_path, content, delimiter=wrong)
    (tmp_path / "x.jsonl").write_text('{"text": "a"}')
    with pytest.raises(InputError, match="--delimiter is for csv and tsv"):
        read([tmp_path / "x.jsonl"], "jsonl", delimiter=";")


# Headers


@pytest.mark.parametrize(
    "first",
    [
        "John Smith,HIV positive",
        "smith,pneumonia",
        "Smith,20210304",
        "note of 2021,x",
        "a,a",
    ],
)
def test_a_first_row_that_may_be_a_record_is_not_shown(tmp_path, first) -> None:
    rows = "Mary Jones,asthma\njones,copd\nBrown,20200101\nAnna Lee,HIV negative\n"
    with pytest.raises(InputError, match=r"has 2 columns, not all of them with names") as caught:
        records(tmp_path, f"{first}\n{rows}".encode(), "csv", "text")
    for word in ("John", "smith", "Smith", "HIV", "pneumonia", "20210304", "2021"):
        assert word not in str(caught.value)


def test_an_unnamed_index_does_not_hide_the_other_names(tmp_path) -> None:
    for index in ("", "Unnamed: 0", " "):
        content = f"{index},mrn,Befund\n0,7,kein Nachweis\n1,8,ohne Befund heute\n".encode()
        with pytest.raises(InputError, match=r"has the columns \(unnamed\), mrn, column 3 \("):
            records(tmp_path, content, "csv")
        assert records(tmp_path, content, "csv", "Befund")[0] == ("kein Nachweis", 2)
    assert records(tmp_path, b",body\n0,x y\n1,z\n", "csv") == [("x y", 2), ("z", 3)]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("note_txt", "note_text"), ("NoteText", "note_text"), ("mnr", "mrn"), ("zzz", None)],
)
def test_the_nearest_name_is_offered(tmp_path, asked, meant) -> None:
    content = b"mrn,note_text\n1,a b\n2,c d e\n"
    with pytest.raises(InputError, match="correct --text-column") as caught:
        records(tmp_path, content, "csv", asked)
    remark = f"(did you mean '{meant}'?)"
    assert (remark in str(caught.value)) == (meant is not None)


def test_a_header_is_unlike_the_rows_below_it() -> None:
    below = [[str(n), f"a note of {n} words", "ward"] for n in range(100)]
    assert is_header(["nummer", "Befund", "station"], below)
    assert not is_header(["nummer", "Befund", "ward"], below), "stands in its column again"
    assert not is_header(["17", "Befund", "station"], below)
    assert not is_header(["nummer", "nummer", "station"], below)
    assert not is_header(["visit 2021", "Befund", "station"], below)
    assert not is_header(["", ""], below)


# A look that shows no value


def test_peek_shows_columns_rows_and_lengths_but_no_value(tmp_path) -> None:
    blanks = ("", " ", "NaN", "N/A")  # cells without a value, however they are written
    rows = "".join(f"{n};{'secret ' * (n + 1)};{blanks[n]}\n" for n in range(4))
    (tmp_path / "notes.csv").write_bytes(f"mrn;note;blank\n{rows}9;\n".encode())
    lines = list(peek(read([tmp_path], "csv", "note")))
    assert lines[0] == "notes.csv (semicolons): 4 rows"
    assert lines[1] == "  left out, broken: wrong number of columns: 1"
    assert [line.split() for line in lines[3:]] == [
        ["mrn", "0.0%", "1", "1", "1"],
        ["note", "0.0%", "7", "18", "28"],
        ["column", "3", "100.0%", "0", "0", "0"],
    ]
    assert "secret" not in "\n".join(lines)


def test_peek_shows_places_where_the_first_row_is_a_record(tmp_path) -> None:
    (tmp_path / "x.csv").write_text("smith,pneumonia\njones,asthma\nbrown,copd\n")
    found = read([tmp_path], "csv", "smith")
    lines = list(peek(found))
    assert [line.split()[:2] for line in lines[2:]] == [["column", "1"], ["column", "2"]]
    assert not any(word in "\n".join(lines) for word in ("smith", "jones", "pneumonia"))


def test_peek_is_for_tables(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("a note")
    with pytest.raises(InputError, match="--peek shows tables"):
        list(peek(read([tmp_path], "text")))


def test_peek_reads_the_other_formats(tmp_path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "a.jsonl").write_text('{"text": "ab", "id": 1}\n{"text": null}\n')
    lines = list(peek(read([tmp_path], "jsonl")))
    assert lines[0] == "a.jsonl: 2 rows"
    assert lines[2].split() == ["text", "50.0%", "2", "2", "2"]
    table = pyarrow.table({"text": ["abc", "d", ""], "n": [10, None, 3]})
    parquet.write_table(table, tmp_path / "b.parquet")
    lines = list(peek(read([tmp_path], "parquet", "text")))
    assert [line.split() for line in lines[2:]] == [
        ["text", "33.3%", "1", "2", "3"],
        ["column", "2", "33.3%", "1", "2", "2"],
    ]


# Broken records


@pytest.mark.parametrize(
    ("before", "broken", "lines"),
    [
        ("", '1,"Pain "bad" "worse" today\nDenies fever, chills\nHome"\n', 3),
        ("", '1,"a "b" c" d\nsecond, line\nthird, line"\n', 3),
        ("", '1,"x "y" z"z" \nHe said,"hi"\nmore, text"\n', 3),
        ('8,"some text"\n9,plain\n7,a\n6,b\n5,c\n', '1,"a "b" c" d\nplan, home\nrest, pain\n', 3),
        ("1,a\n2,b b\n3,c\n4,d.\n5,e\n", '6,"a "b" c" d\nplan, 500 mg\nBP, 120/80\n', 3),
    ],
)
def test_no_line_of_a_broken_record_is_a_record(tmp_path, before, broken, lines) -> None:
    content = f"id,text\n{before}{broken}20,fine\n21,too\n"
    found = records(tmp_path, content.encode(), "csv")
    good = before.count("\n")
    assert [text for text, _ in found[good : good + lines]] == [QUOTE] * lines
    assert [text for text, _ in found[good + lines :]] == ["fine", "too"]


def test_records_whose_last_column_is_the_id_are_found_again(tmp_path) -> None:
    good = "".join(f"{'long ' * n}note{'.' * (n % 3)} {n},A-{n}\n" for n in range(8))
    content = f'text,id\n{good}"x "y" z" q,A-9\nhome, today\nfell, 2 times\nfine,A-10\n'
    found = records(tmp_path, content.encode(), "csv")
    assert [text for text, _ in found[8:]] == [QUOTE, QUOTE, QUOTE, "fine"]


def test_records_are_found_again_where_no_column_has_numbers(tmp_path) -> None:
    ids = "abcdefghij"
    good = "".join(f"{x}y,{'long ' * n}note{'.' * (n % 3)}\n" for n, x in enumerate(ids))
    content = f'id,text\n{good}zz,"x "y" z" q\nzy,some {"." * 9} words\nzx,"quoted"\n'
    found = records(tmp_path, content.encode(), "csv")
    assert [text for text, _ in found[10:]] == [QUOTE, "some ......... words", "quoted"]


# Files that are no tables yet


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("x.csv.bz2", bz2.compress, r"compressed with bzip2: bunzip2 --keep x\.csv\.bz2"),
        ("x.csv.xz", lzma.compress, "compressed with xz: xz --decompress"),
        ("x.csv", lambda data: b"\x28\xb5\x2f\xfd" + data, "with Zstandard: zstd --decompress x"),
        ("x.xls", lambda data: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + data, "old Excel workbook"),
        ("x.7z", lambda data: b"7z\xbc\xaf\x27\x1c" + data, "a 7z archive: 7z x x.7z"),
    ],
)
def test_other_files_are_named_with_a_way_to_convert_them(tmp_path, name, make, message) -> None:
    (tmp_path / name).write_bytes(make(b"id,text\n1,a\n"))
    with pytest.raises(InputError, match=message):
        read([tmp_path / name], "csv")
    if name != "x.csv":
        with pytest.raises(InputError, match=rf"holds no .*1 to be converted first, as {name}"):
            read([tmp_path], "csv")


def test_a_workbook_is_named(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "x.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(InputError, match="an Excel workbook or a zip archive: save it as CSV"):
        read([tmp_path / "x.xlsx"], "csv")


# Parts of a data set


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "test.csv"),
        ("train.csv", "valid.csv"),
        ("train/a.csv", "validation/a.csv"),
        ("notes_train.csv", "notes_dev.csv"),
        ("train-00000-of-00002.csv", "test-00000-of-00001.csv"),
        ("Training set.csv", "Evaluation set.csv"),
    ],
)
def test_a_folder_of_parts_is_no_corpus_unless_asked(tmp_path, names) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text\na\n")
    with pytest.raises(InputError, match=r"parts to train on and to evaluate with .* --all-parts"):
        read([tmp_path], "csv")
    assert len(list(read([tmp_path], "csv", all_parts=True))) == 2
    assert len(list(read([tmp_path / name for name in names], "csv"))) == 2


@pytest.mark.parametrize(
    "names", [("train.csv",), ("test.csv", "dev.csv"), ("trainee.csv", "contest.csv", "a.csv")]
)
def test_a_folder_of_one_kind_of_part_is_read(tmp_path, names) -> None:
    for name in names:
        (tmp_path / name).write_text("text\na\n")
    assert len(list(read([tmp_path], "csv"))) == len(names)


def test_the_korean_table_that_failed(shared: Path) -> None:
    case = shared / "cases/brain-mri-cp949"
    if not case.is_dir():
        pytest.skip("needs the folder of cases beside the checkout")
    found = read([case], "csv", "Text", "ID")
    notes = [record.text for record in found if isinstance(record, Document)]
    assert len(notes) == 30
    assert notes[0] == "1. Acute infarction, 우측 MCA ? 0"
    assert found.written == {"pone.0212778.s002.csv": "cp949"}
    assert [r.text for r in read([case], "brain-mri-stroke")] == notes
