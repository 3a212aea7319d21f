# SPDX-License-Identifier: Apache-2.0
"""Texts with spans, as conll, brat, spaCy, Doccano, Prodigy and Label Studio write them.

What is left out is counted. Messages name the file and the line, never a text or a label.
"""

import json
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from bcmb_jax.data.ingest.columns import group_value
from bcmb_jax.errors import InputError, record_error
from bcmb_jax.evaluation.tasks import bio, brat, reading
from bcmb_jax.evaluation.tasks.spans import Span, place_spans, read_spans

_NO_ANSWER = "records that were rejected, ignored or not annotated, left out"
_OTHERS = "further annotations of the same text, left out: the first counts"
_OTHER_RESULTS = "results that are no spans, left out"

Fields: TypeAlias = Mapping[str, Any]
Triple: TypeAlias = tuple[Any, Any, Any]
"""Start, end and label of a span as a file has them, not yet checked."""
Parse: TypeAlias = Callable[[Fields, Counter[str]], tuple[Fields, list[Triple]] | None]
"""Turns a JSON record into the fields of its text and its spans; None leaves it out, counted."""


class Annotated(NamedTuple):
    """A text with spans; `where` and `line` are for messages."""

    where: str
    line: int
    text: str
    spans: Sequence[Span]
    group: str | None = None


class Columns(NamedTuple):
    """Fields of text and group; None takes the usual text, and each text as its own group."""

    text: str | None
    group: str | None


def _read_conll(path: Path, columns: Columns, counts: Counter[str]) -> list[Annotated]:
    """Join the words of each sentence with spaces, as they stand in texts."""
    from seqeval.metrics.sequence_labeling import get_entities  # takes a second to import

    begins = [n for n, line in reading.read_lines(path) if line.startswith("-DOCSTART-")]
    found = []
    for sentence in bio.read_sentences(path, counts):
        line, words = sentence[0].line, [word.text for word in sentence]
        starts = [0, *accumulate(len(word) + 1 for word in words)]
        spans = [
            Span(kind, ((starts[first], starts[last + 1] - 1),), "", sentence[first].line)
            for kind, first, last in get_entities([word.tag for word in sentence])
        ]
        group = f"{path.name} {bisect(begins, line)}" if begins else None
        found.append(Annotated(reading.place(path.name, line), line, " ".join(words), spans, group))
    return found


def _read_brat(folder: Path, columns: Columns, counts: Counter[str]) -> list[Annotated]:
    found, left_out = [], []
    for number, file in enumerate(reading.find_all(folder, "**/*.ann"), 1):
        text = file.with_suffix(".txt")
        if not text.is_file():
            counts[".ann files without their .txt, left out"] += 1
            continue
        raw = reading.read_text(text, newline="")
        placed = place_spans(raw, read_spans(file, counts), counts)
        if placed is None:
            left_out.append(str(number))
            continue
        where = f"{folder.name}, .ann file {number}"  # whose name may be a patient's
        below = file.parent.relative_to(folder).as_posix()
        found.append(Annotated(where, 0, *placed, None if below == "." else below))
    for note in brat.note_left_out(folder, left_out, len(found)):
        counts[note.partition(" ")[2]] += len(left_out)
    return found


def _read_spacy(path: Path, columns: Columns, counts: Counter[str]) -> list[Annotated]:
    try:
        from spacy.tokens import DocBin
        from spacy.vocab import Vocab
    except ImportError:
        raise InputError(
            f"{path} is spaCy's DocBin, which only spaCy reads: pip install spacy"
        ) from None
    try:
        docs = [*DocBin().from_disk(path).get_docs(Vocab())]
    except Exception as error:
        raise InputError(f"{path} cannot be read as a DocBin ({type(error).__name__})") from None
    return [
        _checked(
            path,
            number,
            doc.text,
            [(span.start_char, span.end_char, span.label_) for span in doc.ents],
        )
        for number, doc in enumerate(docs, 1)
    ]


def _read_json(parse: Parse, path: Path, columns: Columns, counts: Counter[str]) -> list[Annotated]:
    found, has_group = [], False
    for line, values in read_objects(path):
        parsed = parse(values, counts)
        if parsed is None:
            counts[_NO_ANSWER] += 1
            continue
        fields, triples = parsed
        meta = fields.get("meta")
        fields = {**meta, **fields} if isinstance(meta, dict) else fields
        names = (columns.text,) if columns.text else ("text", "data")
        text = next((x for name in names if isinstance(x := fields.get(name or ""), str)), None)
        if text is None:
            what = f"no text as {' or '.join(map(str, names))}: name its field with --text-column"
            raise record_error(path, line, what)
        has_group |= columns.group in fields
        group = group_value(fields.get(columns.group)) if columns.group else None
        found.append(_checked(path, line, text, triples)._replace(group=group))
    if columns.group and not has_group:
        raise InputError(f"{path}: none of {len(found):,} records has the field of --group-column")
    return found


def read_objects(path: Path) -> Iterator[tuple[int, Fields]]:
    """Yield JSON objects with their lines, or their numbers where the file is one list."""
    text = reading.read_text(path)
    is_list = text.lstrip()[:1] == "["
    records: Iterable[Any] = reading.load_json(path) if is_list else text.split("\n")
    for line, record in enumerate(records, 1):
        if not is_list:
            if not record.strip():
                continue
            try:
                record = json.loads(record)
            except (ValueError, RecursionError):
                raise record_error(path, line, "not JSON: mend the line or take it out") from None
        if not isinstance(record, dict):
            raise record_error(path, line, "not a JSON object: mend it or take it out")
        yield line, record


def _checked(path: Path, line: int, text: str, triples: Sequence[Triple]) -> Annotated:
    """Check spans against their text."""
    spans: list[Span] = []
    for start, end, label in triples:
        numbers = type(start) is int and type(end) is int
        if not numbers or not 0 <= start < end <= len(text) or not isinstance(label, str):
            what = (
                f"span {len(spans) + 1:,} of {len(triples):,} is not two character offsets in its "
                f"text of {len(text):,} characters and a label"
            )
            raise record_error(path, line, what)
        spans.append(Span(label, ((start, end),), "", line))
    return Annotated(reading.place(path.name, line), line, text, spans)


def _parse_doccano(values: Fields, counts: Counter[str]) -> tuple[Fields, list[Triple]]:
    keys = ("start_offset", "end_offset", "label")
    items: Sequence[Any] = next(
        (x for key in ("entities", "label", "labels") if (x := values.get(key))), []
    )
    return values, [_triple(x, keys) for x in items]


def _parse_prodigy(values: Fields, counts: Counter[str]) -> tuple[Fields, list[Triple]] | None:
    if values.get("answer", "accept") != "accept":
        return None
    return values, [_triple(x, ("start", "end", "label")) for x in values.get("spans") or []]


def _parse_label_studio(values: Fields, counts: Counter[str]) -> tuple[Fields, list[Triple]] | None:
    data = values.get("data")
    if isinstance(data, dict):
        given = values.get("annotations") or values.get("completions") or []
        done = [x for x in given if not x.get("was_cancelled")]
        if not done:
            return None
        counts[_OTHERS] += len(done) - 1
        results = done[0].get("result") or []
    else:  # JSON-MIN
        data, results = values, values.get("label") or values.get("labels") or []
    triples = []
    for result in results:
        value = result.get("value", result)
        labels = value.get("labels") or value.get("hypertextlabels") or []
        counts[_OTHER_RESULTS] += not labels
        place = value.get("globalOffsets", value)
        triples += [(place.get("start"), place.get("end"), label) for label in labels]
    return data, triples


def _triple(item: object, keys: Sequence[str]) -> Triple:
    """Return start, end and label of an object or a list; nothing of what is neither."""
    values = [item.get(key) for key in keys] if isinstance(item, dict) else item
    if not isinstance(values, list) or len(values) != 3:
        return None, None, None
    return values[0], values[1], values[2]


READERS: dict[str, Callable[[Path, Columns, Counter[str]], list[Annotated]]] = {
    "conll": _read_conll,
    "brat": _read_brat,
    "spacy": _read_spacy,
    "doccano": partial(_read_json, _parse_doccano),
    "prodigy": partial(_read_json, _parse_prodigy),
    "label-studio": partial(_read_json, _parse_label_studio),
}
