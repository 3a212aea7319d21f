# SPDX-License-Identifier: Apache-2.0
"""Token shards: whole tokenized documents on disk, one folder per source and split.

`tokens.bin`: ids, raw little-endian uint16 (uint32 for vocabularies above 65,536), no special
tokens, documents one after another in a seeded shuffled order. `lengths.npy`: int32, tokens per
document in the file's order. `index.json`: what it is, how it was made, checksums.
"""

import errno
import hashlib
import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from bcmb_jax.data.secret import purpose_key
from bcmb_jax.data.tokenize import Tokenizer
from bcmb_jax.errors import InputError, StorageError
from bcmb_jax.files import new_directory, package_version, read_json, sha256, write_json
from bcmb_jax.private import make_directory

FORMAT_VERSION = 1

_ABOUT = (
    "bcmb_jax token shards: whole documents without special tokens, in shuffled order; "
    "tokens_with_special = tokens + 2 * documents counts one [CLS] ... [SEP] segment per document "
    "(documents that the plan splits add 2 more per cut); skipped counts the whole source"
)
_GATHER_TOKENS = 1 << 25
"""Tokens held in memory while shuffling: 64 MiB of uint16."""


class Shards:
    """Opened token shards: random access to documents; safe to share between threads."""

    def __init__(self, directory: Path, index: dict[str, Any], lengths: np.ndarray):
        self.directory = directory
        self.index = index
        self.lengths = lengths
        self.name: str = index["source"]
        self.vocab_size: int = index["tokenizer"]["vocab_size"]
        self.tokenizer_fingerprint: str = index["tokenizer"]["fingerprint"]
        content = [index["sha256"]["tokens.bin"], index["sha256"]["lengths.npy"]]
        identity = "\n".join([*content, self.tokenizer_fingerprint])
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()
        self._dtype = _file_dtype(index["dtype"])
        # A view that gives plain integers: NumPy's take longer to get and to add.
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).data
        # Not a memory map: of a file that is cut short while it is read, that ends the process.
        self._file = os.open(directory / "tokens.bin", os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self.lengths)

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens the file itself.
        return open_shards, (self.directory,)

    def read(self, document: int, start: int, stop: int) -> np.ndarray:
        """Return tokens `start:stop` of a document, `[stop - start]` in the file's unsigned type.

        Raises:
          StorageError: the file ends before them.
        """
        if not 0 <= document < len(self.lengths):
            raise IndexError(f"document {document} of {len(self.lengths)} in {self.directory}")
        first, length = self._starts[document], int(self.lengths[document])
        if not 0 <= start <= stop <= length:
            raise IndexError(f"tokens {start}:{stop} of document {document} with {length} tokens")
        size = self._dtype.itemsize
        content = os.pread(self._file, size * (stop - start), size * (first + start))
        if len(content) < size * (stop - start):
            raise StorageError(
                f"{self.directory / 'tokens.bin'} has {os.fstat(self._file).st_size:,} bytes, "
                f"expected {size * self._starts[-1]:,}: it was cut short while it was read; put "
                "the whole file back, then run the same command again"
            )
        return np.frombuffer(content, self._dtype)

    def verify(self) -> None:
        """Read all of `tokens.bin`, and compare its checksum and largest id with the index.

        Raises:
          InputError: they differ.
        """
        file, largest = self.directory / "tokens.bin", 0
        _check_sha256(file, self.index)
        with file.open("rb") as stream:
            while len(tokens := np.fromfile(stream, self._dtype, _GATHER_TOKENS)):
                largest = max(largest, int(tokens.max()))
        if largest >= self.vocab_size:
            raise InputError(
                f"{self.directory} has token {largest:,} of a vocabulary of {self.vocab_size:,}: "
                "run bcmb prepare again"
            )

    def state_of_file(self) -> list[int | str]:
        """Return what changes when `tokens.bin` does: size, time, inode; and its checksum."""
        now = (self.directory / "tokens.bin").stat()
        return [now.st_size, now.st_mtime_ns, now.st_ino, self.index["sha256"]["tokens.bin"]]


def open_shards(directory: str | Path) -> Shards:
    """Open a split's folder after checking sizes, counts and the checksum of the lengths.

    `Shards.verify` checks the tokens.

    Raises:
      InputError: the folder is missing, damaged or of another format.
    """
    directory = Path(directory)
    index = _read_index(directory)
    try:
        return Shards(directory, index, _read_lengths(directory, index))
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # it holds other things
        raise InputError(
            f"{directory / 'index.json'} is damaged ({type(error).__name__}): "
            "run bcmb prepare again"
        ) from error


def _read_lengths(directory: Path, index: dict[str, Any]) -> np.ndarray:
    tokens_file, lengths_file = directory / "tokens.bin", directory / "lengths.npy"
    for file in (tokens_file, lengths_file):
        if not file.is_file():
            raise InputError(f"{directory} has no {file.name}: run bcmb prepare again")
    _check_sha256(lengths_file, index)
    lengths = np.array(np.load(lengths_file, mmap_mode="r"))  # else a header's claim is allocated
    if lengths.dtype != np.dtype("<i4") or lengths.ndim != 1:
        raise TypeError(f"lengths of type {lengths.dtype}")
    if len(lengths) != index["documents"]:
        raise InputError(
            f"{lengths_file} has {len(lengths):,} documents but index.json says "
            f"{index['documents']:,}: run bcmb prepare again"
        )
    itemsize = _file_dtype(index["dtype"]).itemsize
    expected, actual = int(lengths.sum(dtype=np.int64)) * itemsize, tokens_file.stat().st_size
    if actual != expected:
        raise InputError(
            f"{tokens_file} has {actual:,} bytes, expected {expected:,}: it was cut short or "
            "changed; run bcmb prepare again"
        )
    return lengths


def _read_index(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise InputError(f"token shards {directory} do not exist: write them with bcmb prepare")
    file = directory / "index.json"
    if not file.is_file():
        splits = sorted(path.parent.name for path in directory.glob("*/index.json"))
        if splits:
            raise InputError(
                f"{directory} is not a split but holds {', '.join(splits)}: "
                f"give {directory / splits[0]}"
            )
        count = len(list(directory.iterdir()))
        raise InputError(
            f"{directory} has no index.json (but {count:,} other files and folders): write token "
            "shards with bcmb prepare"
        )
    try:
        index: dict[str, Any] = read_json(file)
        version = index["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file} is not a token shard index: run bcmb prepare again") from error
    if version != FORMAT_VERSION:
        raise InputError(
            f"{file} has format version {version}, this program reads {FORMAT_VERSION}: "
            "run bcmb prepare again"
        )
    return index


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
        self._dtype = _file_dtype("uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32")
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
            write_json(folder / "index.json", index)
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


def _file_dtype(name: str) -> np.dtype:
    return np.dtype(name).newbyteorder("<")


def _check_sha256(file: Path, index: dict[str, Any]) -> None:
    actual, expected = sha256(file), index["sha256"][file.name]
    if actual != expected:
        raise InputError(
            f"{file} is damaged (sha256 {actual[:12]}…, index.json says {expected[:12]}…): "
            "run bcmb prepare again"
        )
