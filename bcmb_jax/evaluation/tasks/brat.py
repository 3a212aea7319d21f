# SPDX-License-Identifier: Apache-2.0
"""Spans of text by offsets, as brat annotates them: Social History, and changes of state (COS).

A span becomes the BIO tags of its words.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bcmb_jax.errors import InputError, record_error
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.tasks import reading
from bcmb_jax.evaluation.tasks.spans import DISCONTINUOUS, Span, place_spans, read_spans

NO_WORD = "spans that get no word, as none lies wholly inside"
OVERLAPPING = "spans that take words from an earlier one"


def tag_words(
    text: str,
    words: Sequence[tuple[int, int]],
    spans: Sequence[Span],
    corrected: bool,
    counts: Counter[str],
) -> tuple[tuple[str, ...], list[str]]:
    """Return the words of a text, given by where they are, and a BIO tag for each.

    Later spans overwrite earlier ones. Corrected, a span has every word that it touches, and what
    is left of an overwritten span begins with B-.
    """
    tags = ["O"] * len(words)
    owners: list[Span | None] = [None] * len(words)
    for span in spans:
        # Fidelity: the paper's readers want a word wholly inside, so that "wife." is no part of a
        # span that ends before the stop.
        inside = [
            i
            for i, (start, end) in enumerate(words)
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
                tags[i] = f"{'I' if i and owners[i - 1] is owner else 'B'}-{owner.kind}"
    return tuple(text[start:end] for start, end in words), tags


def _words(pattern: str, text: str) -> list[tuple[int, int]]:
    return [word.span() for word in re.finditer(pattern, text)]


def note_left_out(directory: str | Path, places: Sequence[str], kept: int) -> list[str]:
    """Return a note of the files whose offsets mean nothing; `InputError` if too few are kept.

    Args:
      places: of these files among those of their folder, for their names may be patients'.
    """
    if not places:
        return []
    note = (
        f"{len(places):,} .ann files left out, as in no way of counting the texts of all their "
        f"spans stand at their offsets; by name they are number {reading.list_names(places)}"
    )
    if kept < reading.FEWEST:
        raise InputError(f"data folder {directory}: {note}; are the .txt files those annotated?")
    return [note]


# Social History

# Fidelity: the paper's list is of the tags that its reader gave: two of the 53 never come about,
# as other spans overwrite every first word of one kind, and one kind has but single words.
_NEVER = ("B-LivingSituation", "I-PhysicalActivity")
# Fidelity: upstream's copy of the corpus has these two names, as its list of labels has; that of
# sdoh_extraction, which can be had, writes them otherwise. No file has WeightManagement.
_RENAMED = {"StatusTime": "Status", "Time": "Temporal"}


def read_social_history(
    directory: str | Path, classes: tuple[str, ...], corrected: bool = False
) -> Dataset:
    """Read pairs of .txt and .ann files, in the folder itself or in train, dev and test."""
    folders = split_folders(Path(directory))
    labels = tuple(tag for tag in reading.bio_tags(classes) if corrected or tag not in _NEVER)
    counts: Counter[str] = Counter()
    left_out: list[str] = []
    files: dict[str, list[tuple[str, Example]]] = {split: [] for split in folders}
    for split, folder in folders.items():
        for number, file in _annotated(folder, counts):
            if example := _social_example(file, classes, labels, corrected, counts):
                files[split].append((file.name, example))
            else:
                left_out.append(str(number) if split == "all" else f"{number} of {split}")
    notes = note_left_out(directory, left_out, sum(map(len, files.values())))
    if corrected and len(files) > 1:
        splits = {split: [example for _, example in pairs] for split, pairs in files.items()}
    else:
        # Fidelity: the paper's reader has all files in one folder, sorted by name.
        pairs = (pair for named in files.values() for pair in named)
        together = sorted(pairs, key=lambda pair: pair[0])
        splits = reading.split_seventy_fifteen_fifteen([example for _, example in together])
    return reading.dataset("tagging", labels, splits, [*reading.note_counts(counts), *notes])


def split_folders(directory: Path) -> dict[str, Path]:
    """Return the folder of each split, or the folder itself as "all" if there is none."""
    there = {
        split: [directory / stem for stem in stems if (directory / stem).is_dir()]
        for split, stems in reading.SPLIT_NAMES.items()
    }
    if not any(there.values()):
        return {"all": directory}
    for split, folders in there.items():
        if len(folders) != 1:
            raise InputError(
                f"data folder {directory} has {len(folders)} folders for {split} "
                f"({' or '.join(reading.SPLIT_NAMES[split])}), and should have one"
            )
    return {split: folder for split, (folder,) in there.items()}


def _annotated(folder: Path, counts: Counter[str]) -> Iterator[tuple[int, Path]]:
    """Yield the .txt files of a folder that have an .ann file beside them, and its number."""
    texts = reading.find_all(folder, "*.txt")
    numbers = {file.stem: i for i, file in enumerate(reading.find_all(folder, "*.ann"), start=1)}
    lonely = numbers.keys() - {file.stem for file in texts}
    counts[".ann files without their .txt, left out"] += len(lonely)
    for file in texts:
        if file.stem in numbers:
            yield numbers[file.stem], file
        else:
            counts[".txt files without their .ann, left out"] += 1


def _social_example(
    file: Path,
    kinds: tuple[str, ...],
    labels: tuple[str, ...],
    corrected: bool,
    counts: Counter[str],
) -> Example | None:
    annotation = file.with_suffix(".ann")
    spans = []
    for span in sorted(read_spans(annotation, counts), key=lambda span: span.start):
        kind = _RENAMED.get(span.kind, span.kind)
        if kind not in kinds:
            what = f"a kind of span that Social History has not, none of {', '.join(kinds)}"
            raise record_error(annotation, span.line, what)
        spans.append(span._replace(kind=kind))
    # Fidelity: upstream takes offsets as they stand, and a byte order mark for part of the first
    # word; and it makes an example of a text without a word.
    raw = reading.read_text(file, newline="")
    if not raw.strip():
        raise InputError(f"{file} is empty: take it and its .ann out")
    placed = place_spans(raw, spans, counts)
    if placed is None:
        return None
    text, placed_spans = placed
    words, tags = tag_words(text, _words(r"\S+", text), placed_spans, corrected, counts)
    rare = {tag[2:] for tag in _NEVER}
    line = next((span.line for span in spans if span.kind in rare), 1)
    hint = "only --corrected has this tag"
    indices = reading.label_indices(labels, tags, annotation, line, hint)
    return Example(f"{file.parent.name}/{file.name}", words, tuple(indices))


# Changes of state (COS)

_SNIPPET = "Snippet"
_WORD = r"\w+|[^\w\s]"


def read_cos(directory: str | Path, classes: tuple[str, ...], corrected: bool = False) -> Dataset:
    """Read .ann files, in which a snippet's text stands beside its offsets; no .txt is needed."""
    counts: Counter[str] = Counter()
    labels = reading.bio_tags(classes)
    examples: list[Example] = []
    left_out: list[str] = []
    for number, file in enumerate(reading.find_all(directory, "*.ann"), start=1):
        found = _cos_examples(file, classes, labels, corrected, counts)
        if found is None:
            left_out.append(str(number))
        else:
            examples += found
    notes = note_left_out(directory, left_out, len(examples))
    if not examples:
        raise InputError(f"the .ann files of {directory} hold no span {_SNIPPET}: is this COS?")
    splits = reading.split_seventy_fifteen_fifteen(examples)
    return reading.dataset("tagging", labels, splits, [*reading.note_counts(counts), *notes])


def _cos_examples(
    file: Path,
    kinds: tuple[str, ...],
    labels: tuple[str, ...],
    corrected: bool,
    counts: Counter[str],
) -> list[Example] | None:
    # Fidelity: unlike those of Social History, spans are taken in the file's order, not by start.
    spans = read_spans(file, counts)
    snippets = [span for span in spans if span.kind == _SNIPPET]
    known = [span for span in spans if span.kind in kinds]
    counts["spans of other kinds, left out"] += len(spans) - len(snippets) - len(known)
    counts["spans that lie in no snippet, left out"] += sum(
        not any(_holds(snippet, span) for snippet in snippets) for span in known
    )
    examples = []
    for snippet in snippets:
        if len(snippet.pieces) > 1 and len(snippet.text) != snippet.end - snippet.start:
            counts[DISCONTINUOUS] += 1
            continue
        if not snippet.text.strip():
            # Fidelity: upstream passes over a snippet without a text.
            raise record_error(file, snippet.line, "the snippet has no text")
        counts["snippets with a text of another length than their span"] += (
            len(snippet.text.strip()) != snippet.end - snippet.start
        )
        placed = place_spans(
            snippet.text,
            [span.shift(-snippet.start) for span in known if _holds(snippet, span)],
            counts,
        )
        if placed is None:
            return None
        text, inside = placed
        # Fidelity: upstream counts offsets from the snippet's start although it strips its text.
        text = text if corrected else text.strip()
        words, tags = tag_words(text, _words(_WORD, text), inside, corrected, counts)
        indices = reading.label_indices(labels, tags, file, snippet.line)
        examples.append(Example(reading.place(file.name, snippet.line), words, tuple(indices)))
    return examples


def _holds(snippet: Span, span: Span) -> bool:
    return span.start >= snippet.start and span.end <= snippet.end
