# SPDX-License-Identifier: Apache-2.0
"""Identifiers in nursing notes, from a text with surrogates and its masks or a list of phrases.

`id.res` has a mask such as `[**Known lastname 33**]` where `id.text` has the surrogate, and
`id-phi.phrase` (of the software deid, physionet.org/content/deid) a line
`patient note start end kind phrase` for it (Neamatullah and others 2008).
"""

import re
from collections import Counter
from pathlib import Path

from bcmb_jax.errors import InputError, record_error
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.tasks import brat, reading
from bcmb_jax.evaluation.tasks.spans import Span, place_spans
from bcmb_jax.evaluation.tasks.tables import split_whole_groups
from bcmb_jax.inference.entities import split_words

_RECORD = re.compile(r"START_OF_RECORD=(.*?)\|\|\|\|END_OF_RECORD", re.DOTALL)
_PHRASE = re.compile(r"(\d+) (\d+) (\d{1,9}) (\d{1,9}) (\S+) (.*\S.*)")
_SLACK = 16  # characters that offsets may count before a text
_HEADER = re.compile(r"(\d+)\|\|\|\|(\d+)\|\|\|\|")
_MASK = re.compile(r"(\[\*\*.*?\*\*\])")
# Patterns of what a mask says, and its category: the first pattern that is found decides, as in the
# paper's reader, for which "Wardname" is a name.
_WORDS = (
    (r"name", "name"),
    (r"e-?mail address", "other"),
    (r"telephone/fax|pager number", "phone_nb"),
    (r"age over", "age"),
    (r"location|hospital|street address|unit number", "location"),
    (r"^(?:\d+|\d{1,2}-\d{1,2}|\d{4}-\d{2}-\d{2})$|date range|month/year", "date"),
    (r"^$|company", "other"),
)
_MORE_WORDS = (
    (r"ward ?name", "location"),
    *_WORDS,
    (r"^\d{1,4}[-/]\d{1,2}(?:[-/]\d{1,4})?$|month|year|day|holiday", "date"),
    (r"state|country|county|city|college|university|p\.?o\.? ?box|zip", "location"),
)

_UNMAPPED = "masks of no category of the paper, read as other"
_ADJACENT = "masks right after another"
_EMPTY = "masks without a word of text"
_DISAGREEING = "records whose two texts do not agree, read as far as they do"


def read(directory: str | Path, classes: tuple[str, ...], corrected: bool = False) -> Dataset:
    """Read id.text and id.res, which have the same records in the same order."""
    text_file, mask_file = (reading.find(directory, ("id",), (end,)) for end in (".text", ".res"))
    # Fidelity: O comes first here, and last in the other tasks.
    labels = ("O", *reading.bio_tags(classes)[:-1])
    texts, masked = _records(text_file), _records(mask_file)
    if len(texts) != len(masked):
        raise InputError(
            f"{text_file} has {len(texts)} records and {mask_file} has {len(masked)}: they must be "
            "of one release"
        )
    counts: Counter[str] = Counter()
    examples = []
    for (line, name, text), (mask_line, mask_name, mask) in zip(texts, masked, strict=True):
        if name != mask_name:
            what = (
                f"the record of another patient or note than in line {mask_line:,} of {mask_file}: "
                "they must come in the same order"
            )
            raise record_error(text_file, line, what)
        tagged = _tag_surrogates(text, mask, corrected, counts)
        if tagged is None:
            counts["records whose two texts do not agree, left out"] += 1
        elif not tagged:
            counts["records without a word, left out"] += 1
        else:
            words, tags = zip(*tagged, strict=True)
            indices = reading.label_indices(labels, tags, text_file, line)
            examples.append(Example(reading.place(text_file.name, line), words, tuple(indices)))
    # Fidelity: scikit-learn's splitter here, that of datasets in the other tasks.
    splits = reading.split_seventy_fifteen_fifteen(examples, reading.split_shuffled)
    return reading.dataset("tagging", labels, splits, reading.note_counts(counts))


def read_phrases(directory: str | Path, classes: tuple[str, ...]) -> Dataset:
    """Read id.text and id-phi.phrase, split 70/15/15 (seed 42) by patient, as none is distributed.

    Offsets are read as brat's are, from what follows a record's first line.
    """
    text_file = reading.find(directory, ("id",), (".text",))
    file = reading.find(directory, ("id-phi",), (".phrase",))
    texts = {name: (line, text) for line, name, text in _records(text_file, is_raw=True)}
    spans: dict[tuple[str, str], list[Span]] = {name: [] for name in texts}
    for number, row in reading.read_lines(file):
        if not row.strip():
            continue
        match = _PHRASE.fullmatch(row)
        if not match or int(match[3]) >= int(match[4]):
            what = "not 'patient note start end kind phrase' with start before end"
            raise record_error(file, number, what)
        reading.label_indices(classes, [match[5]], file, number)
        name = (match[1], match[2])
        if name not in texts or int(match[4]) > len(texts[name][1].encode()) + _SLACK:
            what = f"a phrase of no record of {text_file.name}, or beyond its end"
            raise record_error(file, number, what)
        bounds = (int(match[3]), int(match[4]))
        spans[name].append(Span(match[5], (bounds,), match[6], number))
    counts, labels = Counter[str](), reading.bio_tags(classes)
    examples, patients = [], []
    for name, (line, raw) in texts.items():
        placed = place_spans(raw, spans[name], counts) if spans[name] else (raw, [])
        words = split_words(placed[0]) if placed else []
        counts["records without a word, or whose phrases stand elsewhere, left out"] += not words
        if placed and words:
            ordered = sorted(placed[1], key=lambda span: span.start)
            shown, tags = brat.tag_words(placed[0], words, ordered, True, counts)
            where = reading.place(text_file.name, line)
            examples.append(Example(where, shown, tuple(map(labels.index, tags))))
            patients.append(name[0])
    splits = split_whole_groups(examples, patients, text_file)
    return reading.dataset("tagging", labels, splits, reading.note_counts(counts))


def _records(file: Path, is_raw: bool = False) -> list[tuple[int, tuple[str, str], str]]:
    """Return the line, patient and note, and text of every record.

    Line breaks become spaces, or (`is_raw`) stay as they are after that of the first line.
    """
    content = reading.read_text(file)
    records = []
    line, last = 1, 0
    for record in _RECORD.finditer(content):
        line, last = line + content.count("\n", last, record.start()), record.start()
        header = _HEADER.match(record[1])
        if not header:
            raise record_error(file, line, "a record begins without patient||||note||||")
        raw = record[1][header.end() :]
        text = raw.removeprefix("\n") if is_raw else raw.strip().replace("\n", " ")
        records.append((line, (header[1], header[2]), text))
    if not records:
        raise InputError(f"{file} holds no record between START_OF_RECORD= and ||||END_OF_RECORD")
    if (begun := content.count("START_OF_RECORD=")) != len(records):
        raise InputError(f"{file}: {begun} records begin, but {len(records)} end as they should")
    return records


def category(mask: str, corrected: bool) -> str | None:
    """Return the category of a mask with its brackets; None if it has none."""
    content = mask[3:-3].strip().lower()
    for pattern, kind in _MORE_WORDS if corrected else _WORDS:
        if re.search(pattern, content):
            return kind
    return None


def _tag_surrogates(
    text: str, masked: str, corrected: bool, counts: Counter[str]
) -> list[tuple[str, str]] | None:
    """Return the words of a record with their tags; None if, corrected, the texts do not agree.

    Words end at white space and where a mask begins or ends.
    """
    pieces = _MASK.split(masked)  # plain, mask, plain, …, plain
    counts[_ADJACENT] += sum(not plain for plain in pieces[2:-1:2])
    if corrected:
        pieces = _join_adjacent(pieces)
    bounds, agree = _bounds(text, pieces[::2], corrected)
    if corrected and not agree:
        return None
    counts[_DISAGREEING] += not agree
    tagged: list[tuple[str, str]] = []
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            # Fidelity: plain words are those of the masked text.
            tagged += [(word, "O") for word in piece.split()]
            continue
        kind = category(piece, corrected)
        # Fidelity: the paper's reader gives a bare "B" or "I" here, which its list of labels
        # refuses; so in its data there was no such mask, or the script stopped.
        counts[_UNMAPPED] += kind is None
        words = text[slice(*bounds[i // 2])].split()
        counts[_EMPTY] += not words
        tagged += [(word, f"{'I' if n else 'B'}-{kind or 'other'}") for n, word in enumerate(words)]
    return tagged


def _join_adjacent(pieces: list[str]) -> list[str]:
    joined = pieces[:2]
    for plain, mask in zip(pieces[2::2], [*pieces[3::2], ""], strict=False):  # or no mask at all
        if plain or not mask:
            joined += [plain, mask] if mask else [plain]
    return joined


def _bounds(text: str, plain: list[str], corrected: bool) -> tuple[list[tuple[int, int]], bool]:
    """Return the `[start, end)` of each surrogate, and whether the plain pieces are all in place.

    A surrogate stands between a plain piece and the next.
    """
    agree = text.startswith(plain[0])
    at = len(plain[0])
    bounds = []
    for i, piece in enumerate(plain[1:], start=1):
        # Fidelity: the paper's reader looks for the next piece from where the mask begins, and
        # takes all that is left for the mask if there is none, or if it is empty.
        if corrected and i == len(plain) - 1:
            end = len(text) - len(piece) if text.endswith(piece) else -1
            end = end if end > at else -1
        else:
            end = text.find(piece, at + corrected) if piece else len(text)
        agree = agree and end >= 0
        end = end if end >= 0 else len(text)
        bounds.append((at, end))
        at = end + len(piece)
    return bounds, agree and at == len(text)
