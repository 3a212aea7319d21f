# SPDX-License-Identifier: Apache-2.0
"""A file of results that is written over several starts of a command, each row once."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from bcmb_jax.errors import InputError
from bcmb_jax.files import read_json, write_json
from bcmb_jax.locks import locked
from bcmb_jax.private import make_directory, opener


class Journal:
    """Rows of results that a killed process leaves behind whole, and the next goes on with.

    What is added is in `partial` (`FILE.partial`), and how much of it counts in a file beside it.
    Both are on the disk when `commit` returns; what was added later is cut off by the next start.

    Attributes:
      partial: becomes the file when all is done; a folder where one is written.
      rows: of the input, that are committed.
    """

    def __init__(self, file: Path, facts: Mapping[str, str], *, folder: bool):
        self.partial = file.with_name(f"{file.name}.partial")
        self._state, self._facts = file.with_name(f"{file.name}.partial.json"), dict(facts)
        self.rows, size = self._committed(file)
        self._waiting = 0
        """Rows that were added and are not yet committed."""
        self._out: BinaryIO | None = None
        if not self.rows:
            self._remove()
        if folder:
            make_directory(self.partial)
        else:
            self._out = open(self.partial, "r+b" if self.rows else "xb", opener=opener)  # noqa: SIM115
            self._out.truncate(size)
            self._out.seek(size)

    def add(self, data: bytes, rows: int = 1) -> None:
        """Add the results of rows; none are added to a folder, which is written to directly."""
        if self._out:
            self._out.write(data)
        self._waiting += rows

    def commit(self) -> None:
        """Put what was added on the disk, and count it."""
        if not self._waiting:
            return
        size = 0
        if self._out:
            self._out.flush()
            os.fsync(self._out.fileno())
            size = self._out.tell()
        self.rows, self._waiting = self.rows + self._waiting, 0
        write_json(self._state, {**self._facts, "rows": self.rows, "bytes": size})

    def finish(self, file: Path, complete: Callable[[BinaryIO], None] | None) -> None:
        """Put everything in its place."""
        if self._out:
            if complete:
                complete(self._out)
            self._out.flush()
            os.fsync(self._out.fileno())
        self.close()
        os.replace(self.partial, file)
        self._state.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave what is committed for another start."""
        if self._out:
            self._out.close()

    def _committed(self, file: Path) -> tuple[int, int]:
        if not self._state.is_file() or not self.partial.exists():
            return 0, 0
        try:
            state = read_json(self._state)
            rows, size = int(state.pop("rows")), int(state.pop("bytes"))
            if size > self.partial.stat().st_size:
                raise ValueError("rows are missing")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{self._state} is damaged: remove it and {self.partial}") from None
        if other := sorted(key for key in self._facts if state.get(key) != self._facts[key]):
            raise InputError(
                f"{self.partial} holds {rows:,} rows that were begun with another "
                f"{' and another '.join(other)}: give another --output, or remove it"
            )
        return rows, size

    def _remove(self) -> None:
        self._state.unlink(missing_ok=True)
        if self.partial.is_dir() and not self.partial.is_symlink():
            shutil.rmtree(self.partial)
        self.partial.unlink(missing_ok=True)


@contextlib.contextmanager
def journal(
    file: Path,
    facts: Mapping[str, str],
    *,
    folder: bool = False,
    complete: Callable[[BinaryIO], None] | None = None,
) -> Iterator[Journal]:
    """Yield the journal of a new file, which is in its place when the block ends without an error.

    Args:
      facts: by name what the rows depend on; a start with others is refused.
      folder: a folder is written.
      complete: does what can be done only when all is there.

    Raises:
      InputError: the file exists, or was begun with other facts. HeldError: somebody writes it.
    """
    if file.exists():
        raise InputError(f"{file} exists: give another --output, or remove it")
    make_directory(file.parent)
    with locked(file.with_name(f".{file.name}.lock"), file):
        opened = Journal(file, facts, folder=folder)
        try:
            yield opened
            opened.finish(file, complete)
        finally:
            opened.close()
