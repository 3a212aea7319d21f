# SPDX-License-Identifier: Apache-2.0
"""Tagged words, one a line: the word first, its BIO tag last, a blank line between sentences.

The shared reader of all corpora in this layout (CoNLL, MTL-Bioinformatics-2016, BLUE).
"""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.tasks.folder import find_splits, lines, place
from bcmb_jax.evaluation.tasks.labels import bio_tags, counted, encode

SUFFIXES = (".tsv", ".txt", ".conll", ".bio", ".iob")
BARE = "Entity"  # the kind of bare B and I, as BLUE has them
_TAG = re.compile(r"O|([BI])(?:-(.+))?")

_BARE_TAGS = f"bare tags B and I, read as B-{BARE} and I-{BARE}"
_DOCUMENT_LINES = "-DOCSTART- lines, which are no words"
_ORPHANS = "I- tags that begin an entity, kept as they are"


class Sentence(NamedTuple):
    """Words and their tags, each with the number of its line."""

    lines: list[int]
    words: list[str]
    tags: list[str]


def read_bio(directory: str | Path, kinds: tuple[str, ...] | None = None) -> Dataset:
    """A folder with a file a split. The labels are B- and I- of every kind of entity that training
    has, and O; `kinds` are those it must have."""
    files = find_splits(directory, SUFFIXES)
    oddities: Counter[str] = Counter()
    sentences = {split: read_sentences(file, oddities) for split, file in files.items()}
    seen = {tag[2:] for sentence in sentences["train"] for tag in sentence.tags if tag != "O"}
    if kinds is not None and seen != set(kinds):
        raise InputError(
            f"{files['train']} tags {', '.join(sorted(seen)) or 'nothing'} where this task has "
            f"{', '.join(kinds)}: this is another corpus, which --task conll reads"
        )
    if not seen:
        raise InputError(f"{files['train']} tags every word O: there is nothing to learn")
    labels = bio_tags(seen)
    splits = {
        split: [_example(files[split], sentence, labels) for sentence in found]
        for split, found in sentences.items()
    }
    return Dataset("tagging", labels, splits, tuple(counted(oddities)))


def read_sentences(path: Path, oddities: Counter[str]) -> list[Sentence]:
    """The sentences of one file; what is odd is counted."""
    sentences = [Sentence([], [], [])]
    for number, line in lines(path):
        ends = not line.strip() or line.startswith("-DOCSTART-")
        oddities[_DOCUMENT_LINES] += bool(ends and line.strip())
        if ends:
            if sentences[-1].words:
                sentences.append(Sentence([], [], []))
            continue
        cells = line.split("\t") if "\t" in line else line.split()
        if len(cells) < 2 or not cells[0].strip():
            raise InputError(
                f"{place(path, number)}: no word and tag, but {len(cells)} column(s) of which the "
                "first is " + ("blank" if not cells[0].strip() else "the only one")
            )
        found = _TAG.fullmatch(cells[-1].strip())
        if not found:
            raise InputError(
                f"{place(path, number)}: the last column is {cells[-1].strip()[:40]!r}, no BIO tag "
                "(B-kind, I-kind or O): convert other schemes first"
            )
        tag = found[0] if found[2] or not found[1] else f"{found[1]}-{BARE}"
        oddities[_BARE_TAGS] += tag != found[0]
        before = sentences[-1].tags[-1] if sentences[-1].tags else "O"
        oddities[_ORPHANS] += tag[0] == "I" and before[1:] != tag[1:]
        sentences[-1].lines.append(number)
        sentences[-1].words.append(cells[0].strip())
        sentences[-1].tags.append(tag)
    if not sentences[-1].words:
        sentences.pop()
    if not sentences:
        raise InputError(f"{path} holds no sentence")
    return sentences


def _example(file: Path, sentence: Sentence, labels: tuple[str, ...]) -> Example:
    known = set(labels)
    for line, tag in zip(sentence.lines, sentence.tags, strict=True):
        if tag not in known:
            encode(labels, [tag], place(file, line), "training has no entity of that kind")
    indices = encode(labels, sentence.tags, str(file))
    where = place(file.name, sentence.lines[0])
    return Example(where, tuple(sentence.words), tuple(indices))
