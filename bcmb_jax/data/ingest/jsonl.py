# SPDX-License-Identifier: Apache-2.0
"""jsonl: one JSON object a line, whose keys are the columns."""

import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from bcmb_jax.data.ingest.files import Reshape, open_text
from bcmb_jax.data.ingest.record import BROKEN_JSON, EMPTY, Record, Skipped, choose_columns
from bcmb_jax.errors import InputError

_HEAD = 100  # lines whose keys tell the columns, as objects often leave out keys without a value


def read_jsonl(
    stream: Any,
    file: str,
    text_column: str | None,
    group_column: str | None,
    *,
    reshape: Reshape = lambda values: values,
) -> Iterator[Record]:
    """Yields a record a line."""
    with open_text(stream, newline="\n") as lines:
        parsed = ((n, _parse(line, file, n)) for n, line in enumerate(lines, start=1))
        head = list(islice(parsed, _HEAD))
        objects = [value for _, value in head if isinstance(value, dict)]
        if not objects:
            if len(head) == _HEAD:
                raise InputError(f"none of the first {_HEAD} lines of {file} is a JSON object")
            yield from (value for _, value in head if isinstance(value, Skipped))
            return
        names = list(dict.fromkeys(chain.from_iterable(objects)))
        columns = choose_columns(names, text_column, group_column, file)
        for n, value in chain(head, parsed):
            if isinstance(value, Skipped):
                yield value
            else:
                yield columns.record(reshape(value), file, n)


def _parse(line: str, file: str, number: int) -> dict[str, Any] | Skipped:
    if not line.strip():
        return Skipped(file, number, EMPTY)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else Skipped(file, number, BROKEN_JSON)
