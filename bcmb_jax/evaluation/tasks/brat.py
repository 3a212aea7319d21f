# SPDX-License-Identifier: Apache-2.0
"""Spans of text by offsets, as brat annotates them: Social History, and changes of state (COS).

A span becomes the BIO tags of its words.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Task
from bcmb_jax.evaluation.published import LEARNING_RATES
from bcmb_jax.evaluation.tasks.reading import (
    SPLIT_NAMES,
    bio_tags,
    find_all,
    label_indices,
    note_counts,
    note_untrained,
    place,
    read_lines,
    read_text,
    split_seventy_fifteen_fifteen,
)

_SPAN = re.compile(r"T\S*\t(\S+) (\d+) (\d+)((?:;\d+ \d+)*)(?:\t(.*))?")

DISCONTINUOUS = "spans in several pieces, left out"
NO_WORD = "spans that get no word, as none lies wholly inside"
OVERLAPPING = "spans that take words from an earlier one"


class Span(NamedTuple):
    """A labelled piece `[start, end)` of a text, the text that it should have, and its line."""

    kind: str
    start: int
    end: int
    text: str
    line: int


def _read_spans(path: Path, counts: Counter[str]) -> list[Span]:
    """Return the text-bound annotations (lines that begin with T) in the file's order.

    Events, attributes and relations refer to these and add nothing about words. Spans in several
    pieces are counted and left out, as by the paper's reader.
    """
    spans = []
    for number, line in read_lines(path):
        if not line.startswith("T"):
            continue
        match = _SPAN.fullmatch(line.rstrip())
        if not match or int(match[2]) >= int(match[3]):
            raise InputError(
                f"{place(path, number)}: not a span as 'T1<tab>Kind start end<tab>text' with start "
                "before end"
            )
        if match[4]:
            counts[DISCONTINUOUS] += 1
        else:
            spans.append(Span(match[1], int(match[2]), int(match[3]), match[5] or "", number))
    return spans


def _split_words(pattern: str, text: str) -> tuple[tuple[str, ...], list[tuple[int, int]]]:
    """Return the matches of a pattern as words, and the `[start, end)` of each."""
    matches = list(re.finditer(pattern, text))
    return tuple(match[0] for match in matches), [match.span() for match in matches]


def _tag_words(
    bounds: Sequence[tuple[int, int]],
    spans: Sequence[Span],
    counts: Counter[str],
    corrected: bool = False,
) -> list[str]:
    """Return a BIO tag for each word, given the words' bounds; later spans overwrite earlier ones.

    Corrected, a span has every word that it touches, and what is left of an overwritten span
    begins with B-.
    """
    tags = ["O"] * len(bounds)
    owners: list[Span | None] = [None] * len(bounds)
    for span in spans:
        # Fidelity: the paper's readers want a word wholly inside, so that "wife." is no part of a
        # span that ends before the stop.
        inside = [
            i
            for i, (start, end) in enumerate(bounds)
            if (
                start < span.end and end > span.start
                if corrected
                else start >= span.start and end <= span.end
            )
        ]
        counts[NO_WORD] += not inside
        counts[OVERLAPPING] += any(owners[i] for i in inside)
        for i in inside:
            owners[i] = span
            tags[i] = f"{'B' if i == inside[0] else 'I'}-{span.kind}"
    if corrected:
        # Fidelity: theirs leave an I- without its B- where a later span took the first words.
        for i, owner in enumerate(owners):
            if owner is not None:
                begins = i == 0 or owners[i - 1] is not owner
                tags[i] = f"{'B' if begins else 'I'}-{owner.kind}"
    return tags


# Social History

SOCIAL_KINDS = (
    *("Alcohol", "Amount", "Drug", "EnvironmentalExposure", "ExposureHistory", "Extent", "Family"),
    *("Frequency", "History", "InfectiousDiseases", "LivingSituation", "LivingStatus", "Location"),
    *("MaritalStatus", "MedicalCondition", "Method", "Occupation", "Other", "PhysicalActivity"),
    *("QuitHistory", "Residence", "SexualHistory", "Status", "Temporal", "Tobacco", "Type"),
)
# Fidelity: the paper's list is of the tags that its reader gave: two of the 53 never come about,
# as other spans overwrite every first word of one kind, and one kind has but single words.
_NEVER = ("B-LivingSituation", "I-PhysicalActivity")
SOCIAL_LABELS = tuple(tag for tag in bio_tags(SOCIAL_KINDS) if tag not in _NEVER)
# Names in sdoh_extraction, where the corpus is available; no file has WeightManagement.
_RENAMED = {"StatusTime": "Status", "Time": "Temporal"}


def read_social_history(directory: str | Path, corrected: bool = False) -> Dataset:
    """Read pairs of .txt and .ann files, in the folder itself or in train, dev and test."""
    folders = _split_folders(Path(directory))
    labels = bio_tags(SOCIAL_KINDS) if corrected else SOCIAL_LABELS
    counts: Counter[str] = Counter()
    files = {
        split: _read_files(folder, labels, corrected, counts) for split, folder in folders.items()
    }
    if corrected and len(files) > 1:
        splits = {split: [example for _, example in pairs] for split, pairs in files.items()}
    else:
        # Fidelity: the paper's reader has all files in one folder, sorted by name.
        pairs = (pair for named in files.values() for pair in named)
        together = sorted(pairs, key=lambda pair: pair[0])
        splits = split_seventy_fifteen_fifteen([example for _, example in together])
    notes = (*note_counts(counts), *note_untrained(labels, splits))
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
    folder: Path, labels: tuple[str, ...], corrected: bool, counts: Counter[str]
) -> list[tuple[str, Example]]:
    texts = find_all(folder, "*.txt")
    lonely = {file.stem for file in find_all(folder, "*.ann")} - {file.stem for file in texts}
    counts[".ann files without their .txt, left out"] += len(lonely)
    examples = []
    for file in texts:
        annotation = file.with_suffix(".ann")
        if not annotation.is_file():
            counts[".txt files without their .ann, left out"] += 1
        else:
            example = _social_example(file, annotation, labels, corrected, counts)
            examples.append((file.name, example))
    return examples


def _social_example(
    file: Path, annotation: Path, labels: tuple[str, ...], corrected: bool, counts: Counter[str]
) -> Example:
    text = read_text(file)
    words, bounds = _split_words(r"\S+", text)
    if not words:
        raise InputError(f"{file} is empty: take it and its .ann out")
    spans = []
    for span in sorted(_read_spans(annotation, counts), key=lambda span: span.start):
        kind = _RENAMED.get(span.kind, span.kind)
        if kind not in SOCIAL_KINDS:
            raise InputError(
                f"{place(annotation, span.line)}: {span.kind!r} is none of the kinds of span of "
                f"Social History: {', '.join(SOCIAL_KINDS)}"
            )
        # brat writes a line break in a span as a space.
        stands = text[span.start : span.end].replace("\n", " ").strip()
        counts["spans that say another text than stands there"] += stands != span.text.strip()
        spans.append(span._replace(kind=kind))
    tags = _tag_words(bounds, spans, counts, corrected)
    indices = label_indices(labels, tags, str(annotation), "only --corrected has this tag")
    return Example(f"{file.parent.name}/{file.name}", words, tuple(indices))


SOCIAL_HISTORY = Task(
    "social_history",
    "tagging",
    read_social_history,
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


# Changes of state (COS)

COS_KINDS = ("Attr", "Cos", "Loc", "Ref", "Val")
COS_LABELS = bio_tags(COS_KINDS)
_SNIPPET = "Snippet"
_WORD = r"\w+|[^\w\s]"


def read_cos(directory: str | Path, corrected: bool = False) -> Dataset:
    """Read .ann files, in which a snippet's text stands beside its offsets; no .txt is needed."""
    counts: Counter[str] = Counter()
    examples = [
        example
        for file in find_all(directory, "*.ann")
        for example in _cos_examples(file, corrected, counts)
    ]
    if not examples:
        raise InputError(f"the .ann files of {directory} hold no span {_SNIPPET}: is this COS?")
    splits = split_seventy_fifteen_fifteen(examples)
    notes = (*note_counts(counts), *note_untrained(COS_LABELS, splits))
    return Dataset("tagging", COS_LABELS, splits, notes)


def _cos_examples(file: Path, corrected: bool, counts: Counter[str]) -> list[Example]:
    # Fidelity: unlike those of Social History, spans are taken in the file's order, not by start.
    spans = _read_spans(file, counts)
    snippets = [span for span in spans if span.kind == _SNIPPET]
    known = [span for span in spans if span.kind in COS_KINDS]
    counts["spans of other kinds, left out"] += len(spans) - len(snippets) - len(known)
    counts["spans that lie in no snippet, left out"] += sum(
        not any(_holds(snippet, span) for snippet in snippets) for span in known
    )
    examples = []
    for snippet in snippets:
        # Fidelity: offsets are counted from the snippet's start although its text is stripped.
        text = snippet.text.strip()
        counts["snippets with a text of another length than their span"] += (
            len(text) != snippet.end - snippet.start
        )
        words, bounds = _split_words(_WORD, text)
        if not words:
            raise InputError(f"{place(file, snippet.line)}: the snippet has no text")
        inside = [
            span._replace(start=span.start - snippet.start, end=span.end - snippet.start)
            for span in known
            if _holds(snippet, span)
        ]
        tags = _tag_words(bounds, inside, counts, corrected)
        where = place(file.name, snippet.line)
        examples.append(Example(where, words, tuple(label_indices(COS_LABELS, tags, where))))
    return examples


def _holds(snippet: Span, span: Span) -> bool:
    return span.start >= snippet.start and span.end <= snippet.end


COS = Task(
    "cos",
    "tagging",
    read_cos,
    "what changes where in sentences of chest X-ray reports: four kinds of phrase, and references",
    "UW-BioNLP (depts.washington.edu/bionlp), on request",
    "brat's .ann files, with spans Snippet, Cos, Ref, Loc, Attr and Val",
    quirks="A span gets the words that lie wholly inside it, and a later span overwrites an "
    "earlier one, of which an I- without its B- may be left. Corrected, a span gets every word it "
    "touches and what is left of one begins with B-.",
    learning_rates=LEARNING_RATES["cos"],
)
