# SPDX-License-Identifier: Apache-2.0
"""Plain text: one document a file."""

from collections.abc import Iterator
from typing import Any

from bcmb_jax.data.ingest.files import open_text
from bcmb_jax.data.ingest.record import BROKEN_UNICODE, Record, Skipped, make_record


def read_text(
    stream: Any, file: str, text_column: str | None, group_column: str | None
) -> Iterator[Record]:
    """Yields the one record; line ends become plain line feeds."""
    try:
        with open_text(stream, newline=None) as lines:
            text = lines.read()
    except UnicodeError:  # UTF-16 that is none
        yield Skipped(file, 1, BROKEN_UNICODE)
        return
    yield make_record(text, None, file, 1)
