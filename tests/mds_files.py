# SPDX-License-Identifier: Apache-2.0
"""MDS folders as MosaicML's streaming writes them, and damage to them."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

from bcmb_jax.data.ingest.files import Records
from bcmb_jax.data.ingest.mds import read_mds
from bcmb_jax.data.ingest.mds_index import list_indexes
from bcmb_jax.data.ingest.record import Document, Record, TokenDocument

CODECS = {"br": "brotli", "bz2": "bz2", "gz": "gzip", "zstd": "zstd"}
CODES = {"uint16": 16, "uint32": 32, "int64": 65, "float32": 34}  # streaming's, of a type
SIZES = {"int": 8, "uint8": 1, "ndarray:uint16:3": 6}


def array(values: list[int], dtype: str, column_has_type: bool = True) -> bytes:
    """A row as streaming stores it, where the column does not fix its length."""
    width, code = (1, 0) if len(values) < 256 else (2, 1)
    typed = b"" if column_has_type else bytes([CODES[dtype]])
    shape = bytes([1 << 2 | code]) + len(values).to_bytes(width, "little")
    return typed + shape + np.array(values, np.dtype(dtype).newbyteorder("<")).tobytes()


def write_mds(
    folder: Path,
    columns: dict[str, str],
    shards: list[list[list[bytes]]],
    compression: str | None = None,
    hashes: tuple[str, ...] = (),
) -> Path:
    """An MDS folder: per shard its samples, per sample its columns' values."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [SIZES.get(encoding) for encoding in columns.values()]
    config = {
        "column_encodings": list(columns.values()),
        "column_names": list(columns),
        "column_sizes": sizes,
        "compression": compression,
        "format": "mds",
        "hashes": list(hashes),
        "size_limit": 1 << 26,
        "version": 2,
    }
    entries = []
    for number, samples in enumerate(shards):
        stored = [
            b"".join(
                struct.pack("<I", len(value))
                for value, size in zip(sample, sizes, strict=True)
                if size is None
            )
            + b"".join(sample)
            for sample in samples
        ]
        about = json.dumps(config, sort_keys=True).encode()
        ends = np.cumsum([8 + 4 * len(stored) + len(about), *map(len, stored)])
        data = struct.pack("<I", len(stored)) + ends.astype("<u4").tobytes() + about
        data += b"".join(stored)
        entry: dict[str, Any] = {**config, "samples": len(samples), "zip_data": None}
        name = f"shard.{number:05}.mds"
        entry["raw_data"] = describe(name, data, hashes)
        if compression:
            suffix = compression.split(":")[0]
            sink = pyarrow.BufferOutputStream()
            with pyarrow.CompressedOutputStream(sink, CODECS[suffix]) as packed:
                packed.write(data)
            name, data = f"{name}.{suffix}", sink.getvalue().to_pybytes()
            entry["zip_data"] = describe(name, data, hashes)
        (folder / name).write_bytes(data)
        entries.append(entry)
    (folder / "index.json").write_text(json.dumps({"shards": entries, "version": 2}))
    return folder


def describe(name: str, data: bytes, hashes: tuple[str, ...]) -> dict[str, Any]:
    known = hashlib.algorithms_guaranteed  # xxhash is not, so nobody sees that it is wrong
    digests = {h: hashlib.new(h, data).hexdigest() if h in known else "0" * 16 for h in hashes}
    return {"basename": name, "bytes": len(data), "hashes": digests}


def write_tokens(folder: Path, *shards: list[list[int]], **more: Any) -> Path:
    samples = [[[array(ids, "uint16")] for ids in shard] for shard in shards]
    return write_mds(folder, {"input_ids": "ndarray:uint16"}, samples, **more)


def merge_index(folder: Path, *parts: str) -> None:
    """What streaming's function of that name does."""
    shards = []
    for part in parts:
        for entry in json.loads((folder / part / "index.json").read_text())["shards"]:
            for key in ("raw_data", "zip_data"):
                if entry[key]:
                    entry[key]["basename"] = f"{part}/{entry[key]['basename']}"
            shards.append(entry)
    (folder / "index.json").write_text(json.dumps({"shards": shards, "version": 2}))


def change_index(folder: Path, **changes: Any) -> None:
    """Changes the first shard's entry; `raw_data__bytes` is in `raw_data`."""
    index = json.loads((folder / "index.json").read_text())
    for key, value in changes.items():
        entry = index["shards"][0]
        *above, last = key.split("__")
        for name in above:
            entry = entry[name]
        entry[last] = value
    (folder / "index.json").write_text(json.dumps(index))


def change_byte(file: Path, at: int, value: int | None = None) -> None:
    data = bytearray(file.read_bytes())
    data[at] = data[at] ^ 255 if value is None else value
    file.write_bytes(data)


def open_mds(*paths: Path, text: str | None = None, group: str | None = None) -> Records:
    records = Records(list_indexes(paths, ("index.json",)), read_mds, text, group)
    records.check()
    return records


def read(*paths: Path, **columns: str) -> list[Any]:
    """Every record as (ids or text or reason, shard, sample)."""
    return [(content(record), record.file, record.line) for record in open_mds(*paths, **columns)]


def content(record: Record) -> Any:
    if isinstance(record, TokenDocument):
        return record.ids.tolist()
    return record.text if isinstance(record, Document) else record.reason
