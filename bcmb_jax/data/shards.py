# SPDX-License-Identifier: Apache-2.0
"""Token shards: whole tokenized documents on disk, one folder per source and split.

`tokens.bin`: ids, raw little-endian uint16 (uint32 for vocabularies above 65,536), no special
tokens, documents one after another in a seeded shuffled order. `lengths.npy`: int32, tokens per
document in the file's order. `index.json`: what it is, how it was made, checksums.
"""

import hashlib
import logging
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from bcmb_jax.errors import InputError, StorageError
from bcmb_jax.files import digest_json, read_json, sha256, write_json

log = logging.getLogger(__name__)

FORMAT_VERSION = 2
"""Version 1 had no checksum of the index."""

_VERIFIED_TOKENS = 1 << 25
"""Tokens held in memory while they are verified: 64 MiB of uint16."""


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
        self._dtype = file_dtype(index["dtype"])
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
            while len(tokens := np.fromfile(stream, self._dtype, _VERIFIED_TOKENS)):
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
    itemsize = file_dtype(index["dtype"]).itemsize
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
    if version == 1:
        log.info("%s is of an early version, which has no checksum of its own", file)
    elif version != FORMAT_VERSION:
        raise InputError(
            f"{file} has format version {version}, this program reads {FORMAT_VERSION}: "
            "run bcmb prepare again"
        )
    elif not isinstance(sums := index.get("sha256"), dict) or sums.get(file.name) != seal(index):
        raise InputError(f"{file} is damaged or was edited by hand: run bcmb prepare again")
    return index


def write_index(directory: Path, index: dict[str, Any]) -> None:
    """Write `index.json` into a split's folder, with the index's own checksum put into `index`."""
    index["sha256"]["index.json"] = seal(index)
    write_json(directory / "index.json", index)


def seal(index: dict[str, Any]) -> str:
    """Return the checksum of an index without the place where that checksum stands."""
    sums = {name: value for name, value in index["sha256"].items() if name != "index.json"}
    return digest_json({**index, "sha256": sums})


def file_dtype(name: str) -> np.dtype:
    """Return the little-endian type of a token file whose index names `uint16` or `uint32`."""
    return np.dtype(name).newbyteorder("<")


def _check_sha256(file: Path, index: dict[str, Any]) -> None:
    actual, expected = sha256(file), index["sha256"][file.name]
    if actual != expected:
        raise InputError(
            f"{file} is damaged (sha256 {actual[:12]}…, index.json says {expected[:12]}…): "
            "run bcmb prepare again"
        )
