# SPDX-License-Identifier: Apache-2.0
"""Predictions as files: csv, jsonl, brat, and the columns of OMOP's NOTE_NLP."""

import csv
import io
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import bcmb_jax
from bcmb_jax.files import write_text
from bcmb_jax.inference.entities import Entity
from bcmb_jax.inference.rows import Row
from bcmb_jax.model.heads import Head

NOTE_NLP = (
    *("note_nlp_id", "note_id", "section_concept_id", "snippet", "offset", "lexical_variant"),
    *("note_nlp_concept_id", "note_nlp_source_concept_id", "nlp_system", "nlp_date"),
    *("nlp_datetime", "term_exists", "term_temporal", "term_modifiers"),
)
"""Columns of OMOP's table of the Common Data Model 5.4."""
ENTITY = ("start", "end", "label", "probability", "text")
DIGITS = 6  # of probabilities

Prediction: TypeAlias = Mapping[str, float] | Sequence[Entity] | None
"""Probabilities by label, or entities; None for a row without a text."""


class Form(NamedTuple):
    """How predictions are written.

    Attributes:
      head: the model's.
      with_id, with_text: whether the ids of rows, and words of texts, are written too.
    """

    head: Head
    with_id: bool
    with_text: bool

    @property
    def tags(self) -> bool:
        """Whether entities are predicted, not labels of texts."""
        return self.head.kind == "token_classification"

    def chosen(self, probabilities: Mapping[str, float]) -> list[str]:
        """Return the labels that hold: the most probable, or all from their thresholds on."""
        labels = self.head.labels
        if not self.head.problem_type.startswith("multi_label") and len(labels) > 1:
            return [max(labels, key=probabilities.__getitem__)]
        thresholds = self.head.thresholds or (0.5,) * len(labels)
        return [x for x, least in zip(labels, thresholds, strict=True) if probabilities[x] >= least]


Write: TypeAlias = Callable[[Form, Row, Prediction], bytes]


def csv_header(form: Form) -> bytes:
    """Return the first line of a csv."""
    own = [*ENTITY[:-1]] if form.tags else ["label"]
    probabilities = [] if form.tags else [f"probability {label}" for label in form.head.labels]
    return _line(["row", *["id"] * form.with_id, *own, *probabilities, *["text"] * form.with_text])


def csv_lines(form: Form, row: Row, prediction: Prediction) -> bytes:
    """Return a line for each entity, or one for the labels, joined by ";"."""
    begin = [row.number, *[row.name] * form.with_id]
    if form.tags:
        lines = [[*begin, *_numbers(x), *_words(form, row, x)] for x in _entities(prediction)]
        return b"".join(map(_line, lines))
    end = [row.text or ""] * form.with_text
    if not isinstance(prediction, Mapping):
        return _line([*begin, *[""] * (1 + len(form.head.labels)), *end])
    values = [round(prediction[label], DIGITS) for label in form.head.labels]
    return _line([*begin, ";".join(form.chosen(prediction)), *values, *end])


def jsonl_line(form: Form, row: Row, prediction: Prediction) -> bytes:
    """Return one object, with the reason where there is no prediction."""
    values: dict[str, object] = {"row": row.number}
    if form.with_id:
        values["id"] = row.name
    if prediction is None:
        values["skipped"] = row.skipped
    elif isinstance(prediction, Mapping):
        values["labels"] = form.chosen(prediction)
        values["probabilities"] = {x: round(p, DIGITS) for x, p in prediction.items()}
    else:
        values["entities"] = [
            dict(zip(ENTITY, [*_numbers(x), *_words(form, row, x)], strict=False))
            for x in prediction
        ]
    if form.with_text:
        values["text"] = row.text
    return json.dumps(values, ensure_ascii=False).encode() + b"\n"


def omop_header(form: Form) -> bytes:
    """Return the first line of a table NOTE_NLP."""
    return _line(NOTE_NLP)


def omop_lines(form: Form, row: Row, prediction: Prediction) -> bytes:
    """Return a line for each entity; no concept is known, and the label is a modifier."""
    values = dict.fromkeys(NOTE_NLP, "")
    values |= {"note_id": row.name if form.with_id else str(row.number), "term_exists": "Y"}
    values |= {"section_concept_id": "0", "note_nlp_concept_id": "0"}
    values |= {"note_nlp_source_concept_id": "0", "nlp_date": time.strftime("%Y-%m-%d")}
    values["nlp_system"] = f"bcmb_jax {bcmb_jax.__version__}"
    lines = []
    for number, x in enumerate(_entities(prediction), 1):
        values |= {"note_nlp_id": f"{row.number * 1_000_000 + number}", "offset": str(x.start)}
        values["lexical_variant"] = "".join(_words(form, row, x))
        values["term_modifiers"] = f"label={x.label};end={x.end};probability={x.score:.{DIGITS}f}"
        lines.append(_line(values.values()))
    return b"".join(lines)


def write_brat(form: Form, row: Row, prediction: Prediction, folder: Path, *, named: bool) -> None:
    """Write a text's .ann file; on request with the words of its entities, and the text beside it.

    Args:
      named: the file is called as the row is, else by its number.
    """
    file = folder / (row.name if named else f"{row.number:08}")
    text, lines = row.text or "", []
    for i, x in enumerate(_entities(prediction), 1):
        words = [words.replace("\n", " ") for words in _words(form, row, x)]
        lines.append("\t".join([f"T{i}", f"{x.label} {_pieces(text, x)}", *words]) + "\n")
    write_text(file.with_name(f"{file.name}.ann"), "".join(lines))
    if form.with_text:
        write_text(file.with_name(f"{file.name}.txt"), text)


def _pieces(text: str, entity: Entity) -> str:
    """Return an entity's offsets, over a line end in pieces as brat has them."""
    pieces, at = [], entity.start
    for line in text[entity.start : entity.end].split("\n"):
        if line:
            pieces.append(f"{at} {at + len(line)}")
        at += len(line) + 1
    return ";".join(pieces)


def _entities(prediction: Prediction) -> Sequence[Entity]:
    return [] if prediction is None or isinstance(prediction, Mapping) else prediction


def _numbers(entity: Entity) -> list[object]:
    """Return an entity as the first four of `ENTITY`."""
    return [entity.start, entity.end, entity.label, round(entity.score, DIGITS)]


def _words(form: Form, row: Row, entity: Entity) -> list[str]:
    """Return the words of an entity, if words are written."""
    return [(row.text or "")[entity.start : entity.end]] * form.with_text


def _line(values: Iterable[object]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(values)
    return out.getvalue().encode()


TEXTUAL: dict[str, tuple[Callable[[Form], bytes], Write]] = {
    "csv": (csv_header, csv_lines),
    "jsonl": (lambda form: b"", jsonl_line),
    "omop": (omop_header, omop_lines),
}
"""Formats of one file: its first line, and the lines of a row."""
