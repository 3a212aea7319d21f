# SPDX-License-Identifier: Apache-2.0
"""A first look at tables that shows no value: columns, numbers of rows, lengths, empty shares."""

from array import array
from collections import Counter
from collections.abc import Iterator

import numpy as np

from bcmb_jax.data.ingest.columns import MISSING, Columns, Table
from bcmb_jax.data.ingest.files import Records
from bcmb_jax.data.ingest.header import shown_names
from bcmb_jax.data.ingest.record import Skipped
from bcmb_jax.errors import InputError


def peek(records: Records) -> Iterator[str]:
    """Yield lines about every file: how it is written, its rows, and a line for each column.

    Columns have their names only where the first row looks like names, else their places.

    Raises:
      InputError: no file is a table.
    """
    seen = False
    for table in records.tables():
        seen = True
        yield from _describe(table)
    if not seen:
        raise InputError("--peek shows tables, and the files of this source are none")


def _describe(table: Table) -> Iterator[str]:
    names = list(dict.fromkeys(table.names or ()))
    lengths = {name: array("Q") for name in names}
    rows, left_out = 0, Counter[str]()
    for row in table.rows(Columns(tuple(names), None)):
        if isinstance(row, Skipped):
            left_out[row.reason] += 1
            continue
        rows += 1
        for name in names:
            if length := _length(row.values.get(name)):
                lengths[name].append(length)
    written = f" ({table.written})" if table.written else ""
    yield f"{table.file}{written}: {rows:,} rows"
    for reason, count in sorted(left_out.items()):
        yield f"  left out, {reason}: {count:,}"
    shown = dict(zip(table.names or (), shown_names(table.names or (), table.below), strict=True))
    widest = max(map(len, shown.values()), default=0)
    if names and rows:
        yield f"  {'':{widest}}  empty   shortest     median    longest (characters)"
    for name in names if rows else ():
        empty = 1 - len(lengths[name]) / rows
        counts = np.frombuffer(lengths[name], np.uint64)
        values = (counts.min(), np.median(counts), counts.max()) if counts.size else (0, 0, 0)
        numbers = "".join(f"{value:11,.0f}" for value in values)
        yield f"  {shown[name]:{widest}} {empty:6.1%}{numbers}"


def _length(value: object) -> int:
    """Return the characters of a value (elements of a list or an array), 0 where it is missing."""
    if value is None or value != value:
        return 0
    if isinstance(value, str) and value.strip().lower() in MISSING:
        return 0
    return len(value) if hasattr(value, "__len__") else len(str(value))
