# SPDX-License-Identifier: Apache-2.0
"""Which articles still count in PubMed's baseline and the update files after it."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcmb_jax.data.ingest.files import Reader, Records
from bcmb_jax.data.ingest.pubmed import make_article, read_citations, read_pmid
from bcmb_jax.data.ingest.record import Record, Skipped
from bcmb_jax.errors import InputError

SUPERSEDED = "superseded by a later version"
DELETED = "deleted citation"

_REASONS = ("", SUPERSEDED, DELETED)


def pubmed_reader(files: Sequence[Path]) -> Reader:
    """A reader of these files that skips what `latest_versions` finds overtaken."""
    versions = latest_versions(files)

    def read(stream: Any, file: str, *_: str | None) -> Iterator[Record]:
        fates = versions[file]
        changed = InputError(f"input {file} has changed while it was read: start again")
        number = 0
        for line, element in read_citations(stream, file):
            if element.tag == "DeleteCitation":
                continue
            if number == len(fates):
                raise changed
            reason = _REASONS[fates[number]]
            number += 1
            yield Skipped(file, line, reason) if reason else make_article(element, file, line)
        if number < len(fates):
            raise changed

    return read


def latest_versions(files: Sequence[Path]) -> dict[str, np.ndarray]:
    """By file, an index of `_REASONS` for each of its articles, in order; reads every file once.

    A record replaces those of its PMID and Version that came before, a `DeleteCitation` deletes
    them; of the versions that are left of a PMID the highest counts. Before means in the order of
    the files' names, which NLM numbers from the baseline on. Takes about 30 bytes an article, some
    1.2 GB for all of PubMed, of which 1 byte each is kept.
    """
    ids = array("Q")
    deletions: dict[int, int] = {}  # what is deleted: after how many articles
    ends: dict[str, int] = {}

    def note(stream: Any, file: str, *_: str | None) -> Iterator[Record]:
        for _line, element in read_citations(stream, file):
            if element.tag == "DeleteCitation":
                deletions.update((_id(pmid), len(ids)) for pmid in element.iter("PMID"))
            else:
                ids.append(_id(element.find("MedlineCitation/PMID")))
        ends[file] = len(ids)
        yield from ()

    for _ in Records(sorted(files, key=lambda file: file.name), note, None, None):
        pass
    fates = np.split(_find_fates(np.frombuffer(ids, np.uint64), deletions), list(ends.values()))
    return dict(zip(ends, fates, strict=False))  # nothing is left after the last end


def _id(pmid: Any) -> int:
    number, version = read_pmid(pmid)
    return number << 16 | version


def _find_fates(ids: np.ndarray, deletions: Mapping[int, int]) -> np.ndarray:
    fates = np.zeros(len(ids), np.uint8)
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    fates[order[:-1][ordered[1:] == ordered[:-1]]] = _REASONS.index(SUPERSEDED)
    deleted = np.array(list(deletions), np.uint64)
    starts, stops = (np.searchsorted(ordered, deleted, side) for side in ("left", "right"))
    for start, stop, before in zip(starts, stops, deletions.values(), strict=True):
        same = order[start:stop]
        fates[same[same < before]] = _REASONS.index(DELETED)
    alive = order[fates[order] == 0]
    pmids = ids[alive] >> np.uint64(16)
    fates[alive[:-1][pmids[1:] == pmids[:-1]]] = _REASONS.index(SUPERSEDED)
    fates[ids == 0] = 0  # without a PMID, articles are not versions of each other
    return fates
