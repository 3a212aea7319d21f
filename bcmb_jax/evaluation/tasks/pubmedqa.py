# SPDX-License-Identifier: Apache-2.0
"""PubMedQA: whether an abstract answers its question with yes, no or maybe."""

from pathlib import Path
from typing import Any

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.tasks import reading


def read(directory: str | Path, classes: tuple[str, ...]) -> Dataset:
    """Read ori_pqal.json, and test_ground_truth.json, whose 500 ids are the official test.

    The question and the abstract without its conclusion are the text, a paragraph a line. Of the
    rest, 10 % are the validation (seed 42): the official folds are ten such divisions.
    """
    records_file = reading.find(directory, ("ori_pqal",), (".json",))
    truth_file = reading.find(directory, ("test_ground_truth",), (".json",))
    records, truth = reading.load_json(records_file), reading.load_json(truth_file)
    for file, value in ((records_file, records), (truth_file, truth)):
        if not isinstance(value, dict) or not value:
            raise InputError(f"{file} is not a JSON object by PubMed id")
    if missing := set(truth) - set(records):
        raise InputError(
            f"{truth_file} has {len(missing)} ids that {records_file.name} lacks: the two are not "
            "of the same release"
        )
    examples = {
        pmid: _example(records_file, number, record, classes)
        for number, (pmid, record) in enumerate(records.items(), start=1)
    }
    for number, (pmid, answer) in enumerate(truth.items(), start=1):
        if [answer] != [classes[i] for i in examples[pmid].labels]:
            raise InputError(
                f"{truth_file}, record {number:,}: another answer than in {records_file.name}"
            )
    rest = [example for pmid, example in examples.items() if pmid not in truth]
    train, validation = reading.split_permuted(rest, 0.1)
    splits = {"train": train, "validation": validation, "test": [examples[pmid] for pmid in truth]}
    return reading.dataset("single_label", classes, splits)


def _example(file: Path, number: int, record: Any, classes: tuple[str, ...]) -> Example:
    where = f"{file}, record {number:,}"
    try:
        question, contexts = record["QUESTION"], record["CONTEXTS"]
        answer = record["final_decision"]
        text = "\n".join([question, *contexts])
    except (KeyError, TypeError):
        raise InputError(
            f"{where}: expected the keys QUESTION, CONTEXTS (strings) and final_decision"
        ) from None
    if not question.strip() or not any(context.strip() for context in contexts):
        raise InputError(f"{where}: the question or its context is empty")
    if answer not in classes:
        raise InputError(f"{where}: {reading.unknown_label(str(answer), classes)}")
    return Example(f"{file.name}, record {number}", text, (classes.index(answer),))
