# SPDX-License-Identifier: Apache-2.0
"""Problems, tests and treatments in notes of i2b2 2010: .con files beside tokenized .txt files.

A line `c="..." 5:3 5:4||t="problem"` is a concept from word 3 to word 4 of line 5; lines count from
1 and words from 0 (Uzuner and others 2011; n2c2.dbmi.hms.harvard.edu). No validation split is
distributed: it is the lines of 10 % of the training notes (seed 42).
"""

import re
from collections import Counter
from pathlib import Path

from bcmb_jax.errors import InputError, record_error
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.tasks import brat, reading
from bcmb_jax.evaluation.tasks.spans import DISCONTINUOUS, Span

_CONCEPT = re.compile(r'c="(.*)" (\d{1,9}):(\d{1,9}) (\d{1,9}):(\d{1,9})\|\|t="([^"]*)"')


def read(directory: str | Path, classes: tuple[str, ...]) -> Dataset:
    """Read every .con file below the folder with the .txt of its name; `test` folders are the test.

    An example is a line. A concept over several lines is counted and left out.
    """
    counts, labels = Counter[str](), reading.bio_tags(classes)
    texts: dict[tuple[bool, str], Path] = {}
    for file in reading.find_all(directory, "**/*.txt"):
        key = _key(file, directory)
        if key in texts:
            raise InputError(f"data folder {directory} holds two .txt of one name: keep one")
        texts[key] = file
    notes: dict[str, list[list[Example]]] = {"train": [], "test": []}
    for number, file in enumerate(reading.find_all(directory, "**/*.con"), 1):
        key = _key(file, directory)
        if key not in texts:
            counts[".con files without their .txt, left out"] += 1
            continue
        where = f"{Path(directory).name}, .con file {number}"  # whose name may be a patient's
        notes["test" if key[0] else "train"].append(
            _examples(file, texts[key], classes, labels, where, counts)
        )
    for split, found in notes.items():
        if not found:
            raise InputError(
                f"data folder {directory} holds no note of {split}: see the .con files"
            )
    train, validation = reading.split_permuted(notes["train"], 0.1)
    files = {"train": train, "validation": validation, "test": notes["test"]}
    splits = {split: [x for note in found for x in note] for split, found in files.items()}
    return reading.dataset("tagging", labels, splits, reading.note_counts(counts))


def _key(file: Path, directory: str | Path) -> tuple[bool, str]:
    return "test" in file.relative_to(directory).parent.as_posix().casefold(), file.stem


def _examples(
    file: Path,
    text: Path,
    classes: tuple[str, ...],
    labels: tuple[str, ...],
    where: str,
    counts: Counter[str],
) -> list[Example]:
    lines = [line for _, line in reading.read_lines(text)]
    words = [[word.span() for word in re.finditer(r"\S+", line)] for line in lines]
    spans: list[list[Span]] = [[] for _ in lines]
    for number, row in reading.read_lines(file):
        if not row.strip():
            continue
        match = _CONCEPT.fullmatch(row.strip())
        if not match:
            what = 'not a concept as \'c="text" 1:0 1:2||t="problem"\': mend it or take it out'
            raise record_error(file, number, what)
        line, first, last_line, last = map(int, match.group(2, 3, 4, 5))
        reading.label_indices(classes, [match[6]], file, number)
        if line != last_line:
            counts[DISCONTINUOUS] += 1
            continue
        if not 1 <= line <= len(lines) or not first <= last < len(words[line - 1]):
            what = f"words that its text of {len(lines):,} lines lacks: are both of one release?"
            raise record_error(file, number, what)
        piece = (words[line - 1][first][0], words[line - 1][last][1])
        spans[line - 1].append(Span(match[6], (piece,), match[1], number))
    found = []
    for i, line_words in enumerate(words):
        if line_words:
            ordered = sorted(spans[i], key=lambda span: span.start)
            shown, tags = brat.tag_words(lines[i], line_words, ordered, True, counts)
            place = reading.place(where, i + 1)
            found.append(Example(place, shown, tuple(map(labels.index, tags))))
    return found
