# SPDX-License-Identifier: Apache-2.0
"""The ADE corpus: a sentence a line, between bars (DRUG-AE.rel) or behind "NEG" (ADE-NEG.txt)."""

import re
from collections.abc import Iterator
from typing import Any

from bcmb_jax.data.ingest.files import open_text
from bcmb_jax.data.ingest.record import BROKEN_COLUMNS, EMPTY, Record, Skipped, make_record

# PubMed id, sentence, effect, begin, end, drug, begin, end. Quotes mean nothing.
_RELATION = re.compile(r"(\d+)\|([^|]*)(?:\|[^|]*){6}")
_NEGATIVE = re.compile(r"(\d+) NEG (.*)")


def read_ade(
    stream: Any, file: str, text_column: str | None, group_column: str | None
) -> Iterator[Record]:
    """Yields a record a line, grouped by the article's PubMed id."""
    relations = file.lower().removesuffix(".gz").endswith(".rel")
    layout = _RELATION if relations else _NEGATIVE
    with open_text(stream, newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if found := layout.fullmatch(line.rstrip("\r\n")):
                yield make_record(found[2], found[1], file, number)
            else:
                yield Skipped(file, number, BROKEN_COLUMNS if line.strip() else EMPTY)
