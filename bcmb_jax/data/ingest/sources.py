# SPDX-License-Identifier: Apache-2.0
"""Formats and datasets of `sources.toml`, and readers for layouts that only one of them has."""

import ast
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from bcmb_jax.data.ingest.columns import Row, Table, group_value
from bcmb_jax.data.ingest.files import (
    LONGEST,
    Lines,
    Reader,
    Records,
    Regroup,
    Repeats,
    Stream,
    find_files,
    list_files,
    matches,
    open_text,
    suffix_of,
)
from bcmb_jax.data.ingest.formats import (
    read_by_name,
    read_csv,
    read_json,
    read_jsonl,
    read_parquet,
    read_text,
    read_tsv,
)
from bcmb_jax.data.ingest.mds import list_indexes, read_mds, shards_of
from bcmb_jax.data.ingest.pmc import by_article, details_of, newest_first, pmc_reader, read_pmc
from bcmb_jax.data.ingest.pubmed import pubmed_reader, read_pubmed
from bcmb_jax.data.ingest.record import (
    BROKEN_COLUMNS,
    EMPTY,
    REPEATED,
    TOO_LONG,
    Document,
    Record,
    Skipped,
    digest,
    make_record,
)
from bcmb_jax.errors import InputError

# ADE: PubMed id, sentence, effect, begin, end, drug, begin, end. Quotes mean nothing.
_RELATION = re.compile(r"(\d+)\|([^|]*)(?:\|[^|]*){6}")
_NEGATIVE = re.compile(r"(\d+) NEG (.*)")


class Paper(NamedTuple):
    """A row of the paper's Table 1; tokens in millions."""

    country: str
    clinical_source: str
    clinical_context: str
    samples: int
    tokens: float


class Group(NamedTuple):
    """The kind of a source's group, and where its id stands (or, with a table, the key to it).

    Attributes:
      path: a regular expression whose first group is the id.
      table: files of the same distribution that lead from the `key` of a text to the `value` that
        is its group.
    """

    what: str = "each document is its own"
    column: str | None = None
    path: str | None = None
    table: Sequence[str] = ()
    key: str = ""
    value: str = ""

    def __str__(self) -> str:
        if self.table:
            return f"{self.what} ({self.value} in {' or '.join(self.table)})"
        where = "in the path" if self.path else self.column
        return f"{self.what} ({where})" if where else self.what

    def regroup(self, paths: Sequence[str | Path]) -> Regroup | None:
        """Return a function that finds groups below `paths`, or None where the column is enough."""
        if not self.path and not self.table:
            return None
        groups = self._read_table(paths) if self.table else None

        def regroup(file: Path, group: str | None) -> str | None:
            if self.path:
                match = re.search(self.path, file.as_posix())
                group = group_value(match[1]) if match else None
            return group if groups is None else groups.get(group or "")

        return regroup

    def is_table(self, path: Path) -> bool:
        """Return whether a file is the table rather than one with texts."""
        return path.is_file() and matches(path, self.table)

    def tables(self, paths: Sequence[str | Path]) -> list[Path]:
        """Return the tables among and below `paths`."""
        tables: list[Path] = []
        for path in map(Path, paths) if self.table else ():
            tables += [path] if self.is_table(path) else find_files(path, self.table)
        return tables

    def _read_table(self, paths: Sequence[str | Path]) -> dict[str, str | None]:
        tables = self.tables(paths)
        if not tables:
            without = f", or --group-column {self.column} to do without" if self.column else ""
            raise InputError(
                f"the input holds no {' or '.join(self.table)}, which says the {self.what} of a "
                f"text: give the folder that holds both{without}"
            )
        rows = Records(tables, read_by_name, self.key, self.value)  # the key as text
        documents = [row for row in rows if isinstance(row, Document)]
        return {key: row.group for row in documents if (key := group_value(row.text))}


ALONE = Group()


class Source(NamedTuple):
    """A plain format, or a dataset as it is distributed and what may be done with it.

    Attributes:
      files: how the files' paths end; each may be gzipped.
      has_columns: whether a text and a group column may be named.
      title: its name in the paper.
      paper: its row in Table 1, if it has one.
      licence: the licence or the data use agreement.
      text_column: the default; None for layouts without columns, and for plain formats.
      skip_column: the column that marks records to be left out.
      persons: whether records may be of persons: then a secret chooses split and surrogates.
      unique: makes the function that tells repeated documents, for each reading.
      find: lists the input's files.
      beside: lists what is read with these files, such as the shards of an index.
      make_reader: makes a reader that has to know all files before the first record; called as
        `make_reader(files, progress)`, for PMC perhaps with `licenses`, for PubMed with `bounds`.
    """

    files: Sequence[str]
    reader: Reader
    has_columns: bool
    about: str
    title: str = ""
    licence: str = ""
    url: str = ""
    paper: Paper | None = None
    kind: str = "clinical"
    text_column: str | None = None
    skip_column: str | None = None
    group: Group = ALONE
    persons: bool = True
    unique: Callable[[], Repeats] | None = None
    find: Callable[[Sequence[str | Path], Sequence[str]], list[Path]] = list_files
    beside: Callable[[Sequence[Path]], list[Path]] = lambda files: []
    make_reader: Callable[..., Reader] | None = None


def by_text() -> Repeats:
    """Return a function that finds a text again."""
    seen: set[bytes] = set()

    def repeats(document: Document) -> str | None:
        known = digest(document.text)
        if known in seen:
            return REPEATED
        seen.add(known)
        return None

    return repeats


def read_ade(stream: Stream, file: str, longest: int = LONGEST) -> Iterator[Record]:
    """Yield ADE's sentences, one a line: between bars (DRUG-AE.rel) or behind "NEG" (ADE-NEG.txt).

    The group is the PubMed id of the article.
    """
    layout = _RELATION if suffix_of(file) == ".rel" else _NEGATIVE
    for number, line in enumerate(Lines(open_text(stream, newline="\n"), longest), start=1):
        if line is None:
            yield Skipped(file, number, TOO_LONG)
        elif match := layout.fullmatch(line.rstrip("\r\n")):
            yield make_record(match[2], match[1], file, number)
        else:
            yield Skipped(file, number, BROKEN_COLUMNS if line.strip() else EMPTY)


def read_medqa(stream: Stream, file: str, longest: int = LONGEST) -> Table | Iterator[Record]:
    """Read MedQA's questions, as jsonl or as a table; their options become lines "A. aspirin"."""
    table = read_by_name(stream, file, longest)
    return table.map(_spell_options) if isinstance(table, Table) else table


def _spell_options(row: Row) -> Row:
    name = next((name for name in row.values if name.lower() == "options"), "options")
    options = row.values.get(name)
    if options is None:
        return row
    try:
        if isinstance(options, str):  # a table holds the value as Python prints it
            options = ast.literal_eval(options)
        if isinstance(options, list):  # of {"key": "A", "value": "aspirin"}
            options = {option["key"]: option["value"] for option in options}
        lines = "\n".join(key + ". " + text for key, text in options.items())
    except (ValueError, SyntaxError, TypeError, LookupError, AttributeError, RecursionError):
        lines = None  # counted as a text that is not a string
    return row._replace(values={**row.values, name: lines if lines is not None else ()})


_TEXTS: dict[str, Reader] = {"text": read_text, "ade": read_ade}
_TEXTS |= {"pubmed": read_pubmed, "pmc": read_pmc}
_TABLES: dict[str, Reader] = {"csv": read_csv, "tsv": read_tsv, "json": read_json}
_TABLES |= {"jsonl": read_jsonl, "parquet": read_parquet, "mds": read_mds, "by name": read_by_name}
_TABLES |= {"medqa": read_medqa}
_FIND = {"mds": list_indexes, "pmc": newest_first}
_BESIDE = {"mds": shards_of, "pmc": details_of}
_MAKE_READER: dict[str, Callable[..., Reader]] = {"pubmed": pubmed_reader, "pmc": pmc_reader}
_COUNT_ONCE = {"text": by_text, "article": by_article}


def _make_source(
    format: str,
    paper: dict[str, Any] | None = None,
    group: dict[str, Any] | None = None,
    count_once: str = "",
    **rest: Any,
) -> Source:
    return Source(
        reader={**_TABLES, **_TEXTS}[format],
        has_columns=format in _TABLES,
        paper=Paper(**paper) if paper else None,
        group=Group(**(group or {})),
        unique=_COUNT_ONCE.get(count_once),
        find=_FIND.get(format, list_files),
        beside=_BESIDE.get(format, lambda files: []),
        make_reader=_MAKE_READER.get(format),
        **rest,
    )


_ENTRIES = {
    name: _make_source(**entry)
    for name, entry in tomllib.loads(
        resources.files(__package__).joinpath("sources.toml").read_text(encoding="utf-8")
    ).items()
}
FORMATS = {name: source for name, source in _ENTRIES.items() if source.kind == "format"}
SOURCES = {name: source for name, source in _ENTRIES.items() if source.kind != "format"}
