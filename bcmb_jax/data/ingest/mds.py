# SPDX-License-Identifier: Apache-2.0
"""MDS, the shards of MosaicML streaming: texts, or tokens that stay the tokens they are.

A sample is a document of its own. Upstream's converter cuts long documents into samples of 8,190
tokens between `[CLS]` and `[SEP]`, and nothing in MDS says which of them belong together: parts of
one document are packed, and split into train and validation, like documents of their own.
"""

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from bcmb_jax.data.ingest.columns import Columns, Row, Table
from bcmb_jax.data.ingest.files import BOUNDS, LONGEST, Stream, list_files
from bcmb_jax.data.ingest.record import TOO_LONG, Skipped
from bcmb_jax.errors import InputError, record_error
from bcmb_jax.files import MOST_JSON, parse_json

log = logging.getLogger(__name__)

_CODECS = {"br": "brotli", "bz2": "bz2", "gz": "gzip", "zstd": "zstd"}  # streaming's: pyarrow's
_HASHES = hashlib.algorithms_guaranteed - {"shake_128", "shake_256"}  # these have no fixed length
_BLOCK = 2**20  # bytes
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

    def check(self, stream: BinaryIO, where: str) -> None:
        """Raise `InputError` about `where` unless a stream has the size and the known hashes."""
        names = sorted(_HASHES & self.hashes.keys())
        hashes = [hashlib.new(name, usedforsecurity=False) for name in names]
        size = 0
        while size <= self.size and (block := stream.read(_BLOCK)):
            size += len(block)
            for each in hashes:
                each.update(block)
        self.check_size(size, where)
        for name, each in zip(names, hashes, strict=True):
            if (actual := each.hexdigest()) != self.hashes[name]:
                raise InputError(
                    f"{where} is damaged (its {name} {actual[:12]}… is not the index's): fetch it "
                    "again"
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

    def open(self) -> BinaryIO:
        """Open the content, unpacked, when sizes and hashes of all of it were found right."""
        file, plain = self.find(), self.files[0]
        where = str(file.path)
        if plain.size > max(LONGEST, BOUNDS.expansion * file.size):
            raise InputError(
                f"{where} unpacks to {plain.size:,} bytes, more than {BOUNDS.expansion} times its "
                f"{file.size:,}: if it is not a mistake, unpack it to {plain.path.name}"
            )
        with file.path.open("rb") as stream:
            file.check(stream, where)
        if file is plain:
            return file.path.open("rb")
        if self.codec not in _CODECS:
            raise InputError(
                f"{where} is packed in a way that is not read (but {', '.join(_CODECS)} are): "
                f"unpack it to {plain.path.name}"
            )
        try:
            with self._unpack(file.path) as stream:
                plain.check(stream, f"{where}, unpacked,")
            return self._unpack(file.path)
        except OSError as error:
            raise InputError(f"{where} is not readable as {self.codec}: fetch it again") from error

    def _unpack(self, path: Path) -> BinaryIO:
        import pyarrow

        return cast(BinaryIO, pyarrow.input_stream(str(path), compression=_CODECS[self.codec]))


def read_index(content: bytes, path: Path) -> list[Shard]:
    """Return the shards of an `index.json`.

    Raises:
      InputError: it is something else.
    """
    try:
        index = parse_json(content)
        if index["version"] != 2 or any(shard["format"] != "mds" for shard in index["shards"]):
            raise ValueError("not MDS version 2")
        return [_shard(shard, path.parent) for shard in index["shards"]]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(
            f"{path} is not an MDS index (version 2, format mds): give the folder that streaming's "
            "MDSWriter wrote"
        ) from error


def _content(index: Path | Stream) -> bytes:
    """Return what an index holds, or just too much for `read_index`."""
    with open(index, "rb") if isinstance(index, Path) else contextlib.nullcontext(index) as stream:
        return stream.read(MOST_JSON + 1)


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
        here = {shard.files[0].path.resolve() for shard in read_index(_content(file), file)}
        if here & named and here - named:
            raise InputError(
                f"{file} names shards that another index names too, and others: merge them again"
            )
        if not here & named:
            kept.add(file)
        named |= here
    return [file for file in files if file in kept]


def shards_of(indexes: Sequence[Path]) -> list[Path]:
    """Return the files of all shards that the indexes name."""
    return [shard.find().path for index in indexes for shard in read_index(_content(index), index)]


def read_mds(stream: Stream, file: str, longest: int = LONGEST) -> Table:
    """Read the shards of an index: a row's file is the shard, its line the sample's number from 1.

    `stream` is the index, opened in the folder of its shards. The columns are those that all shards
    have. Without a text column, `input_ids` or the only array is taken before any text. Sizes are
    always compared with the index, hashes where Python knows them (it does not know xxhash).
    """
    path, content = Path(stream.name), _content(stream)
    shards = read_index(content, path)
    for shard in shards:
        shard.find()  # before the first record, so that nothing missing is a late surprise
    if not shards:
        return Table(file, None, lambda _: iter(()))
    kinds = [{name: kind for name, (kind, _) in shard.columns.items()} for shard in shards]
    encodings = dict(pair for pair in kinds[0].items() if all(pair in x.items() for x in kinds))
    arrays = [name for name in encodings if encodings[name].startswith("ndarray")]
    text = "input_ids" if "input_ids" in arrays else arrays[0] if len(arrays) == 1 else None

    def read_rows(columns: Columns) -> Iterator[Row | Skipped]:
        for name in columns.names:
            readable = _READABLE.fullmatch(encodings[name])
            if not readable or (name == columns.group and name in arrays):
                raise InputError(
                    f"{file} has its column {1 + list(encodings).index(name)} in an encoding that "
                    "is not read: text must be str, tokens an ndarray of integers with one "
                    "dimension, a group str or int"
                )
        for done, shard in enumerate(shards, start=1):
            name = (PurePosixPath(file).parent / shard.name).as_posix()
            for line, sample in enumerate(_split_samples(shard, longest), start=1):
                if sample is None:
                    yield Skipped(name, line, TOO_LONG)
                    continue
                try:
                    values = _decode_sample(sample, shard, columns.names)
                except (ValueError, LookupError) as error:
                    what = "the sample does not hold the index's columns: fetch the shard again"
                    raise record_error(shard.find().path, line, what) from error
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


def _split_samples(shard: Shard, longest: int) -> Iterator[bytes | None]:
    """Yield the samples of a shard, None for those that are too long; they must fill it.

    A shard is the number of samples, where each starts and the last ends, a copy of what the index
    says of the columns, and the samples.
    """
    with shard.open() as stream:
        count, expected = int.from_bytes(stream.read(4), "little"), shard.samples
        if count != expected:
            raise shard.damaged(f"it has {count:,} samples, the index says {expected:,}")
        head, size = 4 * (count + 2), shard.files[0].size
        bounds = np.frombuffer(stream.read(head - 4) if head <= size else b"", "<u4")
        in_order = len(bounds) and bounds[0] >= head and (bounds[1:] >= bounds[:-1]).all()
        if not in_order or bounds[-1] != size:
            raise shard.damaged(f"its {count:,} samples do not follow each other to its end")
        stream.read(int(bounds[0]) - head)
        for start, stop in pairwise(bounds.data):
            if stop - start <= longest:
                yield stream.read(stop - start)
                continue
            for left in range(stop - start, 0, -_BLOCK):
                stream.read(min(left, _BLOCK))
            yield None


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
