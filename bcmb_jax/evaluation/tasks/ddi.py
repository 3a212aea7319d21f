# SPDX-License-Identifier: Apache-2.0
"""Drugs in the DDI corpus: XML with a text for each sentence, and entities by character offsets.

An offset `0-4` takes both of its ends in, and `0-4;9-12` is in two pieces (Herrero-Zazo and others
2013, github.com/isegura/DDICorpus). No validation split is distributed: it is the sentences of 10 %
of the training documents (seed 42).
"""

import re
from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import Element

from bcmb_jax.errors import InputError, record_error
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.tasks import brat, reading
from bcmb_jax.evaluation.tasks.notes import read_marked
from bcmb_jax.evaluation.tasks.spans import Span, place_spans
from bcmb_jax.inference.entities import split_words

_OFFSETS = re.compile(r"\d{1,9}-\d{1,9}(?:;\d{1,9}-\d{1,9})*")
_RELATIONS = "ddi extraction"  # in the name of the test folder that is for relations alone


def read(directory: str | Path, classes: tuple[str, ...]) -> Dataset:
    """Read every .xml file below the folder; `test` folders are the test, but that of relations."""
    counts, labels = Counter[str](), reading.bio_tags(classes)
    documents: dict[str, list[list[Example]]] = {"train": [], "test": []}
    for file in reading.find_all(directory, "**/*.xml"):
        folders = file.relative_to(directory).parent.as_posix().casefold()
        if _RELATIONS in folders:
            counts["files of the test of relations, left out"] += 1
            continue
        found: list[Example] = []
        for line, sentence in read_marked(file, ("sentence",)):
            text = sentence.get("text", "")
            spans = [_span(file, line, x, text, classes) for x in sentence.iter("entity")]
            placed = place_spans(text, spans, counts) if spans else (text, [])
            words = split_words(placed[0]) if placed else []
            counts[
                "sentences without a word, or whose drugs stand elsewhere, left out"
            ] += not words
            if placed and words:
                ordered = sorted(placed[1], key=lambda span: span.start)
                shown, tags = brat.tag_words(placed[0], words, ordered, True, counts)
                where = reading.place(file.name, line)
                found.append(Example(where, shown, tuple(map(labels.index, tags))))
        documents["test" if "test" in folders else "train"].append(found)
    for split, notes in documents.items():
        if not any(notes):
            raise InputError(
                f"data folder {directory} holds no sentence of {split}: both are needed"
            )
    train, validation = reading.split_permuted(documents["train"], 0.1)
    parts = {"train": train, "validation": validation, "test": documents["test"]}
    splits = {split: [x for document in found for x in document] for split, found in parts.items()}
    return reading.dataset("tagging", labels, splits, reading.note_counts(counts))


def _span(file: Path, line: int, entity: Element, text: str, classes: tuple[str, ...]) -> Span:
    kind, offsets = entity.get("type", ""), entity.get("charOffset", "")
    reading.label_indices(classes, [kind], file, line)
    pairs = [x.split("-") for x in offsets.split(";")] if _OFFSETS.fullmatch(offsets) else []
    pieces = sorted((int(start), int(end) + 1) for start, end in pairs)
    if not pieces or any(not start < end <= len(text) for start, end in pieces):
        what = f"an entity without offsets 'first-last' in its text of {len(text):,} characters"
        raise record_error(file, line, what)
    return Span(kind, tuple(pieces), entity.get("text", ""), line)
