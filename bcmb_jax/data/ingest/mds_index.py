# SPDX-License-Identifier: Apache-2.0
"""The `index.json` of an MDS folder, and the shards that it names: there, whole, unpacked."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from bcmb_jax.data.ingest.files import list_files
from bcmb_jax.errors import InputError

_CODECS = {"br": "brotli", "bz2": "bz2", "gz": "gzip", "zstd": "zstd"}
_HASHES = hashlib.algorithms_guaranteed - {"shake_128", "shake_256"}  # these have no fixed length


class StoredFile(NamedTuple):
    """A file as the index describes it."""

    path: Path
    size: int
    hashes: dict[str, str]

    def check_size(self, size: int, where: str) -> None:
        """Raises `InputError` about `where` unless that is the size."""
        if size != self.size:
            raise InputError(
                f"{where} has {size:,} bytes, the index says {self.size:,}: it was cut short or "
                "changed; fetch it again"
            )

    def check_hashes(self, data: bytes, where: str) -> None:
        """Raises `InputError` about `where` unless the hashes that Python knows are right."""
        for name in sorted(_HASHES & self.hashes.keys()):
            expected, found = self.hashes[name], hashlib.new(name, data, usedforsecurity=False)
            if found.hexdigest() != expected:
                raise InputError(
                    f"{where} is damaged ({name} {found.hexdigest()[:12]}…, the index says "
                    f"{expected[:12]}…): fetch it again"
                )


class Shard(NamedTuple):
    """A shard as the index describes it."""

    name: str
    """Where it lies unpacked, from the index's folder."""
    plain: StoredFile
    packed: StoredFile | None
    codec: str
    samples: int
    columns: dict[str, tuple[str, int | None]]
    """Name: encoding, and the size in bytes where it is fixed."""

    def find(self) -> StoredFile:
        """The file, packed or (as streaming leaves it in a cache) not; its size is checked."""
        files = [file for file in (self.plain, self.packed) if file]
        for file in files:
            if file.path.is_file():
                file.check_size(file.path.stat().st_size, str(file.path))
                return file
        raise InputError(f"{files[-1].path} is missing, but the index names it: fetch it again")

    @property
    def hashed(self) -> bool:
        """Whether a changed byte would be seen, packed or not."""
        files = [file for file in (self.plain, self.packed) if file]
        return any(_HASHES & file.hashes.keys() for file in files)

    def damaged(self, what: str) -> InputError:
        """The error that says so."""
        return InputError(f"{self.find().path} is damaged: {what}; fetch it again")

    def load(self) -> bytes:
        """The content, unpacked; sizes and hashes are checked before and after."""
        file = self.find()
        where, data = str(file.path), file.path.read_bytes()
        file.check_hashes(data, where)
        if file is self.plain:
            return data
        if self.codec not in _CODECS:
            raise InputError(
                f"{where} is packed with {self.codec}, which is not read (but {', '.join(_CODECS)} "
                f"are): unpack it to {self.plain.path.name}"
            )
        import pyarrow

        try:
            unpacked = pyarrow.input_stream(
                pyarrow.py_buffer(data), compression=_CODECS[self.codec]
            )
            data = unpacked.read(self.plain.size + 1)
        except OSError as error:
            raise InputError(f"{where} is not readable as {self.codec}: fetch it again") from error
        self.plain.check_size(len(data), f"{where}, unpacked,")
        self.plain.check_hashes(data, f"{where}, unpacked,")
        return data


def list_indexes(paths: Sequence[str | Path], patterns: Sequence[str]) -> list[Path]:
    """What `list_files` finds, less each index whose shards a merged one above it names too."""
    files = list_files(paths, patterns)
    named: set[Path] = set()
    kept: set[Path] = set()
    for file in sorted(files, key=lambda file: len(file.resolve().parts)):
        here = {shard.plain.path.resolve() for shard in read_index(file.read_bytes(), file)}
        if here & named and here - named:
            raise InputError(
                f"{file} names shards that another index names too, and others: merge them again"
            )
        if not here & named:
            kept.add(file)
        named |= here
    return [file for file in files if file in kept]


def read_index(content: bytes, path: Path) -> list[Shard]:
    """The shards of the index that lies at `path`; `InputError` if it is something else."""
    try:
        index = json.loads(content)
        if index["version"] != 2 or any(shard["format"] != "mds" for shard in index["shards"]):
            raise ValueError("not MDS version 2")
        return [_shard(shard, path.parent) for shard in index["shards"]]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is not an MDS index (version 2, format mds): give the folder that streaming's "
            "MDSWriter wrote"
        ) from error


def _shard(entry: dict[str, Any], folder: Path) -> Shard:
    columns = zip(
        entry["column_names"], entry["column_encodings"], entry["column_sizes"], strict=True
    )
    return Shard(
        name=str(PurePosixPath(entry["raw_data"]["basename"])),
        plain=_file(entry["raw_data"], folder),
        packed=_file(entry["zip_data"], folder) if entry["zip_data"] else None,
        codec=str(entry["compression"]).split(":")[0],  # "zstd:3" is zstd of level 3
        samples=int(entry["samples"]),
        columns={
            str(name): (str(encoding), None if size is None else int(size))
            for name, encoding, size in columns
        },
    )


def _file(entry: dict[str, Any], folder: Path) -> StoredFile:
    name = PurePosixPath(entry["basename"])
    if name.is_absolute() or ".." in name.parts:
        raise ValueError("a shard outside the folder")
    hashes = {str(algorithm): str(value) for algorithm, value in entry["hashes"].items()}
    return StoredFile(folder / name, int(entry["bytes"]), hashes)
