# SPDX-License-Identifier: Apache-2.0
"""Words with BIO tags, one a line: BC5CDR, NCBI-disease, and any corpus in CoNLL's layout.

The word comes first, its tag last, and a blank line between sentences, as in CoNLL,
MTL-Bioinformatics-2016 and BLUE.
"""

import re
from collections import Counter
from pathlib import Path
from string import whitespace
from typing import NamedTuple

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.tasks import reading

SUFFIXES = (".tsv", ".txt", ".conll", ".bio", ".iob")
BARE = "Entity"  # the kind of bare B and I, as BLUE has them
_TAG = re.compile(r"O|([BI])(?:-(.+))?")

_BARE_TAGS = f"bare tags B and I, read as B-{BARE} and I-{BARE}"
_DOCUMENT_LINES = "-DOCSTART- lines, which are no words"
_BLANKS = re.compile(r"\s+", re.ASCII)  # no-break spaces belong to words
_ORPHANS = "I- tags that begin an entity, kept as they are"


class Word(NamedTuple):
    """A word of a sentence, its tag, and the number of its line."""

    text: str
    tag: str
    line: int


def read(directory: str | Path, classes: tuple[str, ...] | None = None) -> Dataset:
    """Read a folder with a file for each split.

    The labels are B- and I- of every kind of entity, and O. A kind that training lacks is never
    predicted, so its entities count as missed; a note says how many.

    Args:
      classes: the kinds that there must be; None for any.
    """
    from seqeval.metrics.sequence_labeling import get_entities  # takes a second to import

    files = reading.find_splits(directory, SUFFIXES)
    counts: Counter[str] = Counter()
    sentences = {split: _read_sentences(file, counts) for split, file in files.items()}
    kinds = {split: {x.tag[2:] for y in sentences[split] for x in y} - {""} for split in files}
    for split, file in files.items():
        if classes and (not kinds[split] <= set(classes) or kinds["train"] != set(classes)):
            raise InputError(
                f"{file} tags {', '.join(sorted(kinds[split])) or 'nothing'} where this task has "
                f"{', '.join(classes)}: this is another corpus, which --task conll reads"
            )
    if not kinds["train"]:
        raise InputError(f"{files['train']} tags every word O: there is nothing to learn")
    labels = reading.bio_tags(set().union(*kinds.values()))
    splits = {
        split: [_example(files[split].name, x, labels) for x in sentences[split]] for split in files
    }
    notes = reading.note_counts(counts)
    tags = [[word.tag for word in x] for split in files for x in sentences[split]]
    unknown = [kind for kind, _, _ in get_entities(tags) if kind not in kinds["train"]]
    if unknown:
        notes.append(
            f"{len(unknown):,} entities of kinds that training lacks, which count as missed: "
            f"{reading.list_names(sorted(set(unknown)))}"
        )
    return Dataset("tagging", labels, splits, tuple(notes))


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
        cells = line.split("\t") if "\t" in line else _BLANKS.split(line.strip(whitespace))
        word, tag = cells[0].strip(whitespace), cells[-1].strip()
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


def _example(file: str, sentence: list[Word], labels: tuple[str, ...]) -> Example:
    texts, tags, lines = zip(*sentence, strict=True)
    return Example(reading.place(file, lines[0]), texts, tuple(map(labels.index, tags)))
