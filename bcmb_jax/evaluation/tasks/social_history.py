# SPDX-License-Identifier: Apache-2.0
"""Social history sections of MTSamples notes: substance use, work, family, home."""

from collections import Counter
from pathlib import Path

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Task
from bcmb_jax.evaluation.published import LEARNING_RATES
from bcmb_jax.evaluation.splits import seventy_fifteen_fifteen
from bcmb_jax.evaluation.tasks.brat import read_spans, split_words, tag_words
from bcmb_jax.evaluation.tasks.folder import SPLIT_NAMES, find_all, place, whole
from bcmb_jax.evaluation.tasks.labels import bio_tags, counted, encode, untrained

KINDS = [
    "Alcohol",
    "Amount",
    "Drug",
    "EnvironmentalExposure",
    "ExposureHistory",
    "Extent",
    "Family",
    "Frequency",
    "History",
    "InfectiousDiseases",
    "LivingSituation",
    "LivingStatus",
    "Location",
    "MaritalStatus",
    "MedicalCondition",
    "Method",
    "Occupation",
    "Other",
    "PhysicalActivity",
    "QuitHistory",
    "Residence",
    "SexualHistory",
    "Status",
    "Temporal",
    "Tobacco",
    "Type",
]
# Fidelity: the paper's list is of the tags that its reader gave: two of the 53 never come about,
# as other spans overwrite every first word of one kind, and one kind has but single words.
NEVER = ("B-LivingSituation", "I-PhysicalActivity")
LABELS = tuple(tag for tag in bio_tags(KINDS) if tag not in NEVER)
# As sdoh_extraction, from where the corpus can be had, calls them; WeightManagement is in the
# scheme, but in no file.
_RENAMED = {"StatusTime": "Status", "Time": "Temporal"}


def read(directory: str | Path, corrected: bool = False) -> Dataset:
    """.txt files each with its .ann, in the folder itself or in train, dev and test."""
    folders = _split_folders(Path(directory))
    labels = bio_tags(KINDS) if corrected else LABELS
    oddities: Counter[str] = Counter()
    found = {
        split: _read_files(folder, labels, corrected, oddities) for split, folder in folders.items()
    }
    if corrected and len(found) > 1:
        splits = {split: [example for _, example in files] for split, files in found.items()}
    else:
        # Fidelity: the paper's reader has all files in one folder, sorted by name.
        pairs = (pair for files in found.values() for pair in files)
        together = sorted(pairs, key=lambda pair: pair[0])
        splits = seventy_fifteen_fifteen([example for _, example in together])
    notes = (*counted(oddities), *untrained(labels, splits))
    return Dataset("tagging", labels, splits, notes)


def _split_folders(directory: Path) -> dict[str, Path]:
    if not any((directory / stem).is_dir() for stems in SPLIT_NAMES.values() for stem in stems):
        return {"all": directory}
    folders = {}
    for split, stems in SPLIT_NAMES.items():
        there = [directory / stem for stem in stems if (directory / stem).is_dir()]
        if len(there) != 1:
            raise InputError(
                f"data folder {directory} has {len(there)} folders for {split} "
                f"({' or '.join(stems)}), and should have one"
            )
        folders[split] = there[0]
    return folders


def _read_files(
    folder: Path, labels: tuple[str, ...], corrected: bool, oddities: Counter[str]
) -> list[tuple[str, Example]]:
    texts = find_all(folder, "*.txt")
    lonely = {file.stem for file in find_all(folder, "*.ann")} - {file.stem for file in texts}
    oddities[".ann files without their .txt, left out"] += len(lonely)
    examples = []
    for file in texts:
        annotation = file.with_suffix(".ann")
        if not annotation.is_file():
            oddities[".txt files without their .ann, left out"] += 1
        else:
            example = _example(file, annotation, labels, corrected, oddities)
            examples.append((file.name, example))
    return examples


def _example(
    file: Path, annotation: Path, labels: tuple[str, ...], corrected: bool, oddities: Counter[str]
) -> Example:
    text = whole(file)
    words, places = split_words(r"\S+", text)
    if not words:
        raise InputError(f"{file} is empty: take it and its .ann out")
    spans = []
    for span in sorted(read_spans(annotation, oddities), key=lambda span: span.start):
        kind = _RENAMED.get(span.kind, span.kind)
        if kind not in KINDS:
            raise InputError(
                f"{place(annotation, span.line)}: {span.kind!r} is none of the kinds of span of "
                f"Social History: {', '.join(KINDS)}"
            )
        # brat writes a line break in a span as a space.
        there = text[span.start : span.end].replace("\n", " ").strip()
        oddities["spans that say another text than stands there"] += there != span.text.strip()
        spans.append(span._replace(kind=kind))
    tags = tag_words(places, spans, oddities, corrected)
    indices = encode(labels, tags, str(annotation), "only --corrected has this tag")
    return Example(f"{file.parent.name}/{file.name}", words, tuple(indices))


TASK = Task(
    "social_history",
    "tagging",
    read,
    "substance use, occupation, family, living situation in social history sections",
    "UW-BioNLP corpus over public MTSamples notes (depts.washington.edu/bionlp), also in "
    "github.com/AndyStevens98/sdoh_extraction (MIT)",
    "brat's .txt and .ann pairs, in one folder or in train, dev and test",
    quirks="The published split is not used: all files are split anew 70/15/15 (seed 42). A span "
    "gets the words (between white space) that lie wholly inside it, so none if punctuation is "
    "attached, and a later span overwrites an earlier one. Corrected, the split into folders is "
    "used, a span gets every word it touches, what is left of one begins with B-, and there are "
    "53 tags.",
    learning_rates=LEARNING_RATES["social_history"],
)
