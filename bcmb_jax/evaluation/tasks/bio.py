# SPDX-License-Identifier: Apache-2.0
"""Words with BIO tags, one a line: BC5CDR, NCBI-disease, and any corpus in CoNLL's layout.

The word comes first, its tag last, and a blank line between sentences, as in CoNLL,
MTL-Bioinformatics-2016 and BLUE.
"""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.tasks import reading

SUFFIXES = (".tsv", ".txt", ".conll", ".bio", ".iob")
BARE = "Entity"  # the kind of bare B and I, as BLUE has them
_TAG = re.compile(r"O|([BI])(?:-(.+))?")

_BARE_TAGS = f"bare tags B and I, read as B-{BARE} and I-{BARE}"
_DOCUMENT_LINES = "-DOCSTART- lines, which are no words"
_ORPHANS = "I- tags that begin an entity, kept as they are"


class Word(NamedTuple):
    """A word of a sentence, its tag, and the number of its line."""

    text: str
    tag: str
    line: int


def read(directory: str | Path, classes: tuple[str, ...] | None = None) -> Dataset:
    """Read a folder with a file for each split.

    The labels are B- and I- of every kind of entity that training has, and O.

    Args:
      classes: the kinds that training must have; None for any.
    """
    files = reading.find_splits(directory, SUFFIXES)
    counts: Counter[str] = Counter()
    sentences = {split: _read_sentences(file, counts) for split, file in files.items()}
    seen = {word.tag[2:] for sentence in sentences["train"] for word in sentence} - {""}
    if classes is not None and seen != set(classes):
        raise InputError(
            f"{files['train']} tags {', '.join(sorted(seen)) or 'nothing'} where this task has "
            f"{', '.join(classes)}: this is another corpus, which --task conll reads"
        )
    if not seen:
        raise InputError(f"{files['train']} tags every word O: there is nothing to learn")
    labels = reading.bio_tags(seen)
    splits = {
        split: [_example(files[split], sentence, labels) for sentence in sentences[split]]
        for split in files
    }
    return Dataset("tagging", labels, splits, tuple(reading.note_counts(counts)))


def _read_sentences(path: Path, counts: Counter[str]) -> list[list[Word]]:
    sentences: list[list[Word]] = [[]]
    for number, line in reading.read_lines(path):
        where = reading.place(path, number)
        is_document = line.startswith("-DOCSTART-")
        counts[_DOCUMENT_LINES] += is_document
        if is_document or not line.strip():
            if sentences[-1]:
                sentences.append([])
            continue
        cells = line.split("\t") if "\t" in line else line.split()
        word, tag = cells[0].strip(), cells[-1].strip()
        if len(cells) < 2 or not word:
            raise InputError(
                f"{where}: no word and tag, but {len(cells)} column(s) of which the first is "
                + ("the only one" if word else "blank")
            )
        match = _TAG.fullmatch(tag)
        if not match:
            raise InputError(
                f"{where}: the last column is {tag[:40]!r}, no BIO tag (B-kind, I-kind or O): "
                "convert other schemes first"
            )
        is_bare = bool(match[1] and not match[2])
        counts[_BARE_TAGS] += is_bare
        tag += f"-{BARE}" * is_bare
        before = sentences[-1][-1].tag if sentences[-1] else "O"
        counts[_ORPHANS] += tag[0] == "I" and before[1:] != tag[1:]
        sentences[-1].append(Word(word, tag, number))
    if not sentences[-1]:
        sentences.pop()
    if not sentences:
        raise InputError(f"{path} holds no sentence")
    return sentences


def _example(file: Path, sentence: list[Word], labels: tuple[str, ...]) -> Example:
    hint = "training has no entity of that kind"
    indices = [
        reading.label_indices(labels, [word.tag], reading.place(file, word.line), hint)[0]
        for word in sentence
    ]
    where = reading.place(file.name, sentence[0].line)
    return Example(where, tuple(word.text for word in sentence), tuple(indices))
