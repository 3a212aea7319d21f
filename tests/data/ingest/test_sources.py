# SPDX-License-Identifier: Apache-2.0
"""The paper's datasets: each is read as it is distributed, and no record is lost unnoticed."""

import ast
import csv
import gzip
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bcmb_jax.data.ingest import SOURCES, Document, Skipped, read
from bcmb_jax.data.shards import open_shards
from bcmb_jax.data.tokenize import Tokenizer, load_tokenizer
from bcmb_jax.errors import InputError
from tests.fixtures.layouts import LAYOUTS, QUOTES, REPEATED, Row
from tests.fixtures.xml_files import FRONT, jats

ROOT = Path(__file__).parents[3]


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def rows(records: Any) -> list[Row]:
    """Every record as (file, line, text, group) or (file, line, reason)."""
    return [
        (r.file, r.line, r.text, r.group) if isinstance(r, Document) else (r.file, r.line, r.reason)
        for r in records
    ]


@pytest.mark.parametrize("source", LAYOUTS)
def test_a_source_is_read_as_it_is_distributed(tmp_path: Path, source: str) -> None:
    files, expected = LAYOUTS[source]
    assert rows(read([write(tmp_path, files)], source)) == expected


def test_every_clinical_source_has_a_layout_here() -> None:
    assert list(LAYOUTS) == [name for name in SOURCES if SOURCES[name].kind == "clinical"]


def test_the_sources_are_the_twenty_of_table_1() -> None:
    titles = [source.title for source in SOURCES.values() if source.paper]
    assert len(set(titles)) == len(titles) == 20
    assert titles == sorted(titles, key=str.lower)
    papers = [source.paper for source in SOURCES.values() if source.paper]
    assert sum(paper.samples for paper in papers) == 4_967_751
    # "The clinical datasets together amount to 2.8B tokens."
    assert sum(paper.tokens for paper in papers) == pytest.approx(2_883.67)
    assert all(source.licence and source.about and source.url for source in SOURCES.values())


def test_questions_are_read_from_tables_too(tmp_path: Path) -> None:
    content = (
        "\tmeta_info\tquestion\tanswer_idx\tanswer\toptions\n"
        "0\tstep1\tWhy?\tA\trest\t[{'key': 'A', 'value': \"dad's\"}, "
        "{'key': 'B', 'value': 'ice'}]\n"
        "1\tstep1\tWhy?\tA\trest\t[{'key': 'A'\n"
        "2\tstep1\tWhy?\tA\trest\t['A']\n"
    )
    file = write(tmp_path, {"medqa5_dev.tsv.gz": content}) / "medqa5_dev.tsv.gz"
    assert rows(read([file], "medqa")) == [
        ("medqa5_dev.tsv.gz", 2, "Why?\n\nA. dad's\nB. ice", None),
        ("medqa5_dev.tsv.gz", 3, "broken: text is not a string"),
        ("medqa5_dev.tsv.gz", 4, "broken: text is not a string"),
    ]
    only = [row[2] for row in rows(read([file], "medqa", "question"))]
    assert only == ["Why?", REPEATED, REPEATED]


def test_another_text_may_be_named_where_there_are_columns(tmp_path: Path) -> None:
    write(tmp_path, LAYOUTS["aci-bench"][0])
    texts = [row[2] for row in rows(read([tmp_path], "aci-bench", "dialogue,note"))]
    assert texts[1] == '[doctor] hi\n[patient] hi\n\nCC:\n\nknee "pain"'
    groups = [row[3] for row in rows(read([tmp_path], "aci-bench", None, "dataset")) if row[3:]]
    assert groups == ["aci", "virtscribe"]
    with pytest.raises(InputError, match="source ade has no columns"):
        read([tmp_path], "ade", "sentence")


def test_a_patients_table_may_be_given_beside_the_texts(tmp_path: Path) -> None:
    write(tmp_path, LAYOUTS["inspect"][0])
    text, table = (
        tmp_path / f"full/{name}_20250611.tsv" for name in ("impressions", "study_mapping")
    )
    assert [row[3] for row in rows(read([text, table], "inspect")) if row[3:]] == ["77", "78"]
    with pytest.raises(InputError, match=r"no study_mapping_\*\.tsv, which says the patient"):
        read([text], "inspect")
    with pytest.raises(InputError, match=r"or --group-column impression_id to do without"):
        read([text], "inspect")
    assert [row[3] for row in rows(read([text], "inspect", None, "impression_id")) if row[3:]]
    with pytest.raises(InputError, match="the input holds no impressions_"):
        read([table], "inspect")


def test_what_is_not_the_distribution_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"NOTEEVENTS.csv": "SUBJECT_ID,TEXT\n1,a\n", "notes.csv": "id,body\n1,a\n"})
    for arguments, message in [
        (([tmp_path], "mimic-iii"), "not 'ISERROR': correct --skip-column"),
        (([tmp_path / "notes.csv"], "mimic-iii"), "columns id, body, not 'TEXT': correct --text"),
        (([tmp_path], "chexpert-plus"), r"holds no df_chexpert_plus_\*\.csv file"),
        (([tmp_path], "mimic-4"), "choose from csv, .*, aci-bench, .*, pubmed, pmc$"),
    ]:
        with pytest.raises(InputError, match=message):
            read(*arguments)


def notes(folder: Path, *flags: str, header: str = "SUBJECT_ID,ISERROR,TEXT") -> Path:
    lines = "".join(f"{i},{flag},note {i}\n" for i, flag in enumerate(flags))
    return write(folder, {"NOTEEVENTS.csv": f"{header}\n{lines}"})


@pytest.mark.parametrize("flag", ["1", "1.0", "true", "True", "t", " 1", "1.00 ", "Y", "yes"])
def test_a_note_marked_as_an_error_is_left_out_however_the_mark_is_written(
    tmp_path: Path, flag: str
) -> None:
    found = rows(read([notes(tmp_path, "", flag, "0.0")], "mimic-iii"))
    assert [row[2] for row in found] == ["note 0", "marked as an error", "note 2"]


@pytest.mark.parametrize("flag", ["", "0", "0.0", "false", "F", "no", "NaN", "null", "NA", "\\N"])
def test_a_note_not_marked_as_an_error_is_kept(tmp_path: Path, flag: str) -> None:
    assert [row[2] for row in rows(read([notes(tmp_path, flag)], "mimic-iii"))] == ["note 0"]


@pytest.mark.parametrize("flag", ["2", "error", "maybe", "-1", "10"])
def test_another_mark_is_an_error_that_does_not_show_it(tmp_path: Path, flag: str) -> None:
    records = read([notes(tmp_path, "", flag)], "mimic-iii")
    with pytest.raises(InputError, match="line 3: 'ISERROR' is neither yes") as error:
        list(records)
    assert flag not in str(error.value).replace("yes (1,", "")


def test_the_column_of_marks_may_be_another_or_none(tmp_path: Path) -> None:
    folder = notes(tmp_path, "1", "t", "", header="SUBJECT_ID,wrong,TEXT")
    with pytest.raises(InputError, match=r"not 'ISERROR': correct --skip-column \(none: no row"):
        read([folder], "mimic-iii")
    for skip, kept in [("none", [0, 1, 2]), ("WRONG", [2])]:
        found = rows(read([folder], "mimic-iii", skip_column=skip))
        assert [row[1] - 2 for row in found if row[3:]] == kept
    (table,) = folder.iterdir()
    texts = [row[2] for row in rows(read([table], "csv", "TEXT", skip_column="wrong"))]
    assert texts == ["marked as an error"] * 2 + ["note 2"]


@pytest.mark.parametrize("change", [str.lower, str.title, lambda name: f" {name} "])
def test_columns_of_known_sources_match_without_regard_to_case(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    header = ",".join(map(change, ("SUBJECT_ID", "ISERROR", "TEXT")))
    found = rows(read([notes(tmp_path, "", "1", header=header)], "mimic-iii"))
    assert found == [
        ("NOTEEVENTS.csv", 2, "note 0", "0"),
        ("NOTEEVENTS.csv", 3, "marked as an error"),
    ]


def test_columns_of_other_formats_and_mapping_tables_match_so_too(tmp_path: Path) -> None:
    file = write(tmp_path, {"notes/day1_consultation01.json": '{"Note": "a"}'})
    assert [row[2] for row in rows(read([file], "primock57"))] == ["a"]
    questions = "QUESTION\tOPTIONS\nWhy?\t[{'key': 'A', 'value': 'x'}]\n"
    file = write(tmp_path, {"q.tsv": questions}) / "q.tsv"
    assert [row[2] for row in rows(read([file], "medqa"))] == ["Why?\n\nA. x"]
    contents = {
        "inspect/impressions_1.tsv": "IMPRESSION_ID\tIMPRESSIONS\n1000.0\ta\n 1001\tb\nNaN\tc\n",
        "inspect/study_mapping_1.tsv": "Impression_Id\tPerson_Id\n1000\t7.0\n1001.0\t7 \nNaN\t8\n",
    }
    folder = write(tmp_path, contents) / "inspect"
    groups = [row[3] for row in rows(read([folder], "inspect"))]
    assert groups == ["7", "7", None]


def test_two_columns_that_differ_by_case_are_not_guessed_between(tmp_path: Path) -> None:
    folder = notes(tmp_path, header="Text,ISERROR,text")
    with pytest.raises(InputError, match="'TEXT' more than once"):
        read([folder], "mimic-iii")


def test_reading_again_gives_the_same_records(tmp_path: Path) -> None:
    records = read([write(tmp_path, LAYOUTS["mimic-iii"][0])], "mimic-iii")
    assert rows(records) == rows(records) == LAYOUTS["mimic-iii"][1]


def script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/prepare_data.py", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )


def test_the_licence_travels_with_the_tokens(tmp_path: Path, tiny_tokenizer: Path) -> None:
    notes = "".join(f"{i // 2},,note {i}\n" for i in range(99))
    table = {"NOTEEVENTS.csv": f"SUBJECT_ID,ISERROR,TEXT\n{notes},,last\n"}
    arguments = ["--source", "mimic-iii", "--input", write(tmp_path / "in", table)]
    arguments += ["--tokenizer", tiny_tokenizer, "--output", tmp_path / "shards"]
    done = script(*arguments, "--validation-fraction", "0.2")
    assert done.returncode == 0, done.stderr
    assert "1 documents have no group" in done.stdout
    licence = "PhysioNet Credentialed Health Data Use Agreement 1.5.0"
    assert open_shards(tmp_path / "shards/train").index["license"] == licence
    done = script(*arguments, "--validation-fraction", "0", "--license", "DUA 12", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert open_shards(tmp_path / "shards/train").index["license"] == "DUA 12"


def test_licences_and_marks_are_options_of_the_script(tmp_path: Path, tiny_tokenizer: Path) -> None:
    for i, license in enumerate(["CC BY", "CC0", "CC BY-NC"]):
        name = f"in/PMC{i}.1/PMC{i}.1"
        content = jats(f"<p>text {i}</p>", FRONT.replace(">34<", f">{i}<"))
        write(
            tmp_path, {f"{name}.xml": content, f"{name}.json": f'{{"license_code": "{license}"}}'}
        )
    arguments = ["--source", "pmc", "--input", tmp_path / "in", "--tokenizer", tiny_tokenizer]
    arguments += ["--output", tmp_path / "shards", "--validation-fraction", "0"]
    done = script(*arguments, "--licenses", "CC BY, CC0")
    assert done.returncode == 0, done.stderr
    assert "train: 2 documents" in done.stdout
    assert "left out, under another licence: 1" in done.stdout
    index = open_shards(tmp_path / "shards/train").index
    assert index["license"] == "each article's own, one of CC BY, CC0"
    assert index["options"]["licenses"] == ["CC BY", "CC0"]
    table = notes(tmp_path / "table", "1", "", header="SUBJECT_ID,WRONG,TEXT")
    arguments = ["--source", "mimic-iii", "--input", table, *arguments[4:], "--overwrite"]
    assert script(*arguments).returncode != 0
    done = script(*arguments, "--skip-column", "wrong")
    assert "left out, marked as an error: 1" in done.stdout, done.stderr


def test_the_script_lists_every_source() -> None:
    done = script("--list-sources")
    assert done.returncode == 0, done.stderr
    blocks = done.stdout.split("\n\n")[1:]
    assert [block.split(":")[0] for block in blocks] == list(SOURCES)
    block = next(block for block in blocks if block.startswith("reflacx:"))
    for part in [
        "main_data/*/transcription.txt",
        "patient (subject_id in metadata_phase_?.csv)",
        "Credentialed Health Data Use Agreement",
        "2,543 samples, 0.1 M tokens",
        "unseen",
    ]:
        assert part in block


@pytest.fixture(scope="module")
def clinical(shared: Path) -> Path:
    return shared / "data/pretrain/clinical"


@pytest.fixture(scope="module")
def modernbert(shared: Path) -> Tokenizer:
    return load_tokenizer(str(shared / "data/tokenizers/modernbert"))


# source, its files, documents, groups, tokens; those of shared/data/README.md but for two. Its
# interviews (565,026) have their carriage returns; its MedQA (572,531) is another spelling of the
# options, near to a table's column as Python prints it.
REAL = [
    ("aci-bench", ["aci_bench"], 207, 207, 132_032),
    ("negex", ["negex"], 2_056, 116, 65_885),
    ("id-68", ["id68"], 68, 1, 14_682),
    ("primock57", ["primock57"], 57, 1, 13_234),
]
REAL_SLOW = [
    ("ade", ["ade_corpus"], 20_896, 2_972, 533_774),
    ("mtsamples", ["mtsamples/mtsamples_subset.csv.gz"], 911, 1, 682_040),
    (
        "medqa",
        ["medqa/phrases_no_exclude_test.jsonl.gz", "medqa/medqa5_dev.tsv.gz"],
        2_545,
        1,
        520_986,
    ),
    ("respiratory-interviews", ["simulated_resp_interviews"], 272, 1, 563_826),
]


def documents(clinical: Path, source: str, files: list[str]) -> list[Document]:
    """All documents, after checking that nothing is left out but repeats."""
    records = list(read([clinical / file for file in files], source))
    assert {r.reason for r in records if isinstance(r, Skipped)} <= {REPEATED}
    return [r for r in records if isinstance(r, Document)]


@pytest.mark.parametrize(("source", "files", "count", "groups", "tokens"), [*REAL, *REAL_SLOW])
def test_real_files_give_the_known_documents(
    clinical: Path, source: str, files: list[str], count: int, groups: int, tokens: int
) -> None:
    found = documents(clinical, source, files)
    assert (len(found), len({document.group for document in found})) == (count, groups)


@pytest.mark.parametrize(
    ("source", "files", "count", "groups", "tokens"),
    [*REAL, *(pytest.param(*row, marks=pytest.mark.slow) for row in REAL_SLOW)],
)
def test_real_files_give_the_known_tokens(
    clinical: Path,
    modernbert: Tokenizer,
    source: str,
    files: list[str],
    count: int,
    groups: int,
    tokens: int,
) -> None:
    texts = [document.text for document in documents(clinical, source, files)]
    assert sum(map(len, modernbert.encode_batch(texts))) == tokens


def test_a_real_kaggle_file_has_repeats_and_gaps(clinical: Path) -> None:
    records = read([clinical / "mtsamples/mtsamples_kaggle_head.csv"], "mtsamples")
    kinds = Counter(r.reason if isinstance(r, Skipped) else "text" for r in records)
    assert kinds == {"text": 305, REPEATED: 12, "empty": 4, QUOTES: 1}  # its last row is cut


@pytest.mark.slow
def test_real_dialogues_and_notes(clinical: Path, modernbert: Tokenizer) -> None:
    texts = [d.text for d in read([clinical / "aci_bench"], "aci-bench", "dialogue,note")]
    # README has 458,961, without the blank line between the two.
    assert sum(map(len, modernbert.encode_batch(texts))) == 459_367


def test_real_questions_hold_what_was_counted_elsewhere(
    clinical: Path, modernbert: Tokenizer
) -> None:
    # README has 572,531 tokens of the questions that REAL_SLOW counts: with the options of the
    # table as Python prints them, where ours are spelled out. What is read is the same.
    folder = clinical / "medqa"
    with gzip.open(folder / "medqa5_dev.tsv.gz", "rt", newline="") as stream:
        table = list(csv.DictReader(stream, delimiter="\t"))
    printed = [f"{row['question']} {row['options']}" for row in table]
    ours = [d.text for d in read([folder / "medqa5_dev.tsv.gz"], "medqa")]
    for text, row in zip(ours, table, strict=True):
        options = [option["value"] for option in ast.literal_eval(row["options"])]
        assert text.startswith(row["question"])
        assert all(x in text for x in options)
    lines = [d.text for d in read([folder / "phrases_no_exclude_test.jsonl.gz"], "medqa")]
    assert len(printed) + len(lines) == 2_545
    counted = sum(map(len, modernbert.encode_batch([*printed, *lines])))
    assert counted == pytest.approx(572_531, rel=0.005)
