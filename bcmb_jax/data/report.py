# SPDX-License-Identifier: Apache-2.0
"""Progress and counts of a preparation: records left out, odd documents kept, lines to say it."""

import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bcmb_jax.data.canaries import CANARIES
from bcmb_jax.data.ingest.columns import MISSING
from bcmb_jax.data.ingest.record import (
    BROKEN_UNICODE,
    Document,
    Skipped,
    TokenDocument,
    digest,
)
from bcmb_jax.data.vocabulary import Review
from bcmb_jax.terminal import Display

REPEATS = "repeats of an earlier text"
MISSING_VALUES = "words for a missing value"
SHORT_CHARACTERS = 20
SHORT = f"texts of fewer than {SHORT_CHARACTERS} characters"
HINTS = {
    REPEATS: "--exact-duplicates leaves them out",
    MISSING_VALUES: f"--min-characters {SHORT_CHARACTERS} leaves them out",
    SHORT: f"--min-characters {SHORT_CHARACTERS} leaves them out",
}
"""The option of bcmb prepare against each."""

NAMES = "input_files.json"
"""The only file of an output with names of input files, which may be patients' names."""

MANY_UNKNOWN = 0.01
"""Share of unknown tokens from which on it is said."""


class LeftOut:
    """Counts of the records without a document by reason, and where the first `LISTED` stand.

    Files have numbers there, as their names may be patients'; `files` has the names.
    """

    LISTED = 100_000  # of PubMed's records, millions have been superseded

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.lines: dict[str, dict[str, list[int]]] = {}
        self.files: dict[str, str] = {}
        """Numbers from "1" on by name."""

    def add(self, record: Skipped) -> None:
        """Count a record, and list its file and line while there are few of its reason."""
        self.counts[record.reason] += 1
        if self.counts[record.reason] <= self.LISTED:
            number = self.files.setdefault(record.file, str(len(self.files) + 1))
            self.lines.setdefault(record.reason, {}).setdefault(number, []).append(record.line)


class Kept:
    """Counts of odd documents; 8 bytes of memory a document."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._digests = array("Q")

    def add(self, document: Document | TokenDocument) -> None:
        """Count a document; white space does not tell texts apart."""
        if isinstance(document, TokenDocument):
            text = document.ids.tobytes().hex()
        else:
            words = document.text.split()
            text = " ".join(words)
            if text.lower() in MISSING:
                self._counts[MISSING_VALUES] += 1
            elif sum(map(len, words)) < SHORT_CHARACTERS:
                self._counts[SHORT] += 1
        self._digests.append(int.from_bytes(digest(text)[:8], "little"))

    def counts(self) -> dict[str, int]:
        """Return how many documents there are of each kind, without kinds that have none."""
        digests = np.frombuffer(self._digests, np.uint64)
        repeats = len(digests) - len(np.unique(digests))
        found = {REPEATS: repeats, **self._counts}
        return {kind: found[kind] for kind in HINTS if found.get(kind)}


class StageProgress:
    """Progress of a preparation by stages: documents, tokens and their rates on a display.

    Args:
      fraction_read: the share of the input's bytes that has been read, 0 to 1.
    """

    def __init__(self, fraction_read: Callable[[], float], display: Display):
        self._fraction_read, self._display = fraction_read, display
        self._stage = ""
        self._called = self._started = time.monotonic()

    def __call__(
        self, stage: str, documents: int, tokens: int = 0, fraction: float | None = None
    ) -> None:
        """Show the counts of a stage; `fraction` of it is done, if the input does not tell."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._started = stage, self._called
        self._called = now
        seconds = max(now - self._started, 1e-3)
        counts = {"documents": documents, "tokens": tokens} if tokens else {"documents": documents}
        parts = [f"{count:,} {unit}" for unit, count in counts.items()]
        parts += [f"{count / seconds:,.0f} {unit}/s" for unit, count in counts.items()]
        done = self._fraction_read() if fraction is None else fraction
        self._display.progress(done, f"{stage}: {', '.join(parts)}")


def summarise(
    report: Mapping[str, Any], output: Path, written: Mapping[str, str], *, grouped: bool
) -> Iterator[str]:
    """Yield lines about a finished preparation.

    Args:
      report: from `prepare.prepare`.
      written: how files of the input are written, where it is not as usual.
      grouped: whether documents were expected to have groups.
    """
    yield f"{output}: {report['documents']:,} documents, {report['tokens']:,} tokens"
    for how, files in Counter(written.values()).items():
        yield f"  read {files:,} {'file' if files == 1 else 'files'} as {how}"
    for split, counts in report["splits"].items():
        yield f"  {split}: {counts['documents']:,} documents, {counts['tokens']:,} tokens"
    if planted := report["options"].get("canaries"):
        yield (
            f"  planted {planted['sentences']:,} made-up canaries in train, each in "
            f"{planted['repeats']:,} documents: {output / CANARIES} lists them, for your eyes alone"
        )
    if report["moved_to_validation"]:
        yield "  no group fell into validation by its hash: the nearest in size was moved there"
    share = report["unknown_tokens"] / report["tokens"]
    if share > MANY_UNKNOWN:
        yield (
            f"  warning: {share:.1%} of the tokens are unknown to the tokenizer, and cannot be "
            "learned: choose one for these texts' language and letters"
        )
    found = Review(**report["tokenizer"])
    if found.finding and not found.reviewed:
        yield (
            f"  warning: {found.finding}; look at them, then --tokenizer-reviewed stands in report "
            "and model card instead of this"
        )
    if grouped and report["documents_without_group"]:
        yield f"  {report['documents_without_group']:,} documents have no group: each its own"
    for kind, count in report["kept"].items():
        yield f"  kept, {kind}: {count:,} ({HINTS[kind]})"
    for change, count in report["cleaned"].items():
        yield f"  {change}: {count:,}"
    for reason, count in report["skipped"].items():
        hint = " (name such files' encoding: --encoding)" if reason == BROKEN_UNICODE else ""
        yield f"  left out, {reason}: {count:,}{hint}"
    yield f"  lines left out: {output / 'report.json'}, their files' names: {output / NAMES}"
