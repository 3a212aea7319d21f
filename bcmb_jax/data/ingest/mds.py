# SPDX-License-Identifier: Apache-2.0
"""MDS, the shards of MosaicML streaming: texts, or tokens that stay the tokens they are.

A sample is a document of its own. Upstream's converter cuts long documents into samples of 8,190
tokens between `[CLS]` and `[SEP]`, and nothing in MDS says which of them belong together: parts of
one document are packed, and split into train and validation, like documents of their own.
"""

import logging
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from bcmb_jax.data.ingest.mds_index import Shard, read_index
from bcmb_jax.data.ingest.record import Columns, Record, choose_columns
from bcmb_jax.errors import InputError

log = logging.getLogger(__name__)

_READABLE = re.compile(r"str|int|u?int(8|16|32|64)|ndarray(:u?int(8|16|32|64)(:\d+)?)?")
_DTYPES = {8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 32: "uint32", 33: "int32"}
_DTYPES |= {64: "uint64", 65: "int64"}  # the first byte of an array whose column names no type


def read_mds(
    stream: Any, file: str, text_column: str | None, group_column: str | None
) -> Iterator[Record]:
    """Yields a record a sample: its file is the shard, its line the sample's number from 1.

    `stream` is the index, opened in the folder of its shards. Without a text column, `input_ids` or
    the only array is taken before any text. Sizes are always compared with the index, hashes where
    Python knows them (it does not know xxhash).
    """
    path, content = Path(stream.name), stream.read()
    shards = read_index(content, path)
    chosen = []
    for shard in shards:  # all before the first record, so that nothing missing is a late surprise
        shard.find()
        chosen.append(_choose_columns(shard, text_column, group_column, file))
    for done, (shard, columns) in enumerate(zip(shards, chosen, strict=True), start=1):
        name = (PurePosixPath(file).parent / shard.name).as_posix()
        wanted = {*columns.text, columns.group}
        for line, sample in enumerate(_samples(shard), start=1):
            try:
                values = _values(sample, shard, wanted)
            except (ValueError, LookupError) as error:
                raise shard.damaged(f"sample {line:,} does not hold the index's columns") from error
            yield columns.record(values, name, line)
        stream.seek(len(content) * done // len(shards))  # tells `Records.fraction` how far it is
    if unhashed := sum(not shard.hashed for shard in shards):
        log.warning(
            "%s: %d of %d shards have no hash that can be checked: their sizes and columns are "
            "right, but a changed token would not be seen",
            *(file, unhashed, len(shards)),
        )


def _choose_columns(
    shard: Shard, text_column: str | None, group_column: str | None, file: str
) -> Columns:
    encodings = {name: encoding for name, (encoding, _) in shard.columns.items()}
    arrays = [name for name in encodings if encodings[name].startswith("ndarray")]
    if text_column is None and ("input_ids" in arrays or len(arrays) == 1):
        text_column = "input_ids" if "input_ids" in arrays else arrays[0]
    columns = choose_columns(list(encodings), text_column, group_column, file)
    for name in (*columns.text, *([columns.group] if columns.group else [])):
        if not _READABLE.fullmatch(encodings[name]) or (name == columns.group and name in arrays):
            raise InputError(
                f"{file} has {name!r} encoded as {encodings[name]}, which is not read: text must "
                "be str, tokens an ndarray of integers with one dimension, a group str or int"
            )
    return columns


def _samples(shard: Shard) -> Iterator[bytes]:
    """A shard is the number of samples, where each starts and the last ends, a copy of what the
    index says of the columns, and the samples."""
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


def _values(sample: bytes, shard: Shard, wanted: set[str | None]) -> dict[str, Any]:
    """The wanted columns: the sizes of all that have no fixed one come first, then the values."""
    start = 4 * sum(size is None for _, size in shard.columns.values())
    sizes = np.frombuffer(sample[:start], "<u4").tolist()
    values = {}
    for name, (encoding, fixed) in shard.columns.items():
        stop = start + (sizes.pop(0) if fixed is None else fixed)
        if name in wanted:
            values[name] = _value(encoding, sample[start:stop])
        start = stop
    if start != len(sample):
        raise ValueError("the sizes of its columns do not add up")
    return values


def _value(encoding: str, data: bytes) -> Any:
    kind, *form = encoding.split(":")
    if kind == "str":
        return data.decode("utf-8", "surrogateescape")
    if kind != "ndarray":
        return int.from_bytes(data, "little", signed=kind.startswith("int"))
    at = 0
    if not form:
        form, at = [_DTYPES[data[0]]], 1
    dtype = np.dtype(form[0]).newbyteorder("<")
    if len(form) == 2:
        length = int(form[1])
    else:  # a byte for the number of dimensions and the width of their lengths, which follow
        if data[at] >> 2 != 1:
            raise ValueError("not a row")
        width = 1 << (data[at] & 3)
        length = int(np.frombuffer(data, f"<u{width}", 1, at + 1)[0])
        at += 1 + width
    ids = np.frombuffer(data[at:], dtype)
    if len(ids) != length:
        raise ValueError("not as long as it says")
    return ids
