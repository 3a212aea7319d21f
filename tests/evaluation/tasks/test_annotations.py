# SPDX-License-Identifier: Apache-2.0
"""Annotated spans of a user: the same entities whatever tool they were marked with."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset
from bcmb_jax.evaluation.tasks import annotations, tables
from tests.fixtures.task_readers import everything, tagged

TEXTS = [
    ("takes aspirin 81 mg daily", [(6, 13, "Drug"), (14, 19, "Dose")]),
    ("no chest pain , no aspirin", [(3, 13, "Sign"), (19, 26, "Drug")]),
    ("well today", []),
    ("heparin stopped", [(0, 7, "Drug")]),
    ("2 mg of heparin", [(0, 4, "Dose"), (8, 15, "Drug")]),
    ("nausea after heparin", [(0, 6, "Sign"), (13, 20, "Drug")]),
]
WORDS = [
    [
        ("takes", "O"),
        ("aspirin", "B-Drug"),
        ("81", "B-Dose"),
        ("mg", "I-Dose"),
        ("daily", "O"),
    ],
    [("2", "B-Dose"), ("mg", "I-Dose"), ("of", "O"), ("heparin", "B-Drug")],
]
PATIENT = ["p1", "p2", "p3", "p1", "p4", "p2"]
SECRET = "Zebedee"
NO_SPACY = "all.spacy is spaCy's DocBin, which only spaCy reads: pip install spacy"


def conll() -> dict[str, str]:
    lines = []
    for text, spans in TEXTS:
        at = 0
        for word in text.split():
            kind, start = next(((k, s) for s, e, k in spans if s <= at < e), ("", -1))
            lines.append(word + "\t" + (f"{'B' if at == start else 'I'}-{kind}" if kind else "O"))
            at += len(word) + 1
        lines.append("")
    return {"all.tsv": "\n".join(lines) + "\n"}


def brat() -> dict[str, str]:
    files = {}
    for i, (text, spans) in enumerate(TEXTS):
        files[f"notes/n{i}.txt"] = text
        lines = [f"T{j}\t{k} {s} {e}\t{text[s:e]}\n" for j, (s, e, k) in enumerate(spans)]
        files[f"notes/n{i}.ann"] = "".join(lines)
    return files


def jsonl(*records: dict) -> dict[str, str]:
    return {"all.jsonl": "".join(json.dumps(x) + "\n" for x in records)}


def doccano() -> dict[str, str]:
    pairs = zip(TEXTS, PATIENT, strict=True)
    return jsonl(*({"text": text, "label": spans, "patient": p} for (text, spans), p in pairs))


def doccano_entities() -> dict[str, str]:
    def entity(start, end, label):
        return {"id": 1, "label": label, "start_offset": start, "end_offset": end}

    return jsonl(
        *({"data": t, "entities": [entity(*x) for x in y], "relations": []} for t, y in TEXTS)
    )


def prodigy(answer: str = "reject") -> dict[str, str]:
    def span(start, end, label):
        return {"start": start, "end": end, "label": label, "token_start": 0}

    tasks = [
        {"text": t, "spans": [span(*x) for x in y], "answer": "accept", "meta": {"patient": p}}
        for (t, y), p in zip(TEXTS, PATIENT, strict=True)
    ]
    return jsonl(
        *tasks, {"text": "takes aspirin", "spans": [span(6, 13, "Drug")], "answer": answer}
    )


def label_studio() -> dict[str, str]:
    def result(start, end, label):
        return {"value": {"start": start, "end": end, "labels": [label]}, "type": "labels"}

    tasks = [
        {
            "data": {"text": t, "patient": p},
            "annotations": [
                {"result": [], "was_cancelled": True},
                {"result": [result(*x) for x in y]},
            ],
        }
        for (t, y), p in zip(TEXTS, PATIENT, strict=True)
    ]
    return {"all.json": json.dumps([*tasks, {"data": {"text": "not yet"}, "annotations": []}])}


def label_studio_min() -> dict[str, str]:
    records = [
        {"text": t, "label": [{"start": s, "end": e, "labels": [k]} for s, e, k in y]}
        for t, y in TEXTS
    ]
    return {"all.json": json.dumps(records)}


FILES = {
    "conll": conll,
    "brat": brat,
    "doccano": doccano,
    "doccano, its entities": doccano_entities,
    "prodigy": prodigy,
    "label-studio": label_studio,
    "label-studio, its JSON-MIN": label_studio_min,
}


def given(write, files: dict[str, str]) -> Path:
    folder = write(files)
    first = next(iter(files))
    return folder / first.split("/")[0]


@pytest.mark.parametrize("tool", FILES)
def test_every_tool_gives_the_same_entities(write, tool) -> None:
    path = given(write, FILES[tool]())
    format = annotations.recognise(path)
    assert format == tool.partition(",")[0]
    dataset = annotations.read(path, format)
    assert dataset.kind == "tagging"
    assert dataset.labels == ("B-Dose", "B-Drug", "B-Sign", "I-Dose", "I-Drug", "I-Sign", "O")
    found = [tagged(dataset, example) for example in everything(dataset)]
    assert len(found) == len(TEXTS)
    assert all(words in found for words in WORDS)
    assert sum(tag[0] == "B" for words in found for _, tag in words) == 9
    assert all(dataset.splits[split] for split in ("train", "validation", "test"))
    left_out = "1 records that were rejected, ignored or not annotated, left out"
    assert (left_out in dataset.notes) == (tool in ("prodigy", "label-studio"))


def patients(dataset: Dataset) -> list[set[str]]:
    texts = {"".join(text.split()): p for (text, _), p in zip(TEXTS, PATIENT, strict=True)}
    return [{texts["".join(x.text)] for x in split} for split in dataset.splits.values()]


@pytest.mark.parametrize("tool", ["doccano", "prodigy", "label-studio"])
def test_no_patient_is_in_two_splits(write, tool) -> None:
    path = given(write, FILES[tool]())
    found = patients(annotations.read(path, tool, group_column="patient"))
    assert sum(map(len, found)) == len(set.union(*found)) == 4
    with pytest.raises(InputError, match="none of 6 records has the field of --group-column"):
        annotations.read(path, tool, group_column="ward")


def test_folders_of_brat_and_documents_of_conll_stay_whole(write) -> None:
    files = {f"notes/{PATIENT[int(x[7])]}/{x[6:]}": text for x, text in brat().items()}
    found = patients(annotations.read(given(write, files), "brat"))
    assert sum(map(len, found)) == len(set.union(*found)) == 4
    lines = conll()["all.tsv"].replace(
        "heparin\tB-Drug\nstopped", "-DOCSTART-\tO\n\nheparin\tB-Drug\nstopped"
    )
    lines = lines.replace("no\tO\nchest", "-DOCSTART-\tO\n\nno\tO\nchest")
    path = write({"d/all.tsv": lines}) / "d" / "all.tsv"
    with pytest.raises(InputError, match="has 3 groups: three splits need at least 4"):
        annotations.read(path, "conll")


def test_given_splits_are_kept_and_must_not_share_a_patient(write) -> None:
    lines = doccano()["all.jsonl"].splitlines(keepends=True)
    files = {"train.jsonl": "".join(lines[:4]), "dev.jsonl": lines[4], "test.jsonl": lines[5]}
    path = write(files)
    dataset = annotations.read(path, annotations.recognise(path))
    assert [len(x) for x in dataset.splits.values()] == [4, 1, 1]
    with pytest.raises(InputError, match=r"share 1 groups of 'patient': move each into one"):
        annotations.read(path, "doccano", group_column="patient")


BAD = {
    "offsets": ({"text": SECRET, "label": [[0, 99, "Drug"]]}, "line 1: span 1 of 1 is not two"),
    "backwards": ({"text": SECRET, "label": [[3, 1, "Drug"]]}, "in its text of 7 characters"),
    "no list": ({"text": SECRET, "label": [SECRET]}, "line 1: span 1 of 1 is not two character"),
    "no text": (
        {"note": SECRET, "label": [[0, 3, "Drug"]]},
        "line 1: no text as text or data: name",
    ),
    "a name": ({"text": "x " + SECRET, "label": [[2, 9, SECRET * 20]]}, "at most 100 are one"),
    "nothing": ({"text": SECRET, "label": []}, "has no span: there is nothing to learn"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_told_without_a_value(write, case) -> None:
    record, message = BAD[case]
    path = given(write, jsonl(record))
    with pytest.raises(InputError) as caught:
        annotations.read(path, "doccano")
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)


def test_other_errors_are_one_line_too(write) -> None:
    folder = write({"all.jsonl": '{"text": "Zebedee"\n', "all.spacy": "x", "t.json": '[{"a": 1}]'})
    for format, name, message in (
        ("doccano", "all.jsonl", "all.jsonl, line 1: not JSON: mend the line"),
        ("spacy", "all.spacy", "cannot be read as a DocBin" if find_spec("spacy") else NO_SPACY),
        ("conll", "all.jsonl", "--group-column is for tables and JSON: conll has no columns"),
    ):
        group = "patient" if format == "conll" else None
        with pytest.raises(InputError) as caught:
            annotations.read(folder / name, format, group_column=group)
        assert message in str(caught.value)
    with pytest.raises(InputError, match="has no spans as Doccano"):
        annotations.recognise(folder / "t.json")


def test_a_table_is_recognised_and_read_in_every_format(write) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"note": f"text {i}", "label": ["a"] if i % 3 else ["a", "b"], "pid": i // 2}
        for i in range(12)
    ]
    folder = write(jsonl(*rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "all.parquet")
    lines = [f"{x['note']}\t{';'.join(x['label'])}\t{x['pid']}" for x in rows]
    (folder / "all.tsv").write_text("\n".join(["note\tlabel\tpid", *lines]))
    for name in ("all.jsonl", "all.parquet", "all.tsv"):
        assert annotations.recognise(folder / name) == annotations.TABLE
        dataset = tables.read(folder / name, group_column="pid")
        assert (dataset.kind, dataset.labels) == ("multi_label", ("a", "b"))
        assert len(everything(dataset)) == 12
        groups = [{int(str(x.text)[5:]) // 2 for x in split} for split in dataset.splits.values()]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 6
