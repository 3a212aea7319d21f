# SPDX-License-Identifier: Apache-2.0
"""The tasks' readers on the data as distributed, against the paper's Table 6 and the originals."""

from functools import cache
from pathlib import Path

import pytest
import tokenizers

from bcmb_jax.evaluation.examples import Dataset, dataset_statistics
from bcmb_jax.evaluation.tasks import TASKS
from bcmb_jax.evaluation.tasks.reading import split_seventy_fifteen_fifteen

# Folder, labels, and examples by split as Table 6, the originals or their data sheets have them.
FILES = [
    ("chemprot", "chemprot_blue", 6, (18764, 11820, 16253)),
    ("social_history", "social_history", 51, (252, 54, 55)),
    ("deid", "deid_synthetic", 13, (716, 154, 154)),
    ("hoc_document", "hoc_doc", 10, (1108, 157, 315)),
    ("hoc_sentence", "hoc_blue", 10, (10527, 1496, 2896)),
    ("bc5cdr", "bc5cdr_iob", 5, (4560, 4581, 4797)),
    ("ncbi_disease", "ncbi_disease_iob", 3, (5424, 923, 940)),
    ("pubmedqa", "pubmedqa", 3, (450, 50, 500)),
    ("chemprot_scibert", "chemprot_scibert", 13, (4169, 2427, 3469)),
    ("conll", "bc5cdr_blue_disease", 3, (5234, 5251, 5626)),
]


def tags(dataset: Dataset) -> set[str]:
    examples = [example for split in dataset.splits.values() for example in split]
    return {dataset.labels[i] for example in examples for i in example.labels}


@pytest.mark.parametrize(("task", "folder", "labels", "sizes"), FILES)
def test_every_row_is_read(shared: Path, task: str, folder: str, labels: int, sizes) -> None:
    dataset = TASKS[task].read(shared / "data/eval" / folder)
    assert dataset.kind == TASKS[task].kind
    assert len(dataset.labels) == labels
    assert tuple(len(dataset.splits[s]) for s in ("train", "validation", "test")) == sizes
    assert set(dataset.labels) - tags(dataset) == ({"I-age"} if task == "deid" else set())
    for examples in dataset.splits.values():
        for where, text, held in examples:
            assert where
            assert text
            assert dataset.kind != "tagging" or len(held) == len(text)


@pytest.mark.slow
def test_chemprot_is_table_6s(shared: Path) -> None:
    """67.7 tokens are those of sentences as they stand. With the space in front that the paper's
    fine-tuning asks for (add_prefix_space), it would be 67.6."""
    backend = tokenizers.Tokenizer.from_file(
        str(shared / "data/tokenizers/modernbert/tokenizer.json")
    )
    dataset = TASKS["chemprot"].read(shared / "data/eval/chemprot_blue")
    dev = dataset.splits["validation"]
    only = Dataset(dataset.kind, dataset.labels, {"train": (), "validation": dev, "test": ()})

    def count(text) -> int:
        return len(backend.encode(text, add_special_tokens=False).ids)

    found = dataset_statistics(only, count)["validation"]
    assert (found.examples, round(found.mean_tokens, 2), found.empty) == (11_820, 67.68, 0)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert round(dataset_statistics(only, count)["validation"].mean_tokens, 2) == 67.57
    assert sum(found.by_label) == 11_820
    assert min(found.by_label) > 0
    assert dataset.notes == (
        "train is rebuilt from the raw corpus (train.rebuilt.tsv.gz): not BLUE's rows",
        "test is rebuilt from the raw corpus (test.rebuilt.tsv.gz): not BLUE's rows",
    )


def held_by_abstract(folder: Path, dataset: Dataset, column: int) -> dict[str, set[int]]:
    """The labels of every PubMed id, which stands before an underscore in a column."""
    held: dict[str, set[int]] = {}
    for examples in dataset.splits.values():
        for example in examples:
            name, line = example.where.split(", line ")
            row = lines_of(folder / name)[int(line) - 1].split("\t")
            held.setdefault(row[column].split("_")[0], set()).update(example.labels)
    return held


@cache
def lines_of(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n")


def test_hoc_sentences_add_up_to_documents(shared: Path) -> None:
    """So BLUE's ten numbers are the names in order, and every `where` is right."""
    blue, whole = shared / "data/eval/hoc_blue", shared / "data/eval/hoc_doc"
    documents = held_by_abstract(whole, TASKS["hoc_document"].read(whole), 0)
    assert len(documents) == 1580
    assert held_by_abstract(blue, TASKS["hoc_sentence"].read(blue), 2) == documents


def test_social_history_is_split_anew_and_corrected_as_published(shared: Path) -> None:
    folder = shared / "data/eval/social_history"
    dataset = TASKS["social_history"].read(folder)
    names = sorted(
        (file.name, f"{file.parent.name}/{file.name}") for file in folder.glob("*/*.txt")
    )
    assert len(names) == 361
    expected = split_seventy_fifteen_fifteen([where for _, where in names])
    assert {
        split: [example.where for example in examples] for split, examples in dataset.splits.items()
    } == expected
    assert "766 spans that get no word, as none lies wholly inside" in dataset.notes
    assert "10 spans that say another text than stands there" in dataset.notes

    corrected = TASKS["social_history"].read(folder, corrected=True)
    assert [len(examples) for examples in corrected.splits.values()] == [251, 73, 37]
    assert len(corrected.labels) == 53
    assert not any("that get no word" in note for note in corrected.notes)
    for examples in corrected.splits.values():
        for example in examples:
            before = "O"
            for tag in (corrected.labels[i] for i in example.labels):
                assert tag[0] != "I" or before[1:] == tag[1:]
                before = tag


def test_deid_readings_agree_where_masks_are_clear(shared: Path) -> None:
    folder = shared / "data/eval/deid_synthetic"
    dataset = TASKS["deid"].read(folder)
    assert dataset.notes == ()
    assert TASKS["deid"].read(folder, corrected=True).splits["validation"]
