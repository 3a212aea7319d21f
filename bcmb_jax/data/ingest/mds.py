# SPDX-License-Identifier: Apache-2.0
"""MDS, the shards of MosaicML streaming: texts, or tokens that stay the tokens they are.

A sample is a document of its own. Upstream's converter cuts long documents into samples of 8,190
tokens between `[CLS]` and `[SEP]`, and nothing in MDS says which of them belong together: parts of
one document are packed, and split into train and validation, like documents of their own.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from bcmb_jax.data.ingest.columns import Columns, Row, Table
from bcmb_jax.data.ingest.files import Stream, list_files
from bcmb_jax.errors import InputError

log = logging.getLogger(__name__)

_CODECS = {"br": "brotli", "bz2": "bz2", "gz": "gzip", "zstd": "zstd"}  # streaming's: pyarrow's
_HASHES = hashlib.algorithms_guaranteed - {"shake_128", "shake_256"}  # these have no fixed length
_READABLE = re.compile(r"str|int|u?int(8|16|32|64)|ndarray(:u?int(8|16|32|64)(:\d+)?)?")
_DTYPES = {8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 32: "uint32", 33: "int32"}
_DTYPES |= {64: "uint64", 65: "int64"}  # by the first byte of an array whose column names no type


class StoredFile(NamedTuple):
    """A file as the index describes it: its size in bytes, and its hashes by algorithm."""

    path: Path
    size: int
    hashes: dict[str, str]

    def check_size(self, size: int, where: str) -> None:
        """Raise `InputError` about `where` unless that is the size."""
        if size != self.size:
            raise InputError(
                f"{where} has {size:,} bytes, the index says {self.size:,}: it was cut short or "
                "changed; fetch it again"
            )

    def check_hashes(self, data: bytes, where: str) -> None:
        """Raise `InputError` about `where` unless the hashes that Python knows are right."""
        for name in sorted(_HASHES & self.hashes.keys()):
            expected = self.hashes[name]
            actual = hashlib.new(name, data, usedforsecurity=False).hexdigest()
            if actual != expected:
                raise InputError(
                    f"{where} is damaged ({name} {actual[:12]}…, the index says "
                    f"{expected[:12]}…): fetch it again"
                )


class Shard(NamedTuple):
    """A shard as the index describes it.

    Attributes:
      name: its unpacked file, from the index's folder.
      files: the unpacked file, and the packed one if there is one.
      columns: encoding by name, and the size in bytes where it is fixed.
    """

    name: str
    files: Sequence[StoredFile]
    codec: str
    samples: int
    columns: dict[str, tuple[str, int | None]]

    def find(self) -> StoredFile:
        """Return the file, packed or (as streaming leaves it in a cache) not; check its size."""
        for file in self.files:
            if file.path.is_file():
                file.check_size(file.path.stat().st_size, str(file.path))
                return file
        raise InputError(
            f"{self.files[-1].path} is missing, but the index names it: fetch it again"
        )

    def damaged(self, reason: str) -> InputError:
        """Return the error that names the shard's file and the damage."""
        return InputError(f"{self.find().path} is damaged: {reason}; fetch it again")

    def load(self) -> bytes:
        """Return the content, unpacked; sizes and hashes are checked before and after."""
        file, plain = self.find(), self.files[0]
        where, data = str(file.path), file.path.read_bytes()
        file.check_hashes(data, where)
        if file is plain:
            return data
        if self.codec not in _CODECS:
            raise InputError(
                f"{where} is packed with {self.codec}, which is not read (but {', '.join(_CODECS)} "
                f"are): unpack it to {plain.path.name}"
            )
        import pyarrow

        try:
            packed = pyarrow.py_buffer(data)
            unpacked = pyarrow.input_stream(packed, compression=_CODECS[self.codec])
            data = bytes(unpacked.read(plain.size + 1))
        except OSError as error:
            raise InputError(f"{where} is not readable as {self.codec}: fetch it again") from error
        plain.check_size(len(data), f"{where}, unpacked,")
        plain.check_hashes(data, f"{where}, unpacked,")
        return data


def read_index(content: bytes, path: Path) -> list[Shard]:
    """Return the shards of an `index.json`.

    Raises:
      InputError: it is something else.
    """
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
    names, kinds, sizes = (entry[f"column_{what}"] for what in ("names", "encodings", "sizes"))
    stored = [entry["raw_data"], *([entry["zip_data"]] if entry["zip_data"] else [])]
    return Shard(
        name=str(PurePosixPath(entry["raw_data"]["basename"])),
        files=[_stored_file(file, folder) for file in stored],
        codec=str(entry["compression"]).split(":")[0],  # "zstd:3" is zstd of level 3
        samples=int(entry["samples"]),
        columns={
            str(name): (str(kind), None if size is None else int(size))
            for name, kind, size in zip(names, kinds, sizes, strict=True)
        },
    )


def _stored_file(entry: dict[str, Any], folder: Path) -> StoredFile:
    name = PurePosixPath(entry["basename"])
    if name.is_absolute() or ".." in name.parts:
        raise ValueError("a shard outside the folder")
    hashes = {str(algorithm): str(value) for algorithm, value in entry["hashes"].items()}
    return StoredFile(folder / name, int(entry["bytes"]), hashes)


def list_indexes(paths: Sequence[str | Path], patterns: Sequence[str]) -> list[Path]:
    """Return what `list_files` finds, less each index whose shards a merged one above names too."""
    files = list_files(paths, patterns)
    named: set[Path] = set()
    kept: set[Path] = set()
    for file in sorted(files, key=lambda file: len(file.resolve().parts)):
        here = {shard.files[0].path.resolve() for shard in read_index(file.read_bytes(), file)}
        if here & named and here - named:
            raise InputError(
                f"{file} names shards that another index names too, and others: merge them again"
            )
        if not here & named:
            kept.add(file)
        named |= here
    return [file for file in files if file in kept]


def read_mds(stream: Stream, file: str) -> Table:
    """Read the shards of an index: a row's file is the shard, its line the sample's number from 1.

    `stream` is the index, opened in the folder of its shards. The columns are those that all shards
    have. Without a text column, `input_ids` or the only array is taken before any text. Sizes are
    always compared with the index, hashes where Python knows them (it does not know xxhash).
    """
    path, content = Path(stream.name), stream.read()
    shards = read_index(content, path)
    for shard in shards:
        shard.find()  # before the first record, so that nothing missing is a late surprise
    if not shards:
        return Table(file, None, lambda _: iter(()))
    kinds = [{name: kind for name, (kind, _) in shard.columns.items()} for shard in shards]
    encodings = dict(pair for pair in kinds[0].items() if all(pair in x.items() for x in kinds))
    arrays = [name for name in encodings if encodings[name].startswith("ndarray")]
    text = "input_ids" if "input_ids" in arrays else arrays[0] if len(arrays) == 1 else None

    def read_rows(columns: Columns) -> Iterator[Row]:
        for name in columns.names:
            readable = _READABLE.fullmatch(encodings[name])
            if not readable or (name == columns.group and name in arrays):
                raise InputError(
                    f"{file} has {name!r} encoded as {encodings[name]}, which is not read: text "
                    "must be str, tokens an ndarray of integers with one dimension, a group str or "
                    "int"
                )
        for done, shard in enumerate(shards, start=1):
            name = (PurePosixPath(file).parent / shard.name).as_posix()
            for line, sample in enumerate(_split_samples(shard), start=1):
                try:
                    values = _decode_sample(sample, shard, columns.names)
                except (ValueError, LookupError) as error:
                    reason = f"sample {line:,} does not hold the index's columns"
                    raise shard.damaged(reason) from error
                yield Row(name, line, values)
            stream.seek(len(content) * done // len(shards))  # tells `Records.fraction` the progress
        hashed = [any(_HASHES & x.hashes.keys() for x in shard.files) for shard in shards]
        if not all(hashed):
            log.warning(
                "%s: %d of %d shards have no hash that can be checked: their sizes and columns are "
                "right, but a changed token would not be seen",
                *(file, hashed.count(False), len(shards)),
            )

    return Table(file, list(encodings), read_rows, text)


def _split_samples(shard: Shard) -> Iterator[bytes]:
    """Yield the samples of a shard, checking that they fill it.

    A shard is the number of samples, where each starts and the last ends, a copy of what the index
    says of the columns, and the samples.
    """
    data = shard.load()
    count, expected = int.from_bytes(data[:4], "little"), shard.samples
    if count != expected:
        raise shard.damaged(f"it has {count:,} samples, the index says {expected:,}")
    head = 4 * (count + 2)
    bounds = np.frombuffer(data[4:head], "<u4").tolist() if head <= len(data) else []
    if not bounds or bounds[-1] != len(data) or [head, *bounds] != sorted([head, *bounds]):
        raise shard.damaged(f"its {count:,} samples do not follow each other to its end")
    for start, stop in pairwise(bounds):
        yield data[start:stop]


def _decode_sample(sample: bytes, shard: Shard, wanted: Sequence[str]) -> dict[str, Any]:
    """Return the wanted columns of a sample: the sizes that are not fixed, then all values."""
    start = 4 * sum(size is None for _, size in shard.columns.values())
    sizes = np.frombuffer(sample[:start], "<u4").tolist()
    values = {}
    for name, (encoding, fixed) in shard.columns.items():
        stop = start + (sizes.pop(0) if fixed is None else fixed)
        if name in wanted:
            values[name] = _decode_value(encoding, sample[start:stop])
        start = stop
    if start != len(sample):
        raise ValueError("the sizes of its columns do not add up")
    return values


def _decode_value(encoding: str, data: bytes) -> str | int | np.ndarray:
    kind, *form = encoding.split(":")
    if kind == "str":
        return data.decode("utf-8", "surrogateescape")
    if kind != "ndarray":
        return int.from_bytes(data, "little", signed=kind.startswith("int"))
    if not form:
        form, data = [_DTYPES[data[0]]], data[1:]
    if len(form) == 2:
        length = int(form[1])
    else:  # a byte for the number of dimensions and the width of their lengths, which follow
        if data[0] >> 2 != 1:
            raise ValueError("not one dimension")
        width = 1 << (data[0] & 3)
        length = int(np.frombuffer(data, f"<u{width}", 1, 1)[0])
        data = data[1 + width :]
    ids: np.ndarray = np.frombuffer(data, np.dtype(form[0]).newbyteorder("<"))
    if len(ids) != length:
        raise ValueError("not as long as it says")
    return ids
