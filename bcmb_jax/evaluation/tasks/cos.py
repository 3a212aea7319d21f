# SPDX-License-Identifier: Apache-2.0
"""Changes of state in chest X-ray reports (COS): one example a snippet."""

from collections import Counter
from pathlib import Path

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Task
from bcmb_jax.evaluation.published import LEARNING_RATES
from bcmb_jax.evaluation.splits import seventy_fifteen_fifteen
from bcmb_jax.evaluation.tasks.brat import Span, read_spans, split_words, tag_words
from bcmb_jax.evaluation.tasks.folder import find_all, place
from bcmb_jax.evaluation.tasks.labels import bio_tags, counted, encode, untrained

KINDS = ("Attr", "Cos", "Loc", "Ref", "Val")
LABELS = bio_tags(KINDS)
_SNIPPET = "Snippet"
_WORD = r"\w+|[^\w\s]"


def read(directory: str | Path, corrected: bool = False) -> Dataset:
    """The .ann files, in which a snippet's text stands beside its offsets; no .txt is needed."""
    oddities: Counter[str] = Counter()
    examples = [
        example
        for file in find_all(directory, "*.ann")
        for example in _snippets(file, corrected, oddities)
    ]
    if not examples:
        raise InputError(f"the .ann files of {directory} hold no span {_SNIPPET}: is this COS?")
    splits = seventy_fifteen_fifteen(examples)
    return Dataset("tagging", LABELS, splits, (*counted(oddities), *untrained(LABELS, splits)))


def _snippets(file: Path, corrected: bool, oddities: Counter[str]) -> list[Example]:
    # Fidelity: unlike those of Social History, spans are taken in the file's order, not by start.
    spans = read_spans(file, oddities)
    snippets = [span for span in spans if span.kind == _SNIPPET]
    known = [span for span in spans if span.kind in KINDS]
    oddities["spans of other kinds, left out"] += len(spans) - len(snippets) - len(known)
    oddities["spans that lie in no snippet, left out"] += sum(
        not any(_holds(snippet, span) for snippet in snippets) for span in known
    )
    examples = []
    for snippet in snippets:
        # Fidelity: offsets are counted from the snippet's start although its text is stripped.
        text = snippet.text.strip()
        oddities["snippets with a text of another length than their span"] += (
            len(text) != snippet.end - snippet.start
        )
        words, places = split_words(_WORD, text)
        if not words:
            raise InputError(f"{place(file, snippet.line)}: the snippet has no text")
        inside = [
            span._replace(start=span.start - snippet.start, end=span.end - snippet.start)
            for span in known
            if _holds(snippet, span)
        ]
        tags = tag_words(places, inside, oddities, corrected)
        where = place(file.name, snippet.line)
        examples.append(Example(where, words, tuple(encode(LABELS, tags, where))))
    return examples


def _holds(snippet: Span, span: Span) -> bool:
    return span.start >= snippet.start and span.end <= snippet.end


TASK = Task(
    "cos",
    "tagging",
    read,
    "what changes where in sentences of chest X-ray reports: four kinds of phrase, and references",
    "UW-BioNLP (depts.washington.edu/bionlp), on request",
    "brat's .ann files, with spans Snippet, Cos, Ref, Loc, Attr and Val",
    quirks="A span gets the words that lie wholly inside it, and a later span overwrites an "
    "earlier one, of which an I- without its B- may be left. Corrected, a span gets every word it "
    "touches and what is left of one begins with B-.",
    learning_rates=LEARNING_RATES["cos"],
)
