# SPDX-License-Identifier: Apache-2.0
"""Cleaning: only what is asked for changes, the same way every time, and all of it is counted."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from bcmb_jax.data.clean import Cleaner, Cleaning, replace_placeholders, unwrap
from bcmb_jax.data.ingest.record import Document, Skipped, TokenDocument
from bcmb_jax.errors import InputError
from tests.fixtures.notes import NOTE, documents, outcomes

# A megabyte takes about 0.1 s in any step; the square of that time, or of a tenth of it, does not
# fit in, on any machine.
MOST_SECONDS = 5.0


def test_nothing_happens_unasked() -> None:
    texts = [NOTE, NOTE, "[**Last Name 1**] ___", "x"]
    cleaner = Cleaner(Cleaning())
    assert list(cleaner.apply(documents(*texts))) == documents(*texts)
    assert not cleaner.counts


def test_all_of_it_is_counted_and_records_pass_in_order() -> None:
    skipped = Skipped("notes.csv", 9, "empty")
    tokens = TokenDocument(np.array([1, 2, 3]), "7", "shard", 1)
    cleaner = Cleaner(Cleaning(True, "surrogate", min_characters=4, exact_duplicates=True))
    texts = [NOTE, "a b\nc", "a b\nc d", NOTE, "Mr. ___", "[**1**]"]
    records = [skipped, *documents(*texts, group="7"), tokens]
    found = list(cleaner.apply(iter(records)))
    assert found[0] is skipped
    assert found[-1] is tokens
    reasons = [record.reason if isinstance(record, Skipped) else "" for record in found[1:-1]]
    short = "shorter than 4 characters"
    assert reasons == ["", short, "", "repeats an earlier text", "", ""]
    assert cleaner.counts == {
        "wrapped lines joined": 1,
        "placeholders replaced by surrogates": 2,
        "came as tokens, not cleaned": 1,
    }
    changed = [record for record in found if isinstance(record, Document)]
    assert {(d.group, d.file) for d in changed} == {("7", "notes.csv")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"placeholders": "drop"}, "--placeholders drop: choose keep or surrogate"),
        ({"min_characters": -1}, "--min-characters -1"),
        ({"near_duplicates": 0.3}, "--near-duplicates 0.3: a similarity of 0.5 to 1"),
        ({"near_duplicates": float("nan")}, "--near-duplicates nan"),
        ({"against": ["a"]}, "--not-in needs --exact-duplicates or --near-duplicates"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cleaning(**options)


MEGABYTES = {
    "one line": "word " * 200_000,
    "one word": "a" * 1_000_000,
    "lines": "a line of some words\n" * 50_000,
    "blank": "x" + "\n" * 1_000_000,
    "spaces": "x" + " " * 1_000_000 + "x",
    "open": "[**" * 300_000,
    "open lines": "[** and more words to fill the line up to its end\n" * 20_000,
    "stars": "[" + "*" * 1_000_000,
    "blanks": "some ___ words to fill " * 45_000,
    "underscores": "_" * 1_000_000,
    "capitals": "A" * 1_000_000 + ":",
    "numbers": "1" * 1_000_000,
    "hyphens": "-\n" * 500_000,
    "placeholders": "[**2101-3-4**] " * 60_000,
}


@pytest.mark.parametrize("name", MEGABYTES)
def test_a_megabyte_of_anything_takes_linear_time(name: str) -> None:
    text = MEGABYTES[name]
    steps: Sequence[Callable[[], Any]] = (
        lambda: unwrap(text),
        lambda: replace_placeholders(text, 0, "7"),
        lambda: outcomes(Cleaning(exact_duplicates=True, min_characters=1), text),
    )
    for step in steps:
        start = time.process_time()
        step()
        assert time.process_time() - start < MOST_SECONDS
