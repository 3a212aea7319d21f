# SPDX-License-Identifier: Apache-2.0
"""Whose a document is: by a column, by its path, or by another table of the same distribution."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.data.ingest.by_name import read_by_name
from bcmb_jax.data.ingest.files import Records, Regroup, find_files, matches
from bcmb_jax.data.ingest.record import Document
from bcmb_jax.errors import InputError


class GroupTable(NamedTuple):
    """A table that leads from a key, which a text has, to its group."""

    files: tuple[str, ...]
    key: str
    group: str


class Group(NamedTuple):
    """What a source's group is, and where it stands; with a table, where the key to it stands."""

    what: str
    column: str | None = None
    path: str | None = None  # a regular expression whose first group is it
    table: GroupTable | None = None

    def __str__(self) -> str:
        if self.table:
            return f"{self.what} ({self.table.group} in {' or '.join(self.table.files)})"
        where = "in the path" if self.path else self.column
        return f"{self.what} ({where})" if where else self.what

    def regroup(self, paths: Sequence[str | Path]) -> Regroup | None:
        """How to find the groups of documents below `paths`, if their column is not enough."""
        if not self.path and not self.table:
            return None
        pattern = re.compile(self.path) if self.path else None
        groups = self._read_table(paths)

        def regroup(file: Path, group: str | None) -> str | None:
            if pattern:
                found = pattern.search(file.as_posix())
                group = found[1] if found else None
            return group if groups is None else groups.get(group)

        return regroup

    def holds(self, path: Path) -> bool:
        """Whether a file is the table rather than one with texts."""
        table = self.table
        return table is not None and path.is_file() and matches(path, table.files)

    def _read_table(self, paths: Sequence[str | Path]) -> dict[str | None, str | None] | None:
        if self.table is None:
            return None
        tables: list[Path] = []
        for path in map(Path, paths):
            tables += [path] if self.holds(path) else find_files(path, self.table.files)
        if not tables:
            raise InputError(
                f"the input holds no {' or '.join(self.table.files)}, which says the {self.what} "
                "of a text: give the folder that holds both"
            )
        rows = Records(tables, read_by_name, self.table.key, self.table.group)
        return {row.text: row.group for row in rows if isinstance(row, Document)}


ALONE = Group("each document is its own")
