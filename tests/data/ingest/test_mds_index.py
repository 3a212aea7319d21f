# SPDX-License-Identifier: Apache-2.0
"""MDS indexes and shards that are damaged, foreign or unreadable: an error that names them."""

import json
import shutil
import struct
from pathlib import Path

import pytest

from bcmb_jax.errors import InputError
from tests.fixtures.mds_files import (
    array,
    change_byte,
    change_index,
    open_mds,
    read,
    write_mds,
    write_tokens,
)

SECRET = "zebrafish"


def test_damage_is_found_and_named(tmp_path: Path) -> None:
    ids = [2, *range(5, 99), 3]
    for compression, suffix in [(None, ""), ("zstd", ".zstd"), ("gz", ".gz")]:
        name = f"shard.00001.mds{suffix}"

        def damaged(
            case: str, compression: str | None = compression, name: str = name
        ) -> tuple[Path, Path]:
            folder = tmp_path / case / name
            write_tokens(folder, [ids], [ids, ids], compression=compression, hashes=("sha256",))
            assert len(read(folder)) == 3
            return folder, folder / name

        folder, shard = damaged("a changed byte")
        change_byte(shard, shard.stat().st_size // 2)
        with pytest.raises(InputError, match=rf"{name} is damaged \(its sha256 \w{{12}}… is not"):
            read(folder)

        folder, shard = damaged("cut short")
        size = shard.stat().st_size
        shard.write_bytes(shard.read_bytes()[:-10])
        with pytest.raises(InputError, match=f"{name} has {size - 10:,} bytes, .* says {size:,}"):
            open_mds(folder)  # before any record is read

        folder, shard = damaged("missing")
        shard.unlink()
        with pytest.raises(InputError, match=f"{name} is missing, but the index names it"):
            open_mds(folder)

        folder, _ = damaged("wrong size")
        change_index(folder, raw_data__bytes=77)
        with pytest.raises(InputError, match=r"shard.00000.mds.* has \d+ bytes, the index says 77"):
            open_mds(folder)

        folder, _ = damaged("wrong hash")
        change_index(folder, raw_data__hashes={"md5": "0" * 32, "xxh64": "1"})
        with pytest.raises(InputError, match=r"mds.* is damaged \(its md5 \w{12}… is not"):
            open_mds(folder)


@pytest.mark.parametrize("compression", ["zstd", "gz", "br", "bz2"])
def test_damage_without_hashes_is_still_found(tmp_path: Path, compression: str) -> None:
    folder = write_tokens(tmp_path, [[2, *range(5, 99), 3]], compression=compression)
    shard = folder / f"shard.00000.mds.{compression}"
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    with pytest.raises(InputError, match=f"mds.{compression} is not readable as {compression}"):
        open_mds(folder)


@pytest.mark.parametrize(("hashes", "told"), [((), 1), (("xxh64",), 1), (("xxh64", "sha1"), 0)])
def test_shards_whose_bytes_cannot_be_checked_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, hashes: tuple[str, ...], told: int
) -> None:
    list(open_mds(write_tokens(tmp_path, [[2, 7, 3]], hashes=hashes)))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == told
    assert all("1 of 1 shards have no hash that can be checked" in text for text in said)


def test_a_plain_shard_without_hashes_must_add_up(tmp_path: Path) -> None:
    texts = [[SECRET.encode()], [SECRET.encode()]]

    def shard(case: str, **columns: str) -> tuple[Path, Path, int]:
        folder = write_mds(tmp_path / case, {"text": "str"}, [texts])
        file = folder / "shard.00000.mds"
        return folder, file, struct.unpack_from("<I", file.read_bytes(), 4)[0]

    for case, at, value, message in [
        ("count", 0, 3, "it has 3 samples, the index says 2"),
        ("first", 4, 0, "its 2 samples do not follow each other"),
        ("order", 8, 255, "its 2 samples do not follow each other"),
        ("end", 13, None, "its 2 samples do not follow each other"),
    ]:
        folder, file, _ = shard(case)
        change_byte(file, at, value)
        with pytest.raises(InputError, match=f"shard.00000.mds is damaged: {message}"):
            open_mds(folder)
    for value in (len(SECRET) - 1, len(SECRET) + 1):
        folder, file, first = shard(f"size {value}")
        change_byte(file, first, value)
        with pytest.raises(InputError, match=r"mds, line 1: the sample does not") as caught:
            open_mds(folder)
        assert SECRET not in str(caught.value)
    folder, file, _ = shard("tiny")
    file.write_bytes(b"\2\0\0\0\x10\0")
    change_index(folder, raw_data__bytes=6)
    with pytest.raises(InputError, match="do not follow each other"):
        open_mds(folder)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\4",
        b"\4\3\5\0\6\0",  # three, but there are two
        b"\x08\1\2\5\0\6\0",  # two dimensions
        b"\0\2\5\0\6\0",  # none
        b"\4\2\5\0\6",  # half a token
    ],
)
def test_an_array_must_be_as_long_as_it_says(tmp_path: Path, value: bytes) -> None:
    good = array([2, 3], "uint16")
    folder = write_mds(tmp_path, {"input_ids": "ndarray:uint16"}, [[[good], [value]]])
    with pytest.raises(InputError, match=r"mds, line 2: the sample does not hold the index's"):
        read(folder)


def test_floats_are_no_tokens(tmp_path: Path) -> None:
    value = array([1], "float32", column_has_type=False)
    folder = write_mds(tmp_path / "a", {"x": "ndarray"}, [[[value]]])
    with pytest.raises(InputError, match="line 1: the sample does not hold"):
        read(folder)
    folder = write_mds(tmp_path / "b", {"x": "ndarray:float32"}, [[[array([1], "float32")]]])
    with pytest.raises(InputError, match="column 1 in an encoding that is not read: text"):
        read(folder)


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b'{"version": 1, "source": "notes", "documents": 3}',
        b'{"version": 2, "shards": [{"format": "json"}]}',
        b'{"version": 2, "shards": [{"format": "mds"}]}',
        b'{"version": 2, "shards": 3}',
    ],
)
def test_a_foreign_index_is_refused(tmp_path: Path, index: bytes) -> None:
    (tmp_path / "index.json").write_bytes(index)
    with pytest.raises(InputError, match=r"index.json is not an MDS index .* give the folder that"):
        open_mds(tmp_path)


def test_another_version_or_format_is_refused(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path, [[2, 3]])
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "version": 3}))
    with pytest.raises(InputError, match="is not an MDS index"):
        open_mds(folder)
    (folder / "index.json").write_text(json.dumps(index))
    change_index(folder, format="jsonl")
    with pytest.raises(InputError, match="is not an MDS index"):
        open_mds(folder)


def test_an_index_reads_nothing_outside_its_folder(tmp_path: Path) -> None:
    for number, name in enumerate(("../other.mds", str(tmp_path / "other.mds"))):
        folder = write_tokens(tmp_path / f"{number}", [[2, 3]])
        shutil.copy(folder / "shard.00000.mds", tmp_path / "other.mds")
        change_index(folder, raw_data__basename=name)
        with pytest.raises(InputError, match="is not an MDS index"):
            open_mds(folder)


def test_what_is_not_unpacked_is_said(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path, [[2, 3]], compression="gz")
    change_index(folder, compression="snappy")
    with pytest.raises(InputError, match=r"mds.gz is packed in a way that is not read"):
        open_mds(folder)
