# SPDX-License-Identifier: Apache-2.0
"""Words with BIO tags, one a line: BC5CDR, NCBI-disease, and any corpus in CoNLL's layout.

The word comes first, its tag last, and a blank line between sentences, as in CoNLL,
MTL-Bioinformatics-2016 and BLUE.
"""

import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Task
from bcmb_jax.evaluation.tasks.reading import (
    bio_tags,
    find_splits,
    label_indices,
    note_counts,
    place,
    read_lines,
)

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
    """Read a folder with a file for each split.

    The labels are B- and I- of every kind of entity that training has, and O.

    Args:
      kinds: the kinds that training must have; None for any.
    """
    files = find_splits(directory, SUFFIXES)
    counts: Counter[str] = Counter()
    sentences = {split: _read_sentences(file, counts) for split, file in files.items()}
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
        split: [_example(files[split], sentence, labels) for sentence in tagged]
        for split, tagged in sentences.items()
    }
    return Dataset("tagging", labels, splits, tuple(note_counts(counts)))


def _read_sentences(path: Path, counts: Counter[str]) -> list[Sentence]:
    sentences = [Sentence([], [], [])]
    for number, line in read_lines(path):
        ends = not line.strip() or line.startswith("-DOCSTART-")
        counts[_DOCUMENT_LINES] += bool(ends and line.strip())
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
        match = _TAG.fullmatch(cells[-1].strip())
        if not match:
            raise InputError(
                f"{place(path, number)}: the last column is {cells[-1].strip()[:40]!r}, no BIO tag "
                "(B-kind, I-kind or O): convert other schemes first"
            )
        tag = match[0] if match[2] or not match[1] else f"{match[1]}-{BARE}"
        counts[_BARE_TAGS] += tag != match[0]
        before = sentences[-1].tags[-1] if sentences[-1].tags else "O"
        counts[_ORPHANS] += tag[0] == "I" and before[1:] != tag[1:]
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
            label_indices(labels, [tag], place(file, line), "training has no entity of that kind")
    indices = label_indices(labels, sentence.tags, str(file))
    where = place(file.name, sentence.lines[0])
    return Example(where, tuple(sentence.words), tuple(indices))


_MTL_FILES = "train.tsv, devel.tsv and test.tsv: a word, a tab and its BIO tag a line"
BC5CDR = Task(
    "bc5cdr",
    "tagging",
    partial(read_bio, kinds=("Chemical", "Disease")),
    "chemicals and diseases in PubMed abstracts",
    "BioCreative V CDR, in github.com/cambridgeltl/MTL-Bioinformatics-2016 (BC5CDR-IOB); CC BY 4.0",
    _MTL_FILES,
)
NCBI_DISEASE = Task(
    "ncbi_disease",
    "tagging",
    partial(read_bio, kinds=("Disease",)),
    "diseases in PubMed abstracts",
    "NCBI disease corpus, in github.com/cambridgeltl/MTL-Bioinformatics-2016 (NCBI-disease-IOB); "
    "CC BY 4.0",
    _MTL_FILES,
)
CONLL = Task(
    "conll",
    "tagging",
    read_bio,
    "your own entities, from words with BIO tags",
    "your own files",
    f"train, dev (or devel, validation) and test, each as one of {' '.join(SUFFIXES)} (or .gz): a "
    "word a line in the first column, its tag in the last, a blank line between sentences",
)
