# SPDX-License-Identifier: Apache-2.0
"""Task readers on made-up files: what they read, reproduce, count and refuse."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sklearn.model_selection import train_test_split

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import SPLITS, Dataset, Example
from bcmb_jax.evaluation.splits import permuted
from bcmb_jax.evaluation.statistics import markdown, statistics
from bcmb_jax.evaluation.tasks import TASKS, phenotype
from bcmb_jax.evaluation.tasks.deid_masks import category

NAMES = (
    "chemprot phenotype cos social_history deid hoc_document hoc_sentence bc5cdr ncbi_disease "
    "pubmedqa chemprot_scibert conll csv"
).split()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write(**{"train.tsv": content})` is a folder with these files."""

    def write(files: dict[str, str | bytes]) -> Path:
        for name, content in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            data = content.encode() if isinstance(content, str) else content
            file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return tmp_path

    return write


def read(task: str, folder: Path, **options: Any) -> Dataset:
    return TASKS[task].read(folder, **options)


def refused(task: str, folder: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(task, folder, **options)
    return str(caught.value)


def everything(dataset: Dataset) -> list[Example]:
    return sorted(example for examples in dataset.splits.values() for example in examples)


def tagged(dataset: Dataset, example: Example) -> list[tuple[str, str]]:
    return [(w, dataset.labels[i]) for w, i in zip(example.text, example.labels, strict=True)]


def tags_of(dataset: Dataset, where: str) -> list[str]:
    """The tags of the one example from there."""
    (example,) = (example for example in everything(dataset) if example.where == where)
    return [dataset.labels[i] for i in example.labels]


def test_the_tasks_come_in_order_and_say_what_they_are() -> None:
    assert list(TASKS) == NAMES
    for name, task in TASKS.items():
        assert task.name == name
        assert task.about and task.source and task.files
        assert set(task.learning_rates) == {"base", "large"}


def test_the_papers_learning_rates() -> None:
    rates = {name: tuple(TASKS[name].learning_rates.values()) for name in NAMES[:5]}
    assert rates == {
        "chemprot": (5e-5, 2e-5),
        "phenotype": (8e-5, 5e-5),
        "cos": (1e-4, 1.5e-4),
        "social_history": (1.5e-4, 2e-4),
        "deid": (7e-5, 7e-5),
    }


@pytest.mark.parametrize("task", NAMES)
def test_a_wrong_folder_is_told_with_what_it_holds(task: str, write) -> None:
    folder = write({"poem.doc": "x"})
    message = refused(task, folder)
    assert f"data folder {folder} holds no " in message and "it holds poem.doc" in message
    assert "does not exist" in refused(task, folder / "missing")


@pytest.mark.parametrize("task", ["social_history", "cos", "deid", "chemprot"])
def test_a_file_is_no_folder(task: str, write) -> None:
    file = write({"train.tsv": "x"}) / "train.tsv"
    assert f"{file} is a file, not a folder" in refused(task, file)


# Tables

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
        ("index\ttext\tlabel\n", "test.tsv, line 1: no column 'sentence' among index, text, label"),
        (HEADER + "1\ta\tCPR:7\n", "test.tsv, line 2: unknown label 'CPR:7', none of CPR:3, "),
        (HEADER + "1\ta\t\n", "test.tsv, line 2: unknown label ''"),
        (HEADER + "1\ta\n", "test.tsv, line 2: broken: wrong number of columns"),
        (HEADER + "1\t \tfalse\n", "test.tsv, line 2: empty: mend the row or take it out"),
        (HEADER, "test.tsv holds no row"),
        (CHEMPROT.encode() + b"9\t\xff\tfalse\n", "test.tsv, line 8: bytes that are not UTF-8"),
        (HEADER + '1\t"a\tfalse\n2\tb\tfalse\n', "a quote opened in the record at line 2 is still"),
    ],
    ids=["column", "label", "no label", "columns", "empty", "no rows", "bytes", "quote"],
)
def test_chemprot_names_bad_rows(write, test: str | bytes, message: str) -> None:
    folder = write({"train.tsv": CHEMPROT, "dev.tsv": CHEMPROT, "test.tsv": test})
    assert message in refused("chemprot", folder)


def test_two_files_of_a_split_are_not_chosen_from(write) -> None:
    folder = write({"train.tsv": CHEMPROT, "train.rebuilt.tsv.gz": CHEMPROT})
    assert "holds train.tsv, train.rebuilt.tsv.gz: keep the one" in refused("chemprot", folder)


def test_a_header_that_is_a_text_is_not_shown(write) -> None:
    text = "a note about somebody " * 10
    folder = write({"train.tsv": text, "dev.tsv": text, "test.tsv": text})
    message = refused("chemprot", folder)
    assert "<220 characters>" in message and "somebody" not in message


def test_scibert_chemprot(write) -> None:
    lines = json.dumps({"text": "<< a >> [[ b ]]", "label": "AGONIST"}) + "\n"
    folder = write({"train.txt": lines, "dev.txt.gz": lines, "test.txt": lines})
    dataset = read("chemprot_scibert", folder)
    assert len(dataset.labels) == 13
    assert dataset.splits["test"] == [("test.txt, line 1", "<< a >> [[ b ]]", (1,))]
    write({"test.txt": lines + "{\n"})
    assert "test.txt, line 2: broken: not a JSON object" in refused("chemprot_scibert", folder)
    write({"test.txt": '{"sentence": "a"}\n'})
    message = "test.txt, line 1: no column 'text' among sentence: expected text, label"
    assert message in refused("chemprot_scibert", folder)


def test_hoc_document(write) -> None:
    rows = "pmid\ttext\tlabels\n1\tp &lt; 0.01\tinducing angiogenesis;cellular energetics\n2\tb\t\n"
    folder = write({"train.tsv": rows, "dev.tsv": rows, "test.tsv": rows})
    dataset = read("hoc_document", folder)
    assert [example.labels for example in dataset.splits["train"]] == [(2, 6), ()]
    assert dataset.notes == ("3 abstracts with HTML entities (&lt;), left as they are",)
    write({"test.tsv": rows + "3\tc\tgrowth\n"})
    assert "test.tsv, line 4: unknown label 'growth'" in refused("hoc_document", folder)
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
        (f"{flags()[4:]}\ta\t2_s0", "test.tsv, line 4: labels '1_0,2_0"),
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
    where = "ori_pqal.json.gz, record 0"
    assert dataset.splits["test"][0] == (where, "Does it?\nIt may.\nIt did.", (0,))


def test_pubmedqa_names_bad_records(write) -> None:
    answer = refused("pubmedqa", write(pubmedqa(final_decision="perhaps")))
    assert "record 7: unknown label 'perhaps', none of yes, no, maybe" in answer
    assert "record 7: the question or its" in refused("pubmedqa", write(pubmedqa(QUESTION=" ")))
    assert "record 7: expected the keys" in refused("pubmedqa", write(pubmedqa(CONTEXTS=None)))
    folder = write({**pubmedqa(), "test_ground_truth.json": '{"99": "yes"}'})
    assert "has 1 ids that ori_pqal.json.gz lacks, such as 99" in refused("pubmedqa", folder)
    write({"test_ground_truth.json": '{"1": "no"}'})
    assert "1 is 'no', but not in ori_pqal.json.gz" in refused("pubmedqa", folder)
    write({"test_ground_truth.json": '{\n"1": }'})
    assert "test_ground_truth.json, line 2: not JSON" in refused("pubmedqa", folder)


def test_csv_with_a_label_each(write) -> None:
    rows = "id,text,label\n1,a,x\n2,b,y\n"
    folder = write(
        {"train.csv": rows, "validation.csv.gz": rows, "test.tsv": "text\tlabel\nc\ty\n"}
    )
    dataset = read("csv", folder)
    assert (dataset.kind, dataset.labels) == ("single_label", ("x", "y"))
    assert dataset.splits["test"] == [("test.tsv, line 2", "c", (1,))]
    write({"test.tsv": "text\tlabel\nc\tz\n"})
    message = "test.tsv, line 2: unknown label 'z', none of x, y: training has no example of it"
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
    assert "train.csv, line 1: no column 'kind' among title, abstract, class" in message
    dataset = read("csv", folder, text_column="title,abstract", label_column="class")
    assert dataset.splits["train"][0].text == "t\n\na"


def test_csv_of_one_file_is_split(write) -> None:
    rows = "text,label\n" + "".join(f"text {i},{'xy'[i % 2]}\n" for i in range(20))
    folder = write({"all.csv": rows})
    dataset = read("csv", folder)
    assert [len(dataset.splits[split]) for split in SPLITS] == [14, 3, 3]
    assert dataset.notes == ("all.csv is split 70/15/15 (seed 42)",)
    assert read("csv", folder / "all.csv") == dataset
    (folder / "all.csv").rename(folder / "train.csv")
    assert "holds no dev or devel" in refused("csv", folder)
    write({"train.csv": "text,label\na,x\nb,x\n"})
    assert "has the one label x" in refused("csv", folder / "train.csv")


# Phenotype

COLUMNS = ["HADM_ID", "ROW_ID", *phenotype.LABELS, "NONE"]


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
    assert len(dataset.labels) == 14 and dataset.labels[-1] == "UNSURE"
    assert [len(dataset.splits[split]) for split in SPLITS] == [14, 2, 5]
    examples = everything(dataset)
    assert ("NOTEEVENTS.csv.gz, ROW_ID 21", "b", (6, 13)) in examples
    assert ("NOTEEVENTS.csv.gz, ROW_ID 3", 'note "3"\nand more', ()) in examples
    left_out = "1 annotations with both NONE and a phenotype, left out"
    assert dataset.notes[0] == left_out
    assert not any(example.where.endswith(" 20") for example in examples)


def test_phenotype_is_split_in_the_order_of_the_annotations(write) -> None:
    files = phenotypes(annotation(30, "NONE"), annotation(25, "NONE"), notes="25,a\n30,b\n")
    dataset = read("phenotype", write(files))
    rest, test = permuted([*range(20), 30, 25], 0.2)
    train, validation = permuted(rest, 0.125)
    for split, rows in zip(SPLITS, (train, validation, test), strict=True):
        assert [int(e.where.split("ROW_ID ")[1]) for e in dataset.splits[split]] == rows


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
    assert "ACTdb102003.csv, line 22: NONE is '2', not 0 or 1" in message
    message = refused("phenotype", write(phenotypes(annotation(50).replace("50", "a"))))
    assert "ACTdb102003.csv, line 22: ROW_ID is 'a', not a number" in message
    message = refused("phenotype", write(phenotypes(notes="3,again\n")))
    assert "NOTEEVENTS.csv.gz, line 42: ROW_ID 3 a second time" in message
    folder = write({"ACTdb102003.csv": "ROW_ID,OBESITY\n"})
    message = "ACTdb102003.csv, line 1: no column 'ADVANCED.CANCER' among ROW_ID, OBESITY"
    assert message in refused("phenotype", folder)


# Tagged words

BIO = "-DOCSTART-\tO\n\nheart\tB-Disease\nfailure\tI-Disease\n.\tO\n\n\nNo\tO\n"


def test_bio_files(write) -> None:
    four = "heart\t1\t0\tB-Disease\r\n\r\nNo 0 1 O\r\n"
    folder = write({"train.conll": BIO, "valid.iob.gz": BIO, "test.txt": four})
    dataset = read("conll", folder)
    assert dataset.labels == ("B-Disease", "I-Disease", "O")
    assert dataset.splits["train"] == [
        ("train.conll, line 3", ("heart", "failure", "."), (0, 1, 2)),
        ("train.conll, line 8", ("No",), (2,)),
    ]
    assert [example.text for example in dataset.splits["test"]] == [("heart",), ("No",)]
    assert dataset.notes == ("2 -DOCSTART- lines, which are no words",)


def test_bio_keeps_and_counts_what_is_odd(write) -> None:
    bare = "heart\tB\nfailure\tI\n\nof\tO\nhearts\tI\n"
    dataset = read("conll", write({"train.tsv": bare, "dev.tsv": bare, "test.tsv": bare}))
    assert dataset.labels == ("B-Entity", "I-Entity", "O")
    assert [example.labels for example in dataset.splits["train"]] == [(0, 1), (2, 1)]
    assert dataset.notes == (
        "9 bare tags B and I, read as B-Entity and I-Entity",
        "3 I- tags that begin an entity, kept as they are",
    )


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("heart\n", "test.tsv, line 1: no word and tag, but 1 column(s)"),
        ("a\tO\n\tO\n", "test.tsv, line 2: no word and tag, but 2 column(s) of which the first"),
        ("a\tS-Disease\n", "test.tsv, line 1: the last column is 'S-Disease', no BIO tag"),
        ("a\tO\nb\tB-Drug\n", "test.tsv, line 2: unknown label 'B-Drug', none of B-Disease"),
        ("\n-DOCSTART-\n\n", "test.tsv holds no sentence"),
        (b"a\tO\nb\xff\tO\n", "test.tsv, line 2: bytes that are not UTF-8"),
        (b"\x1f\x8b\x08broken", "test.tsv is a damaged or incomplete gzip file"),
    ],
    ids=["one column", "no word", "scheme", "kind", "empty", "bytes", "gzip"],
)
def test_bio_names_bad_lines(write, test: str | bytes, message: str) -> None:
    folder = write({"train.tsv": BIO, "devel.tsv": BIO, "test.tsv": test})
    assert message in refused("conll", folder)


def test_bio_of_another_corpus_is_refused(write) -> None:
    folder = write({"train.tsv": BIO, "devel.tsv": BIO, "test.tsv": BIO})
    assert len(read("ncbi_disease", folder).labels) == 3
    message = "tags Disease where this task has Chemical, Disease: this is another corpus"
    assert message in refused("bc5cdr", folder)
    write({"train.tsv": "a\tO\n"})
    assert "tags every word O: there is nothing to learn" in refused("conll", folder)


# brat

FILLER = {f"z{i}.ann": "T1\tSnippet 0 5\tclear\nT2\tVal 0 5\tclear\n" for i in range(10)}
SNIPPETS = (
    "T1\tSnippet 10 36\tThe left-lung is improved.\n"
    "T2\tLoc 14 23\tleft-lung\n"
    "T3\tCos 27 35\timproved\n"
    "T4\tVal 27 35\timproved\n"
    "T5\tAttr 18 23\t-lung\n"  # from the second word of T2 on
    "T6\tLoc 14 16\tle\n"  # within a word
    "T7\tRef 80 84\tthat\n"
    "T8\tEvent 14 23\tleft-lung\n"
    "T9\tLoc 14 18;19 23\tleft lung\n"
    "E1\tLoc:T2\n"
    "T10\tSnippet 40 43\tNo.\n"
)


def test_cos(write) -> None:
    dataset = read("cos", write({**FILLER, "a.ann": SNIPPETS}))
    assert len(dataset.labels) == 11 and dataset.labels.index("O") == 10
    assert [len(dataset.splits[split]) for split in SPLITS] == [8, 2, 2]
    example = next(e for e in everything(dataset) if e.where == "a.ann, line 1")
    assert tagged(dataset, example) == [
        ("The", "O"),
        ("left", "B-Loc"),
        ("-", "B-Attr"),
        ("lung", "I-Attr"),
        ("is", "O"),
        ("improved", "B-Val"),
        (".", "O"),
    ]
    assert tags_of(dataset, "a.ann, line 11") == ["O", "O"]
    assert set(dataset.notes) >= {
        "1 spans in several pieces, left out",
        "1 spans of other kinds, left out",
        "1 spans that lie in no snippet, left out",
        "2 spans that take words from an earlier one",
        "1 spans that get no word, as none lies wholly inside",
    }


def test_cos_takes_spans_in_the_order_of_the_file(write) -> None:
    spans = "T1\tSnippet 0 9\tleft lung\nT2\tAttr 5 9\tlung\nT3\tLoc 0 9\tleft lung\n"
    dataset = read("cos", write({**FILLER, "a.ann": spans}))
    assert tags_of(dataset, "a.ann, line 1") == ["B-Loc", "I-Loc"]


def test_cos_corrected(write) -> None:
    dataset = read("cos", write({**FILLER, "a.ann": SNIPPETS}), corrected=True)
    # T6 has the word it touches, of which T5 leaves nothing to T2.
    assert tags_of(dataset, "a.ann, line 1")[1:4] == ["B-Loc", "B-Attr", "I-Attr"]
    assert not any("that get no word" in note for note in dataset.notes)


def test_brat_names_bad_lines(write) -> None:
    folder = write({**FILLER, "a.ann": "T1\tSnippet 0 3\tNo.\nT2\tLoc x 3\tNo\n"})
    assert "a.ann, line 2: not a span as 'T1<tab>Kind" in refused("cos", folder)
    write({"a.ann": "T1\tSnippet 3 3\t\n"})
    assert "a.ann, line 1: not a span as" in refused("cos", folder)
    write({"a.ann": "T1\tSnippet 0 3\t\n"})
    assert "a.ann, line 1: the snippet has no text" in refused("cos", folder)
    write({"a.ann": b"T1\tSnippet 0 3\tNo.\nT2\tLoc 0 2\tN\xff\n"})
    assert "a.ann, line 2: bytes that are not UTF-8" in refused("cos", folder)


HISTORY = "He smokes daily.\nLives with his wife."
SPANS = (
    "T1\tStatusTime 3 9\tsmokes\n"
    "T2\tFrequency 10 15\tdaily\n"  # "daily." is not inside
    "T4\tTobacco 3 15\tsmokes daily\n"
    "T5\tTime 17 27\tLives with\n"
    "T6\tType 22 27\tother\n"
)


def histories(**files: str | bytes) -> dict[str, str | bytes]:
    filler = {f"{name}.{end}": "" for name in "bcdefghij" for end in ("txt", "ann")}
    texts = {name: "No habits." if name.endswith("txt") else "" for name in filler}
    return {**texts, "a.txt": HISTORY, "a.ann": SPANS, **files}


def test_social_history(write) -> None:
    folder = write(histories())
    dataset = read("social_history", folder)
    assert len(dataset.labels) == 51 and dataset.labels.index("O") == 50
    assert [len(dataset.splits[split]) for split in SPLITS] == [7, 1, 2]
    # Sorted by where they start; Tobacco takes "smokes" from Status, Type takes "with".
    expected = ["O", "B-Tobacco", "O", "B-Temporal", "B-Type", "O", "O"]
    assert tags_of(dataset, f"{folder.name}/a.txt") == expected
    assert set(dataset.notes) >= {
        "1 spans that get no word, as none lies wholly inside",
        "2 spans that take words from an earlier one",
        "1 spans that say another text than stands there",
    }


def test_social_history_corrected(write) -> None:
    files = {
        f"{split}/{name}": content
        for split in ("train", "dev", "test")
        for name, content in histories().items()
        if name[0] in {"train": "abcdef", "dev": "gh", "test": "ij"}[split]
    }
    folder = write(files)
    assert len(read("social_history", folder).splits["train"]) == 7
    dataset = read("social_history", folder, corrected=True)
    assert [len(dataset.splits[split]) for split in SPLITS] == [6, 2, 2]
    assert len(dataset.labels) == 53
    expected = ["O", "B-Tobacco", "B-Frequency", "B-Temporal", "B-Type", "O", "O"]
    assert tags_of(dataset, "train/a.txt") == expected


def test_what_a_later_span_leaves_of_another_is_kept_as_it_was_or_begun_anew(write) -> None:
    spans = "T1\tType 0 9\tHe smokes\nT2\tMethod 0 2\tHe\n"
    folder = write(histories(**{"a.ann": spans}))
    where = f"{folder.name}/a.txt"
    assert tags_of(read("social_history", folder), where)[:2] == ["B-Method", "I-Type"]
    corrected = read("social_history", folder, corrected=True)
    assert tags_of(corrected, where)[:2] == ["B-Method", "B-Type"]


def test_social_history_counts_lonely_files(write) -> None:
    folder = write(histories(**{"x.txt": "Alone.", "y.ann": ""}))
    dataset = read("social_history", folder)
    assert len(everything(dataset)) == 10
    assert set(dataset.notes) >= {
        "1 .ann files without their .txt, left out",
        "1 .txt files without their .ann, left out",
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.ann": "T1\tWeather 0 2\tHe\n"}, "a.ann, line 1: 'Weather' is none of the kinds"),
        ({"a.ann": "T1\tLivingSituation 0 2\tHe\n"}, "unknown label 'B-LivingSituation'"),
        ({"a.ann": "\nT1 Type 0 2\tHe\n"}, "a.ann, line 2: not a span as"),
        ({"a.txt": " \n"}, "a.txt is empty: take it and its .ann out"),
        ({"a.txt": b"He smokes.\n\xff"}, "a.txt, line 2: bytes that are not UTF-8"),
        ({"train/a.txt": ""}, "has 0 folders for validation (dev or devel or"),
    ],
    ids=["kind", "never", "span", "empty", "bytes", "split"],
)
def test_social_history_names_bad_files(write, files: dict[str, str], message: str) -> None:
    assert message in refused("social_history", write(histories(**files)))


# De-identification


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
    assert dataset.labels[0] == "O" and len(dataset.labels) == 13
    assert [len(dataset.splits[split]) for split in SPLITS] == [7, 2, 2]
    example = next(e for e in everything(dataset) if "record 1, note 1" in e.where)
    assert example.where == "id.text, line 1 (record 1, note 1)"
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
    return tagged(dataset, next(e for e in everything(dataset) if "record 1, note 1" in e.where))


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
    assert note + "left out" in corrected.notes and len(everything(corrected)) == 10


def test_deid_is_split_as_by_scikit_learn(write) -> None:
    dataset = read("deid", write(deid(("a", "a"))))
    train, rest = train_test_split(range(1, 12), test_size=0.3, random_state=42)
    validation, test = train_test_split(rest, test_size=0.5, random_state=42)
    for split, rows in zip(SPLITS, (train, validation, test), strict=True):
        numbers = [int(e.where.split("record ")[1].split(",")[0]) for e in dataset.splits[split]]
        assert numbers == rows


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
    assert "id.text, line 5 is record 2, note 1, but" in message
    assert "id.res, line 5 is record 7, note 1" in message
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


# Statistics


def test_statistics() -> None:
    dataset = Dataset(
        "tagging",
        ("B-a", "O"),
        {
            "train": [Example("1", ("x", "y"), (0, 1)), Example("2", ("z",), (1,))],
            "validation": [Example("3", (), ())],
            "test": [],
        },
        ("one thing",),
    )
    found = statistics(dataset, len)
    train = found["train"]
    assert (train.examples, train.mean_tokens, train.longest, train.empty) == (2, 3.5, 4, 0)
    assert train.by_label == (1, 2)
    assert found["validation"].empty == 1
    text = markdown(dataset, found)
    assert "2 labels (tagging); tokens with 2 special ones" in text
    assert "| train | 2 | 3.5 | 4 | 0 |" in text and "| O | 2 | 0 | 0 |" in text
    assert text.endswith("\n- one thing\n")
