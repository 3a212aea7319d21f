# SPDX-License-Identifier: Apache-2.0
"""Tags of words make entities with the offsets of the text."""

import numpy as np
import pytest

from bcmb_jax.inference.entities import merge, split_words

LABELS = ("O", "B-Drug", "I-Drug", "B-Dose", "I-Dose", "Other")


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("O O O O", []),
        ("B-Drug O O O", [("one", "Drug")]),
        ("B-Drug I-Drug O B-Dose", [("one two", "Drug"), ("four", "Dose")]),
        ("B-Drug B-Drug I-Drug O", [("one", "Drug"), ("two  three", "Drug")]),
        ("B-Drug I-Dose I-Dose O", [("one", "Drug"), ("two  three", "Dose")]),
        ("O I-Drug I-Drug B-Dose", [("two  three", "Drug"), ("four", "Dose")]),
        ("Other Other O Other", [("one two", "Other"), ("four", "Other")]),
        ("I-Drug O I-Drug I-Drug", [("one", "Drug"), ("three four", "Drug")]),
    ],
)
def test_words_of_a_kind_are_one_entity(tags, entities) -> None:
    text = "one two  three four"
    tags = [LABELS.index(tag) for tag in tags.split()]
    probabilities = np.full((4, len(LABELS)), 0.01)
    probabilities[np.arange(4), tags] = (0.9, 0.8, 0.7, 0.6)
    found = merge(text, split_words(text), probabilities, LABELS)
    assert [(text[e.start : e.end], e.label) for e in found] == entities
    scores = {"one": 0.9, "two": 0.8, "three": 0.7, "four": 0.6}
    for entity in found:
        words = text[entity.start : entity.end].split()
        assert entity.score == pytest.approx(np.mean([scores[word] for word in words]))


def test_offsets_leave_out_the_space_of_a_token() -> None:
    text = "a  bc \n d"
    spans = [(0, 1), (1, 2), (2, 5), (5, 7), (7, 9)]  # " ", " bc", " \n", " d"
    found = merge(text, spans, np.eye(6)[[0, 0, 1, 2, 3]], LABELS)
    assert [(e.start, e.end, e.label) for e in found] == [(3, 5, "Drug"), (8, 9, "Dose")]
    assert merge(text, spans, np.eye(6)[[0, 1, 0, 3, 0]], LABELS) == []  # spaces alone


def test_no_words_no_entities() -> None:
    assert merge("", [], np.zeros((0, 6)), LABELS) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "IL-6 (3.5mg), q.d.",
            ["IL", "-", "6", "(", "3", ".", "5mg", ")", ",", "q", ".", "d", "."],
        ),
        ("cafe\u0301 na\u00efve\n\u03b2\u2082", ["cafe\u0301", "na\u00efve", "\u03b2\u2082"]),
        (" \t\n", []),
    ],
)
def test_words_are_runs_of_letters_or_single_characters(text, words) -> None:
    assert [text[start:end] for start, end in split_words(text)] == words
