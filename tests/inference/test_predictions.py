# SPDX-License-Identifier: Apache-2.0
"""Predictions as files: numbers and offsets, and words only where they were asked for."""

import csv
import io
import json
from collections import Counter

import pytest

from bcmb_jax.evaluation.tasks.spans import place_spans, read_spans
from bcmb_jax.inference.entities import Entity
from bcmb_jax.inference.predictions import NOTE_NLP, TEXTUAL, Form, write_brat
from bcmb_jax.inference.rows import Row
from bcmb_jax.model.heads import Head

TEXT = 'takes "aspirin"\nplus daily; p\u00e4in'
ENTITIES = [Entity(7, 14, "Drug", 0.75), Entity(16, 26, "Dose", 0.5), Entity(28, 32, "Sign", 1.0)]
ROWS = [
    (Row(3, TEXT, "p,7"), ENTITIES),
    (Row(4, "none", "p8"), []),
    (Row(5, None, "", "empty"), None),
]
TAGS = Head("token_classification", ("B-Drug", "I-Drug", "O"))
SEVERAL = "multi_label_classification"


def lines(format: str, form: Form, rows=ROWS) -> list[dict]:
    header, write = TEXTUAL[format]
    data = header(form) + b"".join(write(form, *pair) for pair in rows)
    if format == "jsonl":
        return [*map(json.loads, data.splitlines())]
    return [*csv.DictReader(io.StringIO(data.decode(), newline=""))]


def test_entities_have_a_line_each() -> None:
    found = lines("csv", Form(TAGS, False, False))
    assert found[0] == {
        "row": "3",
        "start": "7",
        "end": "14",
        "label": "Drug",
        "probability": "0.75",
    }
    assert len(found) == 3
    found = lines("csv", Form(TAGS, True, True))
    assert [(x["id"], x["text"]) for x in found] == [
        ("p,7", "aspirin"),
        ("p,7", "plus daily"),
        ("p,7", "p\u00e4in"),
    ]


def test_rows_have_an_object_each() -> None:
    first, second, third = lines("jsonl", Form(TAGS, False, False))
    assert first["entities"][1] == {"start": 16, "end": 26, "label": "Dose", "probability": 0.5}
    assert second == {"row": 4, "entities": []}
    assert third == {"row": 5, "skipped": "empty"}
    first, *_ = lines("jsonl", Form(TAGS, True, True))
    assert (first["id"], first["text"], first["entities"][0]["text"]) == ("p,7", TEXT, "aspirin")


def test_omop_has_the_columns_of_note_nlp() -> None:
    first, *_ = lines("omop", Form(TAGS, False, False))
    assert tuple(first) == NOTE_NLP
    assert (first["note_id"], first["offset"], first["lexical_variant"]) == ("3", "7", "")
    assert first["term_modifiers"] == "label=Drug;end=14;probability=0.750000"
    found = lines("omop", Form(TAGS, True, True))
    assert [x["lexical_variant"] for x in found] == ["aspirin", "plus daily", "p\u00e4in"]
    assert len({x["note_nlp_id"] for x in found}) == 3
    assert found[0]["note_id"] == "p,7"


@pytest.mark.parametrize("with_text", [False, True])
def test_brat_reads_back_what_is_written(tmp_path, with_text) -> None:
    for row, prediction in ROWS:
        write_brat(Form(TAGS, False, with_text), row, prediction, tmp_path, named=False)
    files = ["00000003.ann", "00000004.ann", "00000005.ann"]
    assert sorted(x.name for x in tmp_path.glob("*.ann")) == files
    spans = read_spans(tmp_path / files[0], Counter())
    placed = place_spans(TEXT, spans, Counter())
    assert placed is not None
    assert [(x.start, x.end, x.kind) for x in placed[1]] == [x[:3] for x in ENTITIES]
    assert [x.text for x in spans] == (
        ["aspirin", "plus daily", "p\u00e4in"] if with_text else [""] * 3
    )
    assert (tmp_path / "00000003.txt").exists() == with_text
    write_brat(Form(TAGS, False, False), ROWS[0][0]._replace(name="a/n"), [], tmp_path, named=True)
    assert (tmp_path / "a" / "n.ann").read_text() == ""


@pytest.mark.parametrize(
    ("problem", "thresholds", "chosen"),
    [
        ("", (), ["b"]),
        (SEVERAL, (), ["b", "c"]),
        (SEVERAL, (0.1, 0.9, 0.55), ["a", "c"]),
        (SEVERAL, (1.0, 1.0, 1.0), []),
    ],
)
def test_labels_hold_from_their_thresholds_on(problem, thresholds, chosen) -> None:
    head = Head("sequence_classification", ("a", "b", "c"), "mean", problem, thresholds)
    probabilities = {"a": 0.25, "b": 0.6, "c": 0.55}
    rows = [(Row(1, "x"), probabilities), (Row(2, None, "", "empty"), None)]
    first, second = lines("csv", Form(head, False, False), rows)
    assert first["label"] == ";".join(chosen)
    assert [first[f"probability {x}"] for x in "abc"] == ["0.25", "0.6", "0.55"]
    assert [*second.values()] == ["2", "", "", "", ""]
    first, second = lines("jsonl", Form(head, False, False), rows)
    assert (first["labels"], first["probabilities"]) == (chosen, probabilities)
    assert second == {"row": 2, "skipped": "empty"}
