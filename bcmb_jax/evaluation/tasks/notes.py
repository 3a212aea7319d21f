# SPDX-License-Identifier: Apache-2.0
"""Clinical notes in the XML of i2b2 and n2c2, marked in the text (2006) or beside it (2012, 2014).

Layouts: Uzuner and others 2007 and 2008 (2006's two), Sun and others 2013 (2012), Stubbs and
Uzuner 2015 (2014); the files are those of n2c2.dbmi.hms.harvard.edu. No layout has a validation
split: 10 % of the training notes (seed 42) are, in 2014 of the patients, whom file names tell.
Offsets are read as brat's are, whatever they count (2012's from 1).
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from bcmb_jax.data.ingest.elements import LEFT_OUT, BrokenXml, read_elements
from bcmb_jax.errors import InputError, record_error
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.tasks import brat, reading
from bcmb_jax.evaluation.tasks.spans import Span, place_spans
from bcmb_jax.inference.entities import split_words

_LONGEST = 1 << 24  # bytes of a note
_TEST = ("test", "ground_truth", "groundtruth")  # in names of folders and files of the test set
_NO_WORDS = "notes without a word, left out"
_HELD_OUT = f"no validation is distributed: it is 10 % of training (seed {reading.SEED})"
_SHIFTED = (
    "notes left out, as in no way of counting the texts of their spans stand at their offsets"
)


def read_2006(directory: str | Path, classes: tuple[str, ...]) -> Dataset:
    """Read identifiers, `<PHI TYPE="DATE">` within the text of each `<RECORD>`."""
    counts, labels = Counter[str](), reading.bio_tags(classes)
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for split, file in _two_files(directory, "deid_surrogate").items():
        for line, record in read_marked(file, ("RECORD",)):
            pieces: list[str] = []
            spans: list[Span] = []
            body = _body(file, line, record)
            pieces.append(body.text or "")
            for element in body:
                kind, start = element.get("TYPE", ""), sum(map(len, pieces))
                reading.label_indices(classes, [kind], file, line)
                pieces.append("".join(element.itertext()))
                if pieces[-1]:
                    spans.append(Span(kind, ((start, start + len(pieces[-1])),), "", line))
                pieces.append(element.tail or "")
            where = reading.place(file.name, line)
            splits[split] += _tagged("".join(pieces), spans, labels, where, counts)
    return _dataset("tagging", labels, splits, counts)


def read_smoking(directory: str | Path, classes: tuple[str, ...]) -> Dataset:
    """Read the patient's `<SMOKING STATUS="...">` of each `<RECORD>` with its text."""
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for split, file in _two_files(directory, "smokers_surrogate").items():
        for line, record in read_marked(file, ("RECORD",)):
            status = record.find("SMOKING")
            name = "" if status is None else status.get("STATUS", "")
            indices = reading.label_indices(classes, [name], file, line)
            text = "".join(_body(file, line, record).itertext()).strip()
            if not text:
                raise record_error(file, line, "the record has no text: take it out")
            splits[split].append(Example(reading.place(file.name, line), text, tuple(indices)))
    return _dataset("single_label", classes, splits, Counter())


def read_2012(directory: str | Path, classes: tuple[str, ...]) -> Dataset:
    """Read events and times, `<EVENT>` and `<TIMEX3>` with start, end and type beside the text."""
    return _read_beside(directory, classes, ("EVENT", "TIMEX3"), "type")


def read_2014(directory: str | Path, classes: tuple[str, ...]) -> Dataset:
    """Read identifiers, elements by category with start, end and TYPE beside the text."""
    names = ("NAME", "PROFESSION", "LOCATION", "AGE", "DATE", "CONTACT", "ID", "PHI")
    return _read_beside(directory, classes, names, "TYPE")


def _read_beside(
    directory: str | Path, classes: tuple[str, ...], names: Sequence[str], attribute: str
) -> Dataset:
    counts, labels = Counter[str](), reading.bio_tags(classes)
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    patients: list[str] = []  # of the training notes; 220-01.xml is the first note of patient 220
    for number, file in enumerate(reading.find_all(directory, "**/*.xml"), 1):
        text, spans = None, []
        for line, element in read_marked(file, ("TEXT", *names)):
            if element.tag == "TEXT":
                text = "".join(element.itertext())
            else:
                spans.append(_span(file, line, element, attribute, classes))
        if text is None:
            raise record_error(file, 1, "no <TEXT>: is this a note of i2b2 or n2c2?")
        for span in spans:
            if span.end > len(text) + 1 + 2 * text.count("\n"):
                what = f"a span beyond its text of {len(text):,} characters: mend or take it out"
                raise record_error(file, span.line, what)
        placed = place_spans(text, spans, counts) if spans else (text, [])
        if placed is None:
            counts[_SHIFTED] += 1
            continue
        folders = file.relative_to(directory).parent.as_posix().casefold()
        split = "test" if any(x in folders for x in _TEST) else "train"
        where = f"{Path(directory).name}, .xml file {number}"  # whose name may be a patient's
        found = _tagged(*placed, labels, where, counts)
        splits[split] += found
        patients += [file.stem.partition("-")[0]] * len(found) if split == "train" else []
    return _dataset("tagging", labels, splits, counts, patients)


def _span(
    file: Path, line: int, element: Element, attribute: str, classes: tuple[str, ...]
) -> Span:
    kind = element.get(attribute, "").upper()
    reading.label_indices(classes, [kind], file, line)
    start, end = (element.get(x, "") for x in ("start", "end"))
    is_whole = all(x.isascii() and x.isdigit() and len(x) < 10 for x in (start, end))
    if not is_whole or int(start) >= int(end):
        raise record_error(file, line, "not a span with start before end: mend or take it out")
    return Span(kind, ((int(start), int(end)),), element.get("text", ""), line)


def _two_files(directory: str | Path, stem: str) -> Mapping[str, Path]:
    ends = {"train": "train_all_version2.xml", "test": "test_all_groundtruth_version2.xml"}
    return {split: reading.find_all(directory, f"{stem}_{end}")[0] for split, end in ends.items()}


def read_marked(file: Path, names: Collection[str]) -> Iterator[tuple[int, Element]]:
    """Yield elements with their lines; entities are refused, and nothing is fetched."""
    with file.open("rb") as stream:
        try:
            for line, element in read_elements(stream, names, _LONGEST):
                if LEFT_OUT in element.attrib:
                    what = f"longer than {_LONGEST:,} bytes: take it out"
                    raise record_error(file, line, what)
                yield line, element
        except BrokenXml as error:
            raise record_error(file, error.line, f"{error.reason}: fetch it again") from None


def _body(file: Path, line: int, record: Element) -> Element:
    body = record.find("TEXT")
    if body is None:
        raise record_error(file, line, "a record without <TEXT>: mend it or take it out")
    return body


def _tagged(
    text: str, spans: Sequence[Span], labels: tuple[str, ...], where: str, counts: Counter[str]
) -> list[Example]:
    """Return the note's example; none if it has no word."""
    words = split_words(text)
    counts[_NO_WORDS] += not words
    if not words:
        return []
    ordered = sorted(spans, key=lambda span: span.start)
    texts, tags = brat.tag_words(text, words, ordered, True, counts)
    return [Example(where, texts, tuple(map(labels.index, tags)))]


def _dataset(
    kind: reading.Kind,
    labels: tuple[str, ...],
    splits: Mapping[str, Sequence[Example]],
    counts: Counter[str],
    patients: Sequence[str] | None = None,
) -> Dataset:
    for split, examples in splits.items():
        if not examples:
            raise InputError(f"the data folder holds no note of {split}: both sets are needed")
    groups = patients or [example.where for example in splits["train"]]
    kept = set(reading.split_permuted(sorted(set(groups)), 0.1)[0])
    pairs = list(zip(groups, splits["train"], strict=True))
    train = [example for group, example in pairs if group in kept]
    validation = [example for group, example in pairs if group not in kept]
    found = {"train": train, "validation": validation, "test": splits["test"]}
    return reading.dataset(kind, labels, found, [*reading.note_counts(counts), _HELD_OUT])
