# SPDX-License-Identifier: Apache-2.0
"""Writing of token shards: documents in input order go in, a shuffled folder comes out."""

import errno
import hashlib
import os
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from bcmb_jax.data.secret import purpose_key
from bcmb_jax.data.shards import FORMAT_VERSION, file_dtype, write_index
from bcmb_jax.data.tokenize import Tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.files import new_directory, package_version, sha256
from bcmb_jax.private import make_directory

_ABOUT = (
    "bcmb_jax token shards: whole documents without special tokens, in shuffled order; "
    "tokens_with_special = tokens + 2 * documents counts one [CLS] ... [SEP] segment per document "
    "(documents that the plan splits add 2 more per cut); skipped counts the whole source"
)
_GATHER_TOKENS = 1 << 25
"""Tokens held in memory while shuffling: 64 MiB of uint16."""


class ShardWriter:
    """Writer of one split: `add` documents in input order, then `finish` shuffles them into place.

    Documents are spooled to an unnamed file in the output's parent, so that memory stays bounded
    and a killed run leaves nothing of them.
    """

    def __init__(self, directory: str | Path, tokenizer: Tokenizer):
        self.directory = Path(directory)
        if self.directory.exists():
            raise InputError(f"{self.directory} exists already: remove it or choose another folder")
        self.tokens = 0
        self.unknown_tokens = 0
        self._tokenizer = tokenizer
        self._taken: list[int] = []
        self._dtype = file_dtype("uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32")
        self._lengths = array("i")
        make_directory(self.directory.parent)
        self._spool = tempfile.TemporaryFile(dir=self.directory.parent)  # noqa: SIM115 - closed by `__exit__`

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._spool.close()

    def __len__(self) -> int:
        return len(self._lengths) - len(self._taken)

    def add(self, tokens: np.ndarray) -> None:
        """Append one document, `[N]` integer ids, N > 0, without special tokens."""
        if len(tokens) == 0:
            raise ValueError("a document needs at least one token")
        if tokens.min() < 0 or tokens.max() >= self._tokenizer.vocab_size:
            raise ValueError(f"token ids beyond the vocabulary of {self._tokenizer.vocab_size}")
        self._spool.write(tokens.astype(self._dtype).tobytes())
        self._lengths.append(len(tokens))
        self._count(tokens, 1)

    def _count(self, tokens: np.ndarray, sign: int) -> None:
        self.tokens += sign * len(tokens)
        self.unknown_tokens += sign * int((tokens == self._tokenizer.special.unk).sum())

    def documents(self) -> np.ndarray:
        """Return the numbers, in the order of adding, of the documents that are still here."""
        return np.setdiff1d(np.arange(len(self._lengths)), self._taken)

    def take(self, documents: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        """Yield documents, each only once, that this writer then has no more."""
        self._spool.flush()
        size = self._dtype.itemsize
        lengths = np.array(self._lengths)  # a copy: what is yielded may be added again, changed
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        for document in documents:
            at, count = int(starts[document]) * size, int(lengths[document]) * size
            tokens = np.frombuffer(os.pread(self._spool.fileno(), count, at), self._dtype)
            self._count(tokens, -1)
            self._taken.append(int(document))
            yield tokens

    def finish(
        self,
        *,
        source: str,
        split: str,
        seed: int,
        secret: bytes = b"",
        options: dict[str, Any],
        license: str = "",
        skipped: dict[str, int] | None = None,
        progress: Callable[[int, int, float], None] = lambda documents, tokens, fraction: None,
    ) -> dict[str, Any]:
        """Write the folder, documents in an order drawn from `seed`, and return its index.

        Args:
          secret: without it, whoever knows the seed could put the documents back in the input's
            order, which is often that of record numbers; empty: none.
        """
        if not len(self):
            raise ValueError(f"no documents for {self.directory}")
        lengths = np.frombuffer(self._lengths, dtype=np.int32)
        drawn_from = int.from_bytes(purpose_key(secret, f"order {seed}")) if secret else seed
        order = np.random.Generator(np.random.PCG64(drawn_from)).permutation(len(lengths))
        order = order[~np.isin(order, self._taken)]
        with new_directory(self.directory) as folder:
            np.save(folder / "lengths.npy", lengths[order].astype("<i4"))
            digest = hashlib.sha256()
            documents = tokens = 0
            with (folder / "tokens.bin").open("wb") as file:
                for count, chunk in self._gather(lengths, order):
                    file.write(chunk.data)
                    digest.update(chunk.data)
                    documents, tokens = documents + count, tokens + len(chunk)
                    progress(documents, tokens, tokens / self.tokens)
            directory = self._tokenizer.directory
            packages = ("bcmb_jax", "numpy", "tokenizers")
            index = {
                "about": _ABOUT,
                "version": FORMAT_VERSION,
                "source": source,
                "split": split,
                "documents": documents,
                "tokens": tokens,
                "tokens_with_special": tokens + 2 * documents,
                "unknown_tokens": self.unknown_tokens,
                "dtype": self._dtype.name,
                "tokenizer": {
                    "fingerprint": self._tokenizer.fingerprint,
                    "vocab_size": self._tokenizer.vocab_size,
                    "special": asdict(self._tokenizer.special),
                    "reviewed": self._tokenizer.reviewed,
                    "directory": None if directory is None else directory.name,
                },
                "license": license,
                "options": {**options, "seed": seed},
                "skipped": skipped or {},
                "sha256": {
                    "tokens.bin": digest.hexdigest(),
                    "lengths.npy": sha256(folder / "lengths.npy"),
                },
                "created_by": {p: package_version(p) or "not installed" for p in packages},
            }
            write_index(folder, index)
        return index

    def _gather(self, lengths: np.ndarray, order: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield chunks (documents, tokens) in the shuffled order, read in the spool's order."""
        self._spool.flush()
        spool, size = self._spool.fileno(), self._dtype.itemsize
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        ends = np.cumsum(lengths[order], dtype=np.int64)
        done = 0
        while done < len(order):
            base = int(ends[done - 1]) if done else 0
            stop = max(int(np.searchsorted(ends, base + _GATHER_TOKENS, side="right")), done + 1)
            chunk = np.empty(int(ends[stop - 1]) - base, dtype=self._dtype)
            documents = order[done:stop]
            places = ends[done:stop] - lengths[documents] - base
            by_start = np.argsort(starts[documents])
            fields = (places, starts[documents], lengths[documents])
            offsets = ((field[by_start].astype(np.int64) * size).tolist() for field in fields)
            # Pages of a memory map would stay, and the spool be in memory as a whole in the end.
            view = chunk.view(np.uint8).data
            for place, start, length in zip(*offsets, strict=True):
                if os.preadv(spool, [view[place : place + length]], start) != length:
                    raise OSError(errno.EIO, "the spool could not be read back")
            yield stop - done, chunk
            done = stop
