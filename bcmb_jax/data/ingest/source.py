# SPDX-License-Identifier: Apache-2.0
"""What is known of a dataset; the table of them is in `sources`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.data.ingest.files import Reader, Repeats, list_files
from bcmb_jax.data.ingest.groups import ALONE, Group
from bcmb_jax.data.progress import Progress


class Paper(NamedTuple):
    """A row of the paper's Table 1; tokens in millions."""

    country: str
    clinical_source: str
    clinical_context: str
    samples: int
    tokens: float


class Source(NamedTuple):
    """One dataset: its name in the paper, its files, how they are read, and what may be done."""

    title: str
    paper: Paper | None  # where Table 1 has no row of its own
    files: tuple[str, ...]  # how their paths end; each may be gzipped
    reader: Reader
    licence: str  # or the data use agreement
    url: str
    about: str
    text_column: str | None = None
    group: Group = ALONE
    unique: Callable[[], Repeats] | None = None  # leaves out what counts already
    kind: str = "clinical"
    reader_of: Callable[[Sequence[Path], Progress], Reader] | None = None  # that saw all files
    find: Callable[[Sequence[str | Path], Sequence[str]], list[Path]] = list_files

    @property
    def has_columns(self) -> bool:
        """Whether another text or group column may be named."""
        return self.text_column is not None
