# SPDX-License-Identifier: Apache-2.0
"""json: one object a file, over as many lines as it likes; its keys are the columns."""

import json
from collections.abc import Iterator
from typing import Any

from bcmb_jax.data.ingest.files import open_text
from bcmb_jax.data.ingest.record import BROKEN_JSON, Columns, Record, Skipped


def read_json_object(
    stream: Any, file: str, text_column: str | None, group_column: str | None
) -> Iterator[Record]:
    """Yields the one record."""
    assert text_column, "a source of such files names its text"
    with open_text(stream, newline="\n") as lines:
        try:
            value = json.load(lines)
        except (ValueError, RecursionError):  # not JSON, or UTF-16 that is none
            value = None
    if isinstance(value, dict):
        # A file without the text is one record less, not a mistake in the columns' names.
        yield Columns(tuple(text_column.split(",")), group_column).record(value, file, 1)
    else:
        yield Skipped(file, 1, BROKEN_JSON)
