# SPDX-License-Identifier: Apache-2.0
"""Readers of texts with labels on made-up files: what they read, reproduce, count and refuse."""

import json
from typing import Any

import pytest

from bcmb_jax.evaluation.examples import SPLITS, Dataset
from bcmb_jax.evaluation.tasks import TASKS
from bcmb_jax.evaluation.tasks.reading import split_permuted
from tests.fixtures.task_readers import everything, read, refused

HEADER = "index\tsentence\tlabel\n"
SIX = ["CPR:3", "CPR:4", "CPR:5", "CPR:6", "CPR:9", "false"]
CHEMPROT = HEADER + "".join(f"{i}\tsentence {i}\t{label}\n" for i, label in enumerate(SIX))


def test_chemprot(write) -> None:
    quoted = '7\t"a ""quoted"" @GENE$"\tfalse\r\n'
    folder = write({"train.tsv.gz": CHEMPROT + quoted, "dev.tsv": CHEMPROT, "test.tsv": CHEMPROT})
    dataset = read("chemprot", folder)
    assert dataset.labels == tuple(SIX)
    assert dataset.splits["train"][6] == ("train.tsv.gz, line 8", 'a "quoted" @GENE$', (5,))
    assert [example.labels for example in dataset.splits["validation"]] == [(i,) for i in range(6)]
    assert dataset.notes == ()


def test_chemprot_says_what_is_rebuilt_and_what_a_split_lacks(write) -> None:
    few = HEADER + "1\ta sentence\tfalse\n"
    folder = write({"train.rebuilt.tsv.gz": CHEMPROT, "dev.tsv": CHEMPROT, "test.tsv": few})
    dataset = read("chemprot", folder)
    assert dataset.notes == (
        "train is rebuilt from the raw corpus (train.rebuilt.tsv.gz): not BLUE's rows",
        "test has no example of CPR:3, CPR:4, CPR:5, CPR:6, CPR:9",
    )
    assert dataset.splits["test"][0].labels == (5,)  # and not 0, as numbered by itself


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (
            "index\ttext\tlabel\n",
            "test.tsv has the columns index, text, label: none is 'sentence', and sentence, ",
        ),
        (
            HEADER + "1\ta\tCPR:7\n",
            "test.tsv, line 2: a label of 5 characters that is none of CPR:3, ",
        ),
        (HEADER + "1\ta\t\n", "test.tsv, line 2: no label where one of CPR:3, "),
        (HEADER + "1\ta\n", "test.tsv, line 2: broken: wrong number of columns"),
        (HEADER + "1\t \tfalse\n", "test.tsv, line 2: empty: mend the row or take it out"),
        (HEADER, "test.tsv holds no row"),
        (CHEMPROT.encode() + b"9\t\x81\tfalse\n", "test.tsv, line 8: bytes that are not UTF-8"),
        (
            HEADER + '1\t"a\tfalse\n2\tb\tfalse\n',
            "line 2: a quote opened in this record is still open at line 3",
        ),
    ],
    ids=["column", "label", "no label", "columns", "empty", "no rows", "bytes", "quote"],
)
def test_chemprot_names_bad_rows(write, test: str | bytes, message: str) -> None:
    folder = write({"train.tsv": CHEMPROT, "dev.tsv": CHEMPROT, "test.tsv": test})
    assert message in refused("chemprot", folder)


def test_columns_match_without_regard_to_case(write) -> None:
    lower = write({f"{x}.tsv": CHEMPROT for x in ("train", "dev", "test")})
    expected = read("chemprot", lower)
    for header in (
        "Index\tSentence\tLabel\n",
        "INDEX\tSENTENCE\tLABEL\n",
        "index\t sentence\tlabel \n",
    ):
        write({"train.tsv": CHEMPROT.replace(HEADER, header)})
        assert read("chemprot", lower) == expected
    write({"train.tsv": CHEMPROT.replace(HEADER, "Label\tsentence\tLABEL\n")})
    assert "two columns 'label': rename one" in refused("chemprot", lower)


def test_two_files_of_a_split_are_not_chosen_from(write) -> None:
    folder = write({"train.tsv": CHEMPROT, "train.rebuilt.tsv.gz": CHEMPROT})
    assert "holds train.tsv, train.rebuilt.tsv.gz: keep the one" in refused("chemprot", folder)


def test_a_header_that_is_a_text_is_not_shown(write) -> None:
    text = "a note about somebody " * 10
    folder = write({"train.tsv": text, "dev.tsv": text, "test.tsv": text})
    message = refused("chemprot", folder)
    assert "has 1 columns, not all of them with names (no header line? see column 1)" in message
    assert "somebody" not in message


def test_a_first_record_in_place_of_a_header_is_not_shown(write) -> None:
    rows = "smith\tpneumonia\njones\tasthma\nbrown\tcopd\n"
    folder = write({"train.tsv": rows, "dev.tsv": rows, "test.tsv": rows})
    message = refused("chemprot", folder)
    assert "has 2 columns, not all of them with names (no header line?" in message
    assert "smith" not in message
    assert "pneumonia" not in message


def test_scibert_chemprot(write) -> None:
    lines = json.dumps({"text": "<< a >> [[ b ]]", "label": "AGONIST"}) + "\n"
    folder = write({"train.txt": lines, "dev.txt.gz": lines, "test.txt": lines})
    dataset = read("chemprot_scibert", folder)
    assert len(dataset.labels) == 13
    assert dataset.splits["test"] == [("test.txt, line 1", "<< a >> [[ b ]]", (1,))]
    write({"test.txt": lines + "{\n"})
    assert "test.txt, line 2: broken: not a JSON object" in refused("chemprot_scibert", folder)
    write({"test.txt": '{"sentence": "a"}\n'})
    message = "test.txt has the columns sentence: none is 'text', and text, label are needed"
    assert message in refused("chemprot_scibert", folder)


def test_hoc_document(write) -> None:
    rows = "pmid\ttext\tlabels\n1\tp &lt; 0.01\tinducing angiogenesis;cellular energetics\n2\tb\t\n"
    folder = write({"train.tsv": rows, "dev.tsv": rows, "test.tsv": rows})
    dataset = read("hoc_document", folder)
    assert [example.labels for example in dataset.splits["train"]] == [(2, 6), ()]
    assert dataset.notes == ("3 abstracts with HTML entities (&lt;), left as they are",)
    write({"test.tsv": rows + "3\tc\tgrowth\n"})
    message = refused("hoc_document", folder)
    assert "test.tsv, line 4: a label of 6 characters that is none of activating inv" in message
    assert "growth," not in message
    write({"test.tsv": rows + "3\tc\tresisting cell death\n"})
    notes = read("hoc_document", folder).notes
    assert (
        notes[1] == "training has no example of resisting cell death, which validation or test have"
    )


def flags(*held: int) -> str:
    return ",".join(f"{i}_{int(i in held)}" for i in range(10))


def test_hoc_sentence(write) -> None:
    rows = (
        f'labels\tsentence\tindex\n{flags(0, 9)}\t" Reactive " or not\t1_s0\n{flags()}\tb\t1_s1\n'
    )
    folder = write({"train.tsv": rows, "dev.tsv": rows, "test.tsv": rows})
    assert read("hoc_sentence", folder).splits["test"] == [
        ("test.tsv, line 2", '" Reactive " or not', (0, 9)),
        ("test.tsv, line 3", "b", ()),
    ]
    for row, message in [
        (f"{flags()[4:]}\ta\t2_s0", "test.tsv, line 4, column 1: labels are not as '0_0,1_1"),
        (f"{flags()}\t \t2_s0", "test.tsv, line 4: the sentence is empty"),
        (f"{flags()}\ta", "test.tsv, line 4: 2 columns, where the header has 3"),
    ]:
        write({"test.tsv": rows + row + "\n"})
        assert message in refused("hoc_sentence", folder)
    write({"test.tsv": rows.encode() + b"\xff\n"})
    assert "test.tsv, line 4: bytes that are not UTF-8" in refused("hoc_sentence", folder)


def pubmedqa(**changed: Any) -> dict[str, str | bytes]:
    record = {"QUESTION": "Does it?", "CONTEXTS": ["It may.", "It did."], "final_decision": "yes"}
    records = {str(i): record for i in range(20)} | {"7": record | changed}
    truth = {str(i): "yes" for i in range(5)}
    return {"ori_pqal.json.gz": json.dumps(records), "test_ground_truth.json": json.dumps(truth)}


def test_pubmedqa(write) -> None:
    dataset = read("pubmedqa", write(pubmedqa()))
    assert dataset.labels == ("yes", "no", "maybe")
    assert [len(dataset.splits[split]) for split in SPLITS] == [13, 2, 5]
    where = "ori_pqal.json.gz, record 1"
    assert dataset.splits["test"][0] == (where, "Does it?\nIt may.\nIt did.", (0,))


def test_pubmedqa_names_bad_records(write) -> None:
    answer = refused("pubmedqa", write(pubmedqa(final_decision="perhaps")))
    assert "record 8: a label of 7 characters that is none of yes, no, maybe" in answer
    assert "record 8: the question or its" in refused("pubmedqa", write(pubmedqa(QUESTION=" ")))
    assert "record 8: expected the keys" in refused("pubmedqa", write(pubmedqa(CONTEXTS=None)))
    answer = refused("pubmedqa", write(pubmedqa(final_decision=["yes"])))
    assert "record 8: a label of 7 characters" in answer
    folder = write({**pubmedqa(), "test_ground_truth.json": '{"99": "yes"}'})
    assert "has 1 ids that ori_pqal.json.gz lacks: the two" in refused("pubmedqa", folder)
    write({"test_ground_truth.json": '{"1": "no"}'})
    message = "test_ground_truth.json, record 1: another answer than in ori_pqal.json.gz"
    assert message in refused("pubmedqa", folder)
    write({"test_ground_truth.json": '{\n"1": }'})
    assert "test_ground_truth.json, line 2, column 6: not JSON" in refused("pubmedqa", folder)


def test_csv_with_a_label_each(write) -> None:
    rows = "id,text,label\n1,a,x\n2,b,y\n"
    folder = write(
        {"train.csv": rows, "validation.csv.gz": rows, "test.tsv": "text\tlabel\nc\ty\n"}
    )
    dataset = read("csv", folder)
    assert (dataset.kind, dataset.labels) == ("single_label", ("x", "y"))
    assert dataset.splits["test"] == [("test.tsv, line 2", "c", (1,))]
    write({"test.tsv": "text\tlabel\nc\tz\n"})
    message = (
        "test.tsv, line 2: a label of 1 characters that is none of x, y: training has no example"
    )
    assert message in refused("csv", folder)
    write({"test.tsv": "text\tlabel\nc\t\n"})
    assert "test.tsv, line 2: no label" in refused("csv", folder)


def test_csv_with_several_labels(write) -> None:
    rows = "text,label\na,x; y\nb,\nc,y;y\n"
    folder = write({"train.csv": rows, "dev.csv": "text,label\na,x\n", "test.csv": rows})
    dataset = read("csv", folder)
    assert (dataset.kind, dataset.labels) == ("multi_label", ("x", "y"))
    assert [example.labels for example in dataset.splits["train"]] == [(0, 1), (), (1,)]
    assert dataset.splits["validation"][0].labels == (0,)


def test_csv_columns_are_named(write) -> None:
    rows = "title,abstract,class\nt,a,x\nu,b,y\n"
    folder = write({"train.csv": rows, "dev.csv": rows, "test.csv": rows})
    assert "say which holds the text with --text-column" in refused("csv", folder)
    message = refused("csv", folder, text_column="title")
    assert "title, abstract, class: say which holds the labels with --label-column" in message
    message = refused("csv", folder, text_column="title", label_column="kind")
    assert "train.csv has the columns title, abstract, class: none is 'kind'" in message
    dataset = read("csv", folder, text_column="title,abstract", label_column="class")
    assert dataset.splits["train"][0].text == "t\n\na"


def test_csv_texts_are_no_labels_and_not_shown(write) -> None:
    rows = "text,class\n" + "".join(f"{'somebody walked in ' * 9}{i},x\n" for i in range(9))
    message = refused(
        "csv", write({"a.csv": rows}) / "a.csv", text_column="text", label_column="text"
    )
    assert "a.csv, line 2: a label of 172 characters, at most 100 are one: say which" in message
    assert "somebody" not in message


def test_csv_of_one_file_is_split(write) -> None:
    rows = "text,label\n" + "".join(f"text {i},{'xy'[i % 2]}\n" for i in range(20))
    folder = write({"all.csv": rows})
    dataset = read("csv", folder)
    assert [len(dataset.splits[split]) for split in SPLITS] == [14, 3, 3]
    assert dataset.notes == ("one file is split 70/15/15 (seed 42)",)
    assert read("csv", folder / "all.csv") == dataset
    (folder / "all.csv").rename(folder / "train.csv")
    assert "holds no dev or devel" in refused("csv", folder)
    write({"train.csv": "text,label\na,x\nb,x\n"})
    assert "has 1 label: there is nothing to tell apart" in refused("csv", folder / "train.csv")


def patients(rows: int, size: int, *, missing: int = 0, first: int = 0) -> str:
    """Rows of patients with `size` notes each, and of some without a patient."""
    ids = [str(first + i // size) for i in range(rows)] + [""] * missing
    lines = [f"note {i},{'xy'[i % 2]},{patient}\n" for i, patient in enumerate(ids)]
    return "text,label,patient\n" + "".join(lines)


def rows_of(dataset: Dataset, split: str) -> set[int]:
    return {int(example.text.split()[1]) for example in dataset.splits[split]}


@pytest.mark.parametrize(
    ("rows", "size", "missing"), [(40, 4, 0), (39, 3, 0), (60, 15, 0), (20, 1, 0), (24, 4, 10)]
)
def test_csv_keeps_a_patient_in_one_split(write, rows: int, size: int, missing: int) -> None:
    folder = write({"all.csv": patients(rows, size, missing=missing)})
    dataset = read("csv", folder, group_column="patient")
    splits = {split: rows_of(dataset, split) for split in SPLITS}
    assert set.union(*splits.values()) == set(range(rows + missing))
    assert all(splits.values())
    held = [{row // size for row in found if row < rows} for found in splits.values()]
    assert sum(map(len, held)) == len(set.union(*held)) == rows // size
    assert dataset.notes[0].endswith(f", its {rows // size} groups of 'patient' whole")


def test_csv_patients_in_two_given_splits_are_refused(write) -> None:
    folder = write({f"{x}.csv": patients(8, 2, first=i) for i, x in ((0, "train"), (2, "dev"))})
    write({"test.csv": patients(8, 2, first=20)})
    message = refused("csv", folder, group_column="patient")
    assert "train.csv and dev.csv share 2 groups of 'patient': move each into one" in message
    write({"dev.csv": patients(8, 2, first=10)})
    assert len(read("csv", folder, group_column="patient").splits["test"]) == 8
    write({"test.csv": patients(8, 2, first=13)})
    assert "dev.csv and test.csv share 1 groups" in refused("csv", folder, group_column="patient")


@pytest.mark.parametrize(
    "spellings",
    [
        ("10006", "10006.0", " 10006 "),
        ("7", "7.00", "7.0"),
        ("A-1", "A-1", " A-1"),
        ("1.0E+03", "1000", "1000.0"),
    ],
)
def test_csv_groups_are_values_and_not_spellings(write, spellings: tuple[str, ...]) -> None:
    ids = [f"q{i}" if i % 2 else spellings[i % len(spellings)] for i in range(30)]
    lines = [f"note {i},{'xy'[i % 2]},{patient}" for i, patient in enumerate(ids)]
    folder = write({"all.csv": "\n".join(["text,label,Patient ", *lines]) + "\n"})
    dataset = read("csv", folder, group_column="patient")
    held = [{row % 2 for row in rows_of(dataset, split)} for split in SPLITS]
    assert sum(0 in rows for rows in held) == 1  # one patient has all the even rows
    assert "its 16 groups of 'patient' whole" in dataset.notes[0]


@pytest.mark.parametrize("word", ["", "NaN", "null", "NA", "None", "  "])
def test_csv_rows_without_a_group_are_apart(write, word: str) -> None:
    lines = [f"note {i},{'xy'[i % 2]},{word}" for i in range(20)]
    folder = write({"all.csv": "\n".join(["text,label,patient", *lines]) + "\n"})
    dataset = read("csv", folder, group_column="patient")
    assert [len(dataset.splits[split]) for split in SPLITS] == [14, 3, 3]
    assert "its 0 groups of 'patient' whole" in dataset.notes[0]


def test_csv_group_columns_are_checked(write) -> None:
    folder = write({"all.csv": patients(6, 2)})
    message = refused("csv", folder, group_column="patient")
    assert "all.csv has 3 groups: three splits need at least 4" in message
    assert "correct --group-column" in refused("csv", folder, group_column="person")


@pytest.mark.parametrize(
    "files",
    [
        {"a.csv": "text,label\n", "b.csv": "text,label\n"},
        {"dev.csv": "text,label\n", "test.csv": "text,label\n"},
        {"test.csv": "text,label\n"},
        {"notes.xlsx": "x", "labels.txt": "x"},
    ],
)
def test_csv_of_a_folder_without_train_says_how(write, files: dict[str, str]) -> None:
    message = refused("csv", write(files))
    assert (
        "holds no train as .csv or .tsv or .jsonl or .parquet (or .gz); it holds "
        + ", ".join(sorted(files))
        in message
    )
    assert "or give one file as --data, which is then split 70/15/15" in message


@pytest.mark.parametrize(
    "name", ["notes.csv", "train.csv", "NOTES.TSV", "notes.tsv.gz", "test.csv"]
)
def test_csv_reads_a_single_file(write, name: str) -> None:
    rows = patients(20, 1)
    if ".tsv" in name.lower():
        rows = rows.replace(",", "\t")
    dataset = read("csv", write({name: rows}) / name)
    assert [len(dataset.splits[split]) for split in SPLITS] == [14, 3, 3]


@pytest.mark.parametrize("column", ["sentence", "Sentence", "SENTENCE"])
def test_sentence_is_a_usual_text_column(write, column: str) -> None:
    rows = f"id,{column},label\n" + "".join(f"{i},a {i},{'xy'[i % 2]}\n" for i in range(20))
    dataset = read("csv", write({"all.csv": rows}))
    assert {example.text for example in everything(dataset)} == {f"a {i}" for i in range(20)}


# Phenotype

COLUMNS = ["HADM_ID", "ROW_ID", *TASKS["phenotype"].classes, "NONE"]


def annotation(row: int, *held: str) -> str:
    return f"9,{row}," + ",".join(str(int(name in held)) for name in COLUMNS[2:]) + "\n"


def phenotypes(*annotations: str, notes: str = "") -> dict[str, str | bytes]:
    rows = [annotation(i, "NONE") for i in range(20)]
    texts = "".join(f'{i},"note ""{i}""\nand more"\n' for i in range(20))
    return {
        "ACTdb102003.csv": ",".join(COLUMNS) + "\n" + "".join([*rows, *annotations]),
        "NOTEEVENTS.csv.gz": "ROW_ID,TEXT\n" + texts + notes,
    }


def test_phenotype(write) -> None:
    both = annotation(20, "OBESITY", "NONE")
    files = phenotypes(annotation(21, "UNSURE", "DEMENTIA"), both, notes="20,a\n21,b\n22,c\n")
    dataset = read("phenotype", write(files))
    assert len(dataset.labels) == 14
    assert dataset.labels[-1] == "UNSURE"
    assert [len(dataset.splits[split]) for split in SPLITS] == [14, 2, 5]
    examples = everything(dataset)
    assert ("ACTdb102003.csv, line 22", "b", (6, 13)) in examples
    assert ("ACTdb102003.csv, line 5", 'note "3"\nand more', ()) in examples
    left_out = "1 annotations with both NONE and a phenotype, left out"
    assert dataset.notes[0] == left_out
    assert not any(example.where.endswith("line 23") for example in examples)


def test_phenotype_files_saved_anew_are_the_same(write) -> None:
    files = phenotypes(annotation(21, "UNSURE", "DEMENTIA"), notes="21,b\n")
    expected = read("phenotype", write(files))
    table = str(files["ACTdb102003.csv"])
    header, *rows = table.splitlines()
    for yes, no in (("1.0", "0.0"), ("True", "False"), ("t", "f"), ("yes", "no")):
        cells = [[*row.split(",")] for row in rows]
        changed = [
            ",".join([x, f"{y}.0", *({"1": yes, "0": no}[z] for z in zs)]) for x, y, *zs in cells
        ]
        write({"ACTdb102003.csv": "\n".join([header.lower(), *changed]) + "\n"})
        notes = str(files["NOTEEVENTS.csv.gz"]).replace("ROW_ID,TEXT", "row_id,text")
        write({"NOTEEVENTS.csv.gz": notes})
        assert read("phenotype", write({})) == expected
    write({"ACTdb102003.csv": table.replace(",0\n", ",\n")})
    assert "NONE is not 0 or 1" in refused("phenotype", write({}))


def test_phenotype_is_split_in_the_order_of_the_annotations(write) -> None:
    files = phenotypes(annotation(30, "NONE"), annotation(25, "NONE"), notes="25,a\n30,b\n")
    dataset = read("phenotype", write(files))
    rest, test = split_permuted([*range(2, 22), 22, 23], 0.2)
    train, validation = split_permuted(rest, 0.125)
    for split, rows in zip(SPLITS, (train, validation, test), strict=True):
        assert [int(e.where.split("line ")[1]) for e in dataset.splits[split]] == rows


def test_phenotype_counts_notes_that_are_not_there(write) -> None:
    dataset = read("phenotype", write(phenotypes(annotation(50), notes="51,\n")))
    assert dataset.notes == (
        "1 rows of NOTEEVENTS.csv.gz left out (empty)",
        "1 annotations of notes that NOTEEVENTS.csv.gz lacks, left out",
    )
    folder = write({"NOTEEVENTS.csv.gz": "ROW_ID,TEXT\n99,a\n"})
    assert "has none of the 21 annotated notes" in refused("phenotype", folder)


def test_phenotype_names_bad_rows(write) -> None:
    odd = annotation(50).replace(",0\n", ",2\n")
    message = refused("phenotype", write(phenotypes(odd)))
    assert "ACTdb102003.csv, line 22: NONE is not 0 or 1" in message
    message = refused("phenotype", write(phenotypes(annotation(50).replace("50", "a"))))
    assert "ACTdb102003.csv, line 22: ROW_ID is not a number" in message
    message = refused("phenotype", write(phenotypes(notes="3,again\n")))
    assert "NOTEEVENTS.csv.gz, line 42: a ROW_ID that has come before" in message
    folder = write({"ACTdb102003.csv": "ROW_ID,OBESITY\n"})
    message = "ACTdb102003.csv has the columns ROW_ID, OBESITY: none is 'ADVANCED.CANCER'"
    assert message in refused("phenotype", folder)
