# SPDX-License-Identifier: Apache-2.0
"""A user's own annotated spans, from every tool's files to BIO tags of the words that taggers read.

A word belongs to a span that it touches. Words are those of `inference.entities`, so that a model
reads new texts as it was trained.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from bcmb_jax.data.ingest.files import matches
from bcmb_jax.errors import InputError, record_error
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.tasks import bio, brat, reading
from bcmb_jax.evaluation.tasks.annotated import READERS, Annotated, Columns, Fields, read_objects
from bcmb_jax.evaluation.tasks.labels import check_labels, check_lengths, read_labels
from bcmb_jax.evaluation.tasks.tables import refuse_shared, split_whole_groups
from bcmb_jax.inference.entities import split_words

SUFFIXES = {
    "conll": bio.SUFFIXES,
    "doccano": (".jsonl", ".json"),
    "label-studio": (".json", ".jsonl"),
    "prodigy": (".jsonl", ".json"),
    "spacy": (".spacy",),
}
TABLE = "table"
FORMATS = (TABLE, *SUFFIXES, "brat")
_HEAD = 100  # records by which a format is recognised
_NO_WORDS = "texts without a word, left out"


def recognise(path: Path) -> str:
    """Return the format of a user's file or folder, by its content.

    Raises:
      InputError: there is nothing that can be read.
    """
    if not path.exists():
        raise InputError(f"--data {path} does not exist")
    if path.is_dir() and any(path.rglob("*.ann")):
        return "brat"
    patterns = [f"*{suffix}" for suffix in (".csv", ".parquet", *sum(SUFFIXES.values(), ()))]
    below = sorted(x for x in path.iterdir() if matches(x, patterns)) if path.is_dir() else [path]
    if not below:
        endings = ", ".join(dict.fromkeys(x.removeprefix("*") for x in patterns))
        raise InputError(f"data folder {path} holds no .ann file and none of {endings}")
    file = below[0]
    if matches(file, ["*.spacy"]):
        return "spacy"
    if matches(file, ["*.json", "*.jsonl"]):
        kinds = [_kind(values) for _, values in islice(read_objects(file), _HEAD)]
        found = next((kind for kind in kinds if kind != TABLE), TABLE)
        if found == TABLE and matches(file, ["*.json"]):
            raise InputError(
                f"{file} has no spans as Doccano, Label Studio or Prodigy write them; tables of "
                "labels are read as csv, tsv, jsonl or Parquet"
            )
        return found
    if matches(file, ["*.csv", "*.parquet"]):
        return TABLE
    lines = [x.split() for _, x in islice(reading.read_lines(file), _HEAD) if x.strip()]
    lines = [x for x in lines if x[0] != "-DOCSTART-"]
    is_conll = all(len(x) > 1 and bio.TAG.fullmatch(x[-1]) for x in lines)
    return "conll" if is_conll or not matches(file, ["*.tsv"]) else TABLE


def _kind(values: Fields) -> str:
    def first(*names: str) -> object:
        found = (values[x][0] for x in names if isinstance(values.get(x), list) and values[x])
        return next(found, None)

    if isinstance(values.get("data"), dict) and {"annotations", "completions"} & values.keys():
        return "label-studio"
    labelled = first("label", "labels")
    if isinstance(labelled, dict) and {"start", "end", "labels"} <= labelled.keys():
        return "label-studio"  # its JSON-MIN
    spans, entities = first("spans"), first("entities")
    if isinstance(spans, dict) and {"start", "end", "label"} <= spans.keys():
        return "prodigy"
    if (isinstance(labelled, list) and len(labelled) == 3) or (
        isinstance(entities, dict) and "start_offset" in entities
    ):
        return "doccano"
    return TABLE


def read(
    directory: str | Path,
    format: str,
    text_column: str | None = None,
    group_column: str | None = None,
    labels: str | None = None,
) -> Dataset:
    """Read a file, which is then split, or a folder with train, validation (or dev) and test.

    Args:
      format: one of `FORMATS` but `TABLE`.
      text_column: the field of texts, where it has no usual name.
      group_column: the field of what must stay in one split, such as the patient. Without it the
        documents of conll and the subfolders of brat stay whole.
      labels: a file that lists the kinds of entity; None for such as `check_labels` lets pass.

    Raises:
      InputError: a file is missing or malformed, kinds may be names or texts, splits share a group.
    """
    path, counts, columns = Path(directory), Counter[str](), Columns(text_column, group_column)
    if group_column and format in ("conll", "brat", "spacy"):
        raise InputError(f"--group-column is for tables and JSON: {format} has no columns")
    files = _files(path, format)
    found = {split: READERS[format](file, columns, counts) for split, file in files.items()}
    kinds = _kinds(files, found, labels)
    tags = reading.bio_tags(kinds)
    examples: dict[str, list[Example]] = {split: [] for split in found}
    groups: dict[str, list[str | None]] = {split: [] for split in found}
    for split, texts in found.items():
        for text in texts:
            words = split_words(text.text)
            counts[_NO_WORDS] += not words
            if words:
                spans = sorted(text.spans, key=lambda span: span.start)
                example = brat.tag_words(text.text, words, spans, True, counts)
                indices = reading.label_indices(tags, example[1], text.where, text.line)
                examples[split].append(Example(text.where, example[0], tuple(indices)))
                groups[split].append(text.group)
    notes = reading.note_counts(counts)
    if "all" not in files:
        refuse_shared(files, groups, group_column or "documents")
        return reading.dataset("tagging", tags, examples, notes)
    whole = len(set(groups["all"]) - {None})
    kept = f", its {whole:,} groups whole" if whole else ", each text by itself"
    notes.append(f"split 70/15/15 (seed {reading.SEED}){kept}")
    splits = split_whole_groups(examples["all"], groups["all"], path)
    return reading.dataset("tagging", tags, splits, notes)


def _files(path: Path, format: str) -> dict[str, Path]:
    if format == "brat":
        return brat.split_folders(path)
    if path.is_file():
        return {"all": path}
    files = [x for x in path.glob("*") if matches(x, [f"*{end}" for end in SUFFIXES[format]])]
    return {"all": files[0]} if len(files) == 1 else reading.find_splits(path, SUFFIXES[format])


def _kinds(
    files: Mapping[str, Path], found: Mapping[str, Sequence[Annotated]], labels: str | None
) -> tuple[str, ...]:
    """Return the kinds of entity, after a look whether they may be shown."""
    fix = "see that the annotations are those that are meant"
    places = {s: [(x.line or y.line, x.kind) for y in found[s] for x in y.spans] for s in found}
    uses = {split: Counter(kind for _, kind in spans) for split, spans in places.items()}
    if not any(uses.values()):
        raise InputError(f"{next(iter(files.values()))} has no span: there is nothing to learn")
    if labels:
        known = read_labels(labels)
        for split, spans in places.items():
            for line, kind in spans:
                if kind not in known:
                    what = f"{reading.unknown_label(kind, known)}: it is not on the list --labels"
                    raise record_error(files[split], line, what)
        return known
    for split, spans in places.items():
        check_lengths(spans, files[split], fix)
    first = next(iter(files))
    check_labels({"train": uses[first], **uses}, files[first], "entities", fix)
    return tuple(sorted(set().union(*uses.values())))
