# SPDX-License-Identifier: Apache-2.0
"""MDS: the same tokens and texts as were written, or an error that names the shard."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import tokenizers
from tokenizers import models

from bcmb_jax.data.ingest.record import Document, Skipped, TokenDocument
from bcmb_jax.data.prepare import NO_TOKENS, NOT_WRAPPED, SPECIAL_INSIDE, prepare
from bcmb_jax.data.shards import open_shards
from bcmb_jax.data.tokenize import SpecialTokens, Tokenizer, load_tokenizer
from bcmb_jax.errors import InputError
from tests.fixtures.mds_files import (
    array,
    content,
    merge_index,
    open_mds,
    read,
    write_mds,
    write_tokens,
)


def make_tokenizer() -> Tokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(95))]
    backend = tokenizers.Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "[UNK]"))
    return Tokenizer(backend, SpecialTokens(cls=2, sep=3, pad=0, mask=4, unk=1))


@pytest.mark.parametrize("compression", [None, "zstd", "zstd:7", "gz", "br", "bz2"])
def test_tokens_are_read_as_they_were_written(tmp_path: Path, compression: str | None) -> None:
    long = [2, *(i % 90 + 5 for i in range(8190)), 3]
    hashes = ("sha1", "xxh64")
    folder = write_tokens(
        tmp_path, [[2, 7, 3], long], [[2, 8, 9, 3]], compression=compression, hashes=hashes
    )
    assert read(folder) == [
        ([2, 7, 3], "shard.00000.mds", 1),
        (long, "shard.00000.mds", 2),
        ([2, 8, 9, 3], "shard.00001.mds", 1),
    ]


@pytest.mark.parametrize(
    ("encoding", "value", "ids"),
    [
        ("ndarray:uint32", array([70_000, 1], "uint32"), [70_000, 1]),
        ("ndarray:int64", array([5, -1], "int64"), [5, -1]),
        ("ndarray", array([5, 6], "uint16", column_has_type=False), [5, 6]),
        ("ndarray", array([70_000] * 300, "uint32", column_has_type=False), [70_000] * 300),
        ("ndarray:uint16:3", b"\5\0\6\0\7\1", [5, 6, 263]),
        ("ndarray:uint16", array([], "uint16"), "empty"),
    ],
)
def test_every_kind_of_array_is_read(
    tmp_path: Path, encoding: str, value: bytes, ids: list[int] | str
) -> None:
    folder = write_mds(tmp_path, {"tokens": encoding}, [[[value]]])
    assert read(folder) == [(ids, "shard.00000.mds", 1)]


def test_texts_are_documents_and_what_is_none_is_counted(tmp_path: Path) -> None:
    samples = [["naïve\n".encode()], [b""], [b" \n"], [b"caf\xe9"], [b"b"]]
    folder = write_mds(tmp_path, {"text": "str"}, [samples])
    assert list(open_mds(folder)) == [
        Document("naïve\n", None, "shard.00000.mds", 1),
        Skipped("shard.00000.mds", 2, "empty"),
        Skipped("shard.00000.mds", 3, "empty"),
        Skipped("shard.00000.mds", 4, "broken: not valid Unicode"),
        Document("b", None, "shard.00000.mds", 5),
    ]


def test_columns_are_chosen_and_fixed_sizes_are_known(tmp_path: Path) -> None:
    columns = {"age": "uint8", "body": "str", "input_ids": "ndarray:uint16", "mrn": "int"}
    columns |= {"type_ids": "ndarray:uint16", "extra": "pkl"}
    mrn = (2**40).to_bytes(8, "little")
    sample = [
        b"\x07",
        b"x",
        array([2, 3], "uint16"),
        mrn,
        array([0, 0], "uint16"),
        b"cos\nsystem\n",
    ]
    folder = write_mds(tmp_path, columns, [[sample]])
    assert content(*open_mds(folder)) == [2, 3]
    assert content(*open_mds(folder, text="type_ids")) == [0, 0]
    [document] = open_mds(folder, text="body", group="mrn")
    assert document == Document("x", str(2**40), "shard.00000.mds", 1)
    [tokens] = open_mds(folder, group="age")
    assert isinstance(tokens, TokenDocument)
    assert tokens.group == "7"
    for wrong, message in [
        ({"text": "note"}, "columns age, body, .*, not 'note': correct --text-column"),
        ({"text": "extra"}, "index.json has its column 6 in an encoding that is not read"),
        ({"group": "type_ids"}, "has its column 5 in an encoding .* a group str or int"),
    ]:
        with pytest.raises(InputError, match=message):
            open_mds(folder, **wrong)


def test_subfolders_and_merged_indexes_count_once(tmp_path: Path) -> None:
    for number, part in enumerate(("0", "1", "eval/2")):
        write_tokens(tmp_path / part, [[2, 10 + number, 3]])
    apart = read(tmp_path)
    assert [(ids[1], file) for ids, file, _ in apart] == [
        (10, "0/shard.00000.mds"),
        (11, "1/shard.00000.mds"),
        (12, "eval/2/shard.00000.mds"),
    ]
    merge_index(tmp_path, "0", "1")
    assert sorted(read(tmp_path), key=lambda record: record[1]) == apart
    assert [ids[1] for ids, *_ in read(tmp_path / "1", tmp_path / "0")] == [11, 10]
    merge_index(tmp_path, "0")
    shutil.copy(tmp_path / "1/shard.00000.mds", tmp_path / "0/shard.00001.mds")
    later = json.loads((tmp_path / "0/index.json").read_text())
    later["shards"].append(json.loads(json.dumps(later["shards"][0]).replace(".00000", ".00001")))
    (tmp_path / "0/index.json").write_text(json.dumps(later))
    with pytest.raises(InputError, match=r"0/index.json names shards that another index names too"):
        read(tmp_path)


def test_shards_with_other_columns_share_those_that_all_have(tmp_path: Path) -> None:
    write_mds(tmp_path / "0", {"id": "int", "text": "str"}, [[[b"\1" + b"\0" * 7, b"a"]]])
    write_mds(tmp_path / "1", {"text": "str", "id": "str"}, [[[b"b", b"2"]]])
    merge_index(tmp_path, "0", "1")
    assert [text for text, *_ in read(tmp_path)] == ["a", "b"]
    with pytest.raises(InputError, match=r"index.json has the columns text, not 'id'"):
        open_mds(tmp_path, group="id")
    (tmp_path / "none").mkdir()
    merge_index(tmp_path / "none")
    assert read(tmp_path / "none") == []


def test_a_cache_may_hold_the_shard_unpacked(tmp_path: Path) -> None:
    packed = write_tokens(tmp_path / "packed", [[2, 9, 3]], compression="zstd", hashes=("sha1",))
    before = read(packed)
    # The copy of the columns in the shard names the compression, so unpack rather than write anew.
    with pyarrow.input_stream(packed / "shard.00000.mds.zstd", compression="zstd") as stream:
        (packed / "shard.00000.mds").write_bytes(stream.read())
    (packed / "shard.00000.mds.zstd").unlink()
    assert read(packed) == before


def test_fraction_says_how_far_reading_is(tmp_path: Path) -> None:
    for part in "ab":
        write_tokens(tmp_path / part, *([[2, 9, 3]] for _ in range(4)))
    records = open_mds(tmp_path)
    fractions = [records.fraction for _ in records]
    assert fractions[1:4] == pytest.approx([1 / 8, 2 / 8, 3 / 8], abs=0.01)
    assert fractions[5:] == pytest.approx([5 / 8, 6 / 8, 7 / 8], abs=0.01)
    assert records.fraction == 1


def test_prepare_takes_the_special_tokens_off(tmp_path: Path) -> None:
    documents = [[i + 5] * (i % 7 + 1) for i in range(90)]
    wrapped = [[2, *ids, 3] for ids in documents]
    folder = write_tokens(tmp_path / "in", wrapped[:50], wrapped[50:])
    options: dict[str, Any] = {"source": "old", "validation_fraction": 0.2}
    report = prepare(open_mds(folder), make_tokenizer(), tmp_path / "out", **options)
    assert report["documents"] == 90
    assert report["skipped"] == {}
    assert report["tokens"] == sum(map(len, documents))
    found = []
    for split in ("train", "validation"):
        shards = open_shards(tmp_path / "out" / split)
        found += [shards.read(i, 0, int(n)).tolist() for i, n in enumerate(shards.lengths)]
    assert sorted(found) == sorted(documents)


def test_prepare_leaves_out_what_is_no_document(tmp_path: Path) -> None:
    samples = [
        [2, 9, 3],
        [2, 3],
        [9, 9, 3],
        [2, 9, 9],
        [2, 9, 3, 0],
        [2],
        [2, 9, 3, 2, 9, 3],
        [2, 4, 9, 3],
        [2, 1, 9, 3],
    ]
    records = [Document("w1", None, "b.txt", 1)]  # text and tokens in one batch
    records += open_mds(write_tokens(tmp_path / "in", samples))
    records += [TokenDocument(np.array([], np.uint16), None, "c", 1)]
    options: dict[str, Any] = {"source": "x", "validation_fraction": 0}
    report = prepare(records, make_tokenizer(), tmp_path / "out", **options)
    names = json.loads((tmp_path / "out/input_files.json").read_text())["left_out"]
    assert names == {"1": "shard.00000.mds", "2": "c"}
    assert report["skipped_lines"] == {
        NOT_WRAPPED: {"1": [3, 4, 5, 6], "2": [1]},
        SPECIAL_INSIDE: {"1": [7, 8]},
        NO_TOKENS: {"1": [2]},
    }
    shards = open_shards(tmp_path / "out/train")
    found = [shards.read(i, 0, int(n)).tolist() for i, n in enumerate(shards.lengths)]
    assert sorted(found) == [[1, 9], [6], [9]]


@pytest.mark.parametrize(("bad", "dtype"), [(100, "uint16"), (2**32 + 9, "int64"), (-1, "int64")])
def test_prepare_refuses_tokens_of_another_tokenizer(tmp_path: Path, bad: int, dtype: str) -> None:
    samples = [[array(ids, dtype)] for ids in ([2, 9, 3], [2, 99, bad, 3])]
    folder = write_mds(tmp_path / "in", {"input_ids": f"ndarray:{dtype}"}, [samples])
    message = "shard.00000.mds, line 2: the sample has a token id beyond the tokenizer's 100: "
    with pytest.raises(InputError, match=message):
        prepare(open_mds(folder), make_tokenizer(), tmp_path / "out", source="x")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["tokens_uint16", "tokens_uint16_zstd"])
def test_real_tokens(shared: Path, tmp_path: Path, name: str) -> None:
    fixture = shared / "data/mds_fixture"
    expected = json.loads((fixture / "expected.json").read_text())
    records = list(open_mds(fixture / name))
    chunks = [content(record) for record in records]
    assert len(chunks) == expected["tokens_samples"]
    assert (chunks[0], chunks[-1]) == (expected["first"], expected["last"])
    assert sum(map(len, chunks)) == expected["n_tokens"]
    assert sum(map(sum, chunks)) == expected["sum_ids"]
    plain = open_mds(fixture / "tokens_uint16")
    assert [content(record) for record in plain] == chunks

    tokenizer = load_tokenizer(str(shared / "data/tokenizers/modernbert"))
    report = prepare(records, tokenizer, tmp_path / "out", source=name, validation_fraction=0.1)
    assert report["skipped"] == {}
    assert report["tokens_with_special"] == expected["n_tokens"]
    found = []
    for split in ("train", "validation"):
        shards = open_shards(tmp_path / "out" / split)
        shards.verify()
        found += [shards.read(i, 0, int(n)).tolist() for i, n in enumerate(shards.lengths)]
    assert sorted(found) == sorted(chunk[1:-1] for chunk in chunks)


def test_real_texts(shared: Path) -> None:
    fixture = shared / "data/mds_fixture"
    expected = json.loads((fixture / "expected.json").read_text())
    texts = [content(record) for record in open_mds(fixture / "text_str")]
    assert len(texts) == expected["n_docs"]
    assert (texts[0], texts[-1]) == (expected["first_text"], expected["last_text"])


def test_the_real_folder_as_a_whole(shared: Path) -> None:
    records = open_mds(shared / "data/mds_fixture")
    assert len(list(records)) == 165 + 165 + 125
    assert records.fraction == 1
