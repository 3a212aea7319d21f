# SPDX-License-Identifier: Apache-2.0
"""Health information to be hidden in nursing notes, from a text with surrogates and one with masks.

`id.res` has a mask as `[**Known lastname 33**]` where `id.text` has the surrogate.
"""

import re
from collections import Counter
from pathlib import Path

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Task
from bcmb_jax.evaluation.published import LEARNING_RATES
from bcmb_jax.evaluation.splits import seventy_fifteen_fifteen, shuffled
from bcmb_jax.evaluation.tasks.deid_masks import tag_surrogates
from bcmb_jax.evaluation.tasks.folder import find, place, whole
from bcmb_jax.evaluation.tasks.labels import bio_tags, counted, encode, untrained

KINDS = ("age", "date", "location", "name", "other", "phone_nb")
# Fidelity: O comes first here, and last in the other tasks.
LABELS = ("O", *bio_tags(KINDS)[:-1])
_RECORD = re.compile(r"START_OF_RECORD=(.*?)\|\|\|\|END_OF_RECORD", re.DOTALL)
_HEADER = re.compile(r"(\d+)\|\|\|\|(\d+)\|\|\|\|")


def read(directory: str | Path, corrected: bool = False) -> Dataset:
    """id.text and id.res, which have the same records in the same order."""
    text_file, mask_file = find(directory, ("id",), (".text",)), find(directory, ("id",), (".res",))
    texts, masked = _records(text_file), _records(mask_file)
    if len(texts) != len(masked):
        raise InputError(
            f"{text_file} has {len(texts)} records and {mask_file} has {len(masked)}: they must be "
            "of one release"
        )
    oddities: Counter[str] = Counter()
    examples = []
    for (line, name, text), (mask_line, mask_name, mask) in zip(texts, masked, strict=True):
        if name != mask_name:
            raise InputError(
                f"{place(text_file, line)} is record {name}, but {place(mask_file, mask_line)} is "
                f"record {mask_name}: they must come in the same order"
            )
        tagged = tag_surrogates(text, mask, corrected, oddities)
        if tagged is None:
            oddities["records whose two texts do not agree, left out"] += 1
        elif not tagged:
            oddities["records without a word, left out"] += 1
        else:
            words, tags = zip(*tagged, strict=True)
            where = f"{place(text_file.name, line)} (record {name})"
            examples.append(Example(where, words, tuple(encode(LABELS, tags, where))))
    # Fidelity: scikit-learn's splitter here, that of datasets in the other tasks.
    splits = seventy_fifteen_fifteen(examples, shuffled)
    return Dataset("tagging", LABELS, splits, (*counted(oddities), *untrained(LABELS, splits)))


def _records(file: Path) -> list[tuple[int, str, str]]:
    """The line, number and text of every record; line breaks become spaces."""
    content = whole(file)
    records = []
    line, last = 1, 0
    for found in _RECORD.finditer(content):
        line, last = line + content.count("\n", last, found.start()), found.start()
        header = _HEADER.match(found[1])
        if not header:
            raise InputError(f"{place(file, line)}: a record begins without patient||||note||||")
        text = found[1][header.end() :].strip().replace("\n", " ")
        records.append((line, f"{header[1]}, note {header[2]}", text))
    if not records:
        raise InputError(f"{file} holds no record between START_OF_RECORD= and ||||END_OF_RECORD")
    if (begun := content.count("START_OF_RECORD=")) != len(records):
        raise InputError(f"{file}: {begun} records begin, but {len(records)} end as they should")
    return records


TASK = Task(
    "deid",
    "tagging",
    read,
    "names, dates, places, ages, phone numbers and other identifiers in nursing notes",
    "PhysioNet: De-Identified Medical Text 1.0; own agreement",
    "id.text and id.res",
    quirks="A mask reaches to where the plain text after it first comes again, be it inside the "
    "surrogate; of adjacent masks the first takes all that follows; and masks that the paper's "
    "list of categories lacks (where its reader stops) are other. Corrected, a mask takes at least "
    "a character, the last plain text is that at the end, adjacent masks are one, further dates "
    "and places have their category, and records whose two texts disagree are left out.",
    learning_rates=LEARNING_RATES["deid"],
)
