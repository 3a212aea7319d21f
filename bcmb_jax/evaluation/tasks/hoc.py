# SPDX-License-Identifier: Apache-2.0
"""Hallmarks of Cancer: which of ten hallmarks an abstract, or one of its sentences, is about."""

import re
from pathlib import Path

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Task
from bcmb_jax.evaluation.tasks.reading import (
    find_splits,
    label_row,
    note_counts,
    note_untrained,
    place,
    read_columns,
    read_lines,
    read_table,
)

# In the order in which BLUE numbers them, which is that of the alphabet: so read, BLUE's sentence
# labels add up to the document labels of all 1,580 abstracts.
LABELS = (
    "activating invasion and metastasis",
    "avoiding immune destruction",
    "cellular energetics",
    "enabling replicative immortality",
    "evading growth suppressors",
    "genomic instability and mutation",
    "inducing angiogenesis",
    "resisting cell death",
    "sustaining proliferative signaling",
    "tumor promoting inflammation",
)
SOURCE = "github.com/sb895/Hallmarks-of-Cancer; GPL-3.0"
_ENTITY = re.compile(r"&(?:[a-z]+|#\d+) ?;")
_FLAGS = re.compile(",".join(f"{i}_([01])" for i in range(len(LABELS))))


def read_documents(directory: str | Path) -> Dataset:
    """Read train, dev and test.tsv with the columns pmid, text, labels (names joined by ";")."""
    splits = {}
    for split, file in find_splits(directory, (".tsv",)).items():
        read_columns(file, "\t", "text", "labels")
        splits[split] = [
            label_row(row, LABELS, row.cell("labels").split(";") if row.cell("labels") else [])
            for row in read_table(file, "text")
        ]
    texts = [str(example.text) for examples in splits.values() for example in examples]
    entities = sum(bool(_ENTITY.search(text)) for text in texts)
    notes = note_counts({"abstracts with HTML entities (&lt;), left as they are": entities})
    return Dataset("multi_label", LABELS, splits, (*notes, *note_untrained(LABELS, splits)))


def read_sentences(directory: str | Path) -> Dataset:
    """Read train, dev and test.tsv with the columns labels ("0_0,1_1,…,9_0"), sentence, index."""
    files = find_splits(directory, (".tsv",))
    splits = {split: _read_sentences(file) for split, file in files.items()}
    return Dataset("multi_label", LABELS, splits, tuple(note_untrained(LABELS, splits)))


def _read_sentences(file: Path) -> list[Example]:
    names = read_columns(file, "\t", "labels", "sentence")
    examples = []
    # Not csv: quotes are the sentences' own, unescaped (`" Reactive " or activated stroma`).
    for number, line in list(read_lines(file))[1:]:
        where = place(file, number)
        cells = line.split("\t")
        if not line:
            continue
        if len(cells) != len(names):
            raise InputError(f"{where}: {len(cells)} columns, where the header has {len(names)}")
        row = dict(zip(names, cells, strict=True))
        flags = _FLAGS.fullmatch(row["labels"])
        if not flags:
            raise InputError(f"{where}: labels {row['labels'][:60]!r} are not as '0_0,1_1,…,9_0'")
        if not row["sentence"].strip():
            raise InputError(f"{where}: the sentence is empty: take the row out")
        labels = tuple(i for i, flag in enumerate(flags.groups()) if flag == "1")
        examples.append(Example(place(file.name, number), row["sentence"], labels))
    if not examples:
        raise InputError(f"{file} holds no row")
    return examples


DOCUMENTS = Task(
    "hoc_document",
    "multi_label",
    read_documents,
    "which of the ten hallmarks of cancer an abstract is about",
    SOURCE + ", as in github.com/BIDS-Xu-Lab/Biomedical-NLP-Benchmarks (Apache-2.0)",
    "train.tsv, dev.tsv and test.tsv with the columns pmid, text, labels",
)
SENTENCES = Task(
    "hoc_sentence",
    "multi_label",
    read_sentences,
    "which of the ten hallmarks of cancer a sentence states; most state none",
    SOURCE + ", prepared by BLUE 0.1 (github.com/ncbi-nlp/BLUE_Benchmark)",
    "train.tsv, dev.tsv and test.tsv with the columns labels, sentence, index",
)
