# SPDX-License-Identifier: Apache-2.0
"""Cleaning of documents before they are tokenized; every kind is off unless asked for."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bcmb_jax.data.clean.duplicates import Duplicates
from bcmb_jax.data.clean.lines import unwrap
from bcmb_jax.data.clean.placeholders import replace_placeholders
from bcmb_jax.data.clean.surrogates import DATE_SHIFTS
from bcmb_jax.data.ingest.record import Document, Record, Skipped, TokenDocument
from bcmb_jax.errors import InputError

__all__ = ["DATE_SHIFTS", "PLACEHOLDERS", "Cleaner", "Cleaning", "replace_placeholders", "unwrap"]

PLACEHOLDERS = ("keep", "surrogate")
UNWRAPPED = "wrapped lines joined"
REPLACED = "placeholders replaced by surrogates"
NOT_CLEANED = "came as tokens, not cleaned"


@dataclass(frozen=True)
class Cleaning:
    """Options of cleaning, all off by default.

    Attributes:
      min_characters: shortest text, without white space. Not tokens, so that the same documents
        stay, and of duplicates the same one, whatever the tokenizer.
      near_duplicates: the Jaccard similarity from which on a text is left out; exact duplicates
        always are.
      against: folders prepared with duplicates looked for, whose texts count as earlier ones.
      seed: chooses the surrogates where there is no secret.
      secret: keeps patients from being searched for in surrogates and fingerprints; empty: none.
      earlier_secret: opens the fingerprints of `against` that were made with it.
      date_shift: one of `DATE_SHIFTS`, what the dates of surrogates keep.

    Raises:
      InputError: a value makes no sense.
    """

    unwrap_lines: bool = False
    placeholders: str = "keep"
    min_characters: int = 0
    exact_duplicates: bool = False
    near_duplicates: float | None = None
    against: Sequence[str | Path] = ()
    seed: int = 0
    secret: bytes = field(default=b"", repr=False)
    earlier_secret: bytes = field(default=b"", repr=False)
    date_shift: str = "weekday"

    def __post_init__(self) -> None:
        near = self.near_duplicates
        if self.placeholders not in PLACEHOLDERS:
            choices = " or ".join(PLACEHOLDERS)
            raise InputError(f"--placeholders {self.placeholders}: choose {choices}")
        if self.date_shift not in DATE_SHIFTS:
            choices = " or ".join(DATE_SHIFTS)
            raise InputError(f"--date-shift {self.date_shift}: choose {choices}")
        if self.min_characters < 0:
            raise InputError(f"--min-characters {self.min_characters}: at least 0 is needed")
        if near is not None and not 0.5 <= near <= 1:
            # Below, texts have little in common, and most of an earlier corpus is looked at.
            raise InputError(f"--near-duplicates {near}: a similarity of 0.5 to 1 is needed")
        if self.against and not self.looks_for_duplicates:
            raise InputError("--not-in needs --exact-duplicates or --near-duplicates")

    @property
    def looks_for_duplicates(self) -> bool:
        """Whether exact or near duplicates are left out."""
        return self.exact_duplicates or self.near_duplicates is not None

    def options(self) -> dict[str, Any]:
        """Return the options for the report, without secrets; folders by their names alone."""
        options = asdict(self)
        folders = options.pop("against")
        for key in ("seed", "secret", "earlier_secret"):
            del options[key]
        if self.placeholders == "keep":
            del options["date_shift"]
        return {**options, "not_in": [Path(folder).resolve().name for folder in folders]}


class Cleaner:
    """Cleans records; remembers the texts met so far, and in `counts` how many were changed how.

    Raises:
      InputError: a folder to compare with holds no fingerprints, or damaged ones.
    """

    def __init__(self, cleaning: Cleaning):
        self.counts: Counter[str] = Counter()
        self._options = cleaning
        self._duplicates = (
            Duplicates(
                cleaning.near_duplicates,
                [Path(folder) for folder in cleaning.against],
                cleaning.secret,
                cleaning.earlier_secret,
            )
            if cleaning.looks_for_duplicates
            else None
        )

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records in order, documents cleaned or skipped.

        Duplicates are looked for in the texts as they came, so other cleaning does not hide them.
        """
        for record in records:
            if isinstance(record, Document):
                record = self._clean(record)
            elif isinstance(record, TokenDocument):
                self.counts[NOT_CLEANED] += 1
            yield record

    def save(self, folder: Path) -> None:
        """Write what the option `against` of later sources needs, if duplicates were looked for."""
        if self._duplicates:
            self._duplicates.save(folder)

    def _clean(self, document: Document) -> Record:
        options = self._options
        text, file, line = document.text, document.file, document.line
        if options.min_characters and sum(map(len, text.split())) < options.min_characters:
            return Skipped(file, line, f"shorter than {options.min_characters:,} characters")
        if self._duplicates and (reason := self._duplicates.find(text)):
            return Skipped(file, line, reason)
        # Before lines are joined: surrogates are about as long as the original words were.
        if options.placeholders == "surrogate":
            # As in the split, a document without a group is a patient of its own.
            group = document.group if document.group is not None else f"{file}:{line}"
            replaced = replace_placeholders(
                text, options.seed, group, secret=options.secret, date_shift=options.date_shift
            )
            self.counts[REPLACED] += replaced != text
            text = replaced
        if options.unwrap_lines:
            unwrapped = unwrap(text)
            self.counts[UNWRAPPED] += unwrapped != text
            text = unwrapped
        return document if text is document.text else replace(document, text=text)
