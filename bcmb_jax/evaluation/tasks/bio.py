# SPDX-License-Identifier: Apache-2.0
"""Words with BIO tags, one a line: BC5CDR, NCBI-disease, and any corpus in CoNLL's layout.

The word comes first, its tag last, and a blank line between sentences, as in CoNLL,
MTL-Bioinformatics-2016 and BLUE.
"""

import re
from collections import Counter
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from string import whitespace
from typing import NamedTuple

from bcmb_jax.errors import InputError, record_error
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.tasks import reading
from bcmb_jax.evaluation.tasks.labels import check_labels, check_lengths, read_labels

SUFFIXES = (".tsv", ".txt", ".conll", ".bio", ".iob")
BARE = "Entity"  # the kind of bare B and I, as BLUE has them
TAG = re.compile(r"O|([BI])(?:-(.+))?")

_BARE_TAGS = f"bare tags B and I, read as B-{BARE} and I-{BARE}"
_DOCUMENT_LINES = "-DOCSTART- lines, which are no words"
_BLANKS = re.compile(r"\s+", re.ASCII)  # no-break spaces belong to words
_ORPHANS = "I- tags that begin an entity, kept as they are"


class Word(NamedTuple):
    """A word of a sentence, its tag, and the number of its line."""

    text: str
    tag: str
    line: int


def read(
    directory: str | Path, classes: tuple[str, ...] | None = None, labels: str | None = None
) -> Dataset:
    """Read a folder with a file for each split.

    The labels are B- and I- of every kind of entity, and O. A kind that training lacks is never
    predicted, so its entities count as missed; a note says how many.

    Args:
      classes: the kinds that there must be; None for any.
      labels: a file that lists the kinds there may be; None for such as `check_labels` lets pass.
    """
    files = reading.find_splits(directory, SUFFIXES)
    counts: Counter[str] = Counter()
    sentences = {split: read_sentences(file, counts) for split, file in files.items()}
    kinds = {split: {x.tag[2:] for y in sentences[split] for x in y} - {""} for split in files}
    known = classes or (read_labels(labels) if labels else ())
    other = "another corpus, which --task conll reads" if classes else "not on the list --labels"
    for split, file in files.items():
        for word in chain.from_iterable(sentences[split]):
            if known and word.tag != "O" and word.tag[2:] not in known:
                what = f"of its kinds of entity {reading.unknown_label(word.tag[2:], known)}"
                raise record_error(file, word.line, f"{what}: this is {other}")
    if missing := sorted(set(classes or ()) - kinds["train"]):
        raise InputError(f"{files['train']} has no entity {', '.join(missing)}: this is {other}")
    if not kinds["train"]:
        raise InputError(f"{files['train']} tags every word O: there is nothing to learn")
    if not known:
        _check_kinds(files, sentences)
    tags = reading.bio_tags(known or set().union(*kinds.values()))
    splits = {
        split: [_example(files[split].name, x, tags) for x in sentences[split]] for split in files
    }
    notes = reading.note_counts(counts)
    entities = chain.from_iterable(map(_entities, sentences.values()))
    unknown = [kind for kind in entities if kind not in kinds["train"]]
    if unknown:
        notes.append(
            f"{len(unknown):,} entities of kinds that training lacks, which count as missed: "
            f"{reading.list_names(sorted(set(unknown)))}"
        )
    return Dataset("tagging", tags, splits, tuple(notes))


def _check_kinds(files: Mapping[str, Path], sentences: Mapping[str, list[list[Word]]]) -> None:
    fix = "see that the last column holds tags"
    for split, file in files.items():
        words = chain.from_iterable(sentences[split])
        check_lengths(((word.line, word.tag[2:]) for word in words), file, fix)
    uses = {split: Counter(_entities(found)) for split, found in sentences.items()}
    check_labels(uses, files["train"], "entities", fix)


def _entities(sentences: list[list[Word]]) -> list[str]:
    """Return the kinds of all entities of a split."""
    from seqeval.metrics.sequence_labeling import get_entities  # takes a second to import

    return [kind for kind, _, _ in get_entities([[word.tag for word in x] for x in sentences])]


def read_sentences(path: Path, counts: Counter[str]) -> list[list[Word]]:
    """Return the sentences of a file, and count what is odd."""
    sentences: list[list[Word]] = [[]]
    for number, line in reading.read_lines(path):
        is_document = line.startswith("-DOCSTART-")
        counts[_DOCUMENT_LINES] += is_document
        if is_document or not line.strip():
            if sentences[-1]:
                sentences.append([])
            continue
        cells = line.split("\t") if "\t" in line else _BLANKS.split(line.strip(whitespace))
        word, tag = cells[0].strip(whitespace), cells[-1].strip()
        if len(cells) < 2 or not word:
            what = f"no word and tag, but {len(cells)} column(s) of which the first is "
            raise record_error(path, number, what + ("the only one" if word else "blank"))
        match = TAG.fullmatch(tag)
        if not match:
            what = "no BIO tag (B-kind, I-kind or O): convert other schemes first"
            raise record_error(path, number, what, column=len(cells))
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
