# SPDX-License-Identifier: Apache-2.0
"""Token shards: what goes in comes out, in a seeded order, and damage is noticed."""

import json
import logging
import os
import pickle
import re
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import models

from bcmb_jax.data import shard_writer
from bcmb_jax.data.shard_writer import ShardWriter
from bcmb_jax.data.shards import open_shards
from bcmb_jax.data.tokenize import SpecialTokens, Tokenizer
from bcmb_jax.errors import InputError, StorageError
from tests.fixtures.shards import change_index

NO_PROCESS = 2**22 + 1  # Linux has no greater number than 2**22
SEED = 7


def make_tokenizer(vocab_size: int) -> Tokenizer:
    vocabulary = {f"word{i}": i for i in range(vocab_size)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="word4"))
    return Tokenizer(backend, SpecialTokens(cls=0, sep=1, pad=2, mask=3, unk=4))


SMALL = make_tokenizer(1000)
LENGTHS = np.random.default_rng(0).integers(1, 40, size=200)
DOCUMENTS = [np.random.default_rng(n).integers(5, 1000, n) for n in LENGTHS]


def write(directory: Path, documents: Any = DOCUMENTS, tokenizer: Any = SMALL, **more: Any) -> dict:
    with ShardWriter(directory, tokenizer) as writer:
        for document in documents:
            writer.add(document)
        return writer.finish(
            **{"source": "notes", "split": "train", "seed": SEED, "options": {"a": 1}, **more}
        )


@pytest.fixture
def train(tmp_path: Path) -> Path:
    write(tmp_path / "D/train")
    return tmp_path / "D/train"


def test_shuffling_does_not_keep_the_spool_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_writer, "_GATHER_TOKENS", 1 << 20)
    document = np.full(10_000, 7)
    mapped: list[int] = []

    def look(*_: float) -> None:
        status = Path("/proc/self/status").read_text()
        mapped.append(int(re.findall(r"RssFile:\s+(\d+) kB", status)[0]))

    write(tmp_path / "train", (document for _ in range(3000)), progress=look)
    assert len(mapped) > 20
    assert max(mapped) - mapped[0] < 10_000  # kB; the spool has 60,000


def test_documents_come_back_in_the_seeded_order(train: Path) -> None:
    shards = open_shards(train)
    order = np.random.Generator(np.random.PCG64(SEED)).permutation(len(DOCUMENTS))
    assert len(shards) == len(DOCUMENTS)
    assert shards.lengths.dtype == np.int32
    for row, document in enumerate(order):
        tokens = shards.read(row, 0, int(shards.lengths[row]))
        assert tokens.dtype == np.uint16
        np.testing.assert_array_equal(tokens, DOCUMENTS[document])
    longest = int(shards.lengths.argmax())
    np.testing.assert_array_equal(shards.read(longest, 3, 9), DOCUMENTS[order[longest]][3:9])
    assert shards.read(longest, 4, 4).size == 0


def test_the_order_depends_on_the_seed_and_not_on_the_chunks(
    train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (train / "tokens.bin").read_bytes()
    monkeypatch.setattr(shard_writer, "_GATHER_TOKENS", 50)
    write(tmp_path / "chunks")
    write(tmp_path / "seed", seed=SEED + 1)
    assert (tmp_path / "chunks/tokens.bin").read_bytes() == whole
    assert (tmp_path / "seed/tokens.bin").read_bytes() != whole


def test_the_index_says_what_is_there(tmp_path: Path) -> None:
    index = write(tmp_path / "train", skipped={"empty": 3}, license="CC0")
    assert json.loads((tmp_path / "train/index.json").read_text()) == index
    tokens = int(LENGTHS.sum())
    assert (index["documents"], index["tokens"]) == (200, tokens)
    assert index["tokens_with_special"] == tokens + 400
    assert (index["source"], index["split"], index["license"]) == ("notes", "train", "CC0")
    assert index["options"] == {"a": 1, "seed": SEED}
    assert index["skipped"] == {"empty": 3}
    assert index["tokenizer"]["special"] == {"cls": 0, "sep": 1, "pad": 2, "mask": 3, "unk": 4}
    shards = open_shards(tmp_path / "train")
    assert (shards.name, shards.vocab_size) == ("notes", 1000)
    assert shards.tokenizer_fingerprint == SMALL.fingerprint


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(1 << 16, np.dtype("<u2")), ((1 << 16) + 1, np.dtype("<u4"))]
)
def test_tokens_take_the_bytes_that_the_vocabulary_needs(
    tmp_path: Path, vocab_size: int, dtype: np.dtype
) -> None:
    document = np.array([vocab_size - 1, 5])
    write(tmp_path / "train", [document], make_tokenizer(vocab_size))
    assert (tmp_path / "train/tokens.bin").read_bytes() == document.astype(dtype).tobytes()
    assert open_shards(tmp_path / "train").read(0, 0, 2).tolist() == document.tolist()


def test_fingerprint_follows_content_and_tokenizer_not_the_place(
    train: Path, tmp_path: Path
) -> None:
    write(tmp_path / "same")
    write(tmp_path / "tokenizer", tokenizer=make_tokenizer(1001))
    write(tmp_path / "content", DOCUMENTS[:-1])
    names = ("D/train", "same", "tokenizer", "content")
    first, same, *others = (open_shards(tmp_path / name).fingerprint for name in names)
    assert first == same
    assert len({first, *others}) == 3


def test_threads_and_processes_may_share_it(train: Path) -> None:
    shards = open_shards(train)
    expected = [shards.read(i, 0, int(n)).tolist() for i, n in enumerate(shards.lengths)]
    copied = pickle.loads(pickle.dumps(shards))
    assert len(pickle.dumps(shards)) < 1000
    with ThreadPoolExecutor(8) as pool:
        rows = list(range(len(shards))) * 5
        for row, tokens in zip(
            rows, pool.map(lambda i: copied.read(i, 0, int(copied.lengths[i])), rows), strict=True
        ):
            assert tokens.tolist() == expected[row]


@pytest.mark.parametrize("where", [(200, 0, 1), (-1, 0, 1), (0, 0, 41), (0, -1, 1), (0, 2, 1)])
def test_reading_beyond_a_document_is_an_error(train: Path, where: tuple[int, int, int]) -> None:
    with pytest.raises(IndexError):
        open_shards(train).read(*where)


def _cut(train: Path) -> None:
    (train / "tokens.bin").write_bytes((train / "tokens.bin").read_bytes()[:-2])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


FAULTS: dict[str, tuple[Any, str]] = {
    "version": (lambda d: change_index(d, version=3), "format version 3, this program reads 2"),
    "no json": (lambda d: (d / "index.json").write_text("{"), "not a token shard index"),
    "other json": (lambda d: (d / "index.json").write_text("[]"), "not a token shard index"),
    "no tokens": (lambda d: (d / "tokens.bin").unlink(), "has no tokens.bin"),
    "no lengths": (lambda d: (d / "lengths.npy").unlink(), "has no lengths.npy"),
    "cut": (_cut, f"has {2 * LENGTHS.sum() - 2:,} bytes, expected {2 * LENGTHS.sum():,}"),
    "lengths": (lambda d: _flip(d / "lengths.npy"), "lengths.npy is damaged"),
    "count": (lambda d: change_index(d, documents=201), "has 200 documents but .* says 201"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_is_named_on_opening(train: Path, fault: str) -> None:
    damage, message = FAULTS[fault]
    damage(train)
    with pytest.raises(InputError, match=f"{message}.*run bcmb prepare again") as caught:
        open_shards(train)
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_while_it_is_read_is_an_error_of_storage(train: Path) -> None:
    shards = open_shards(train)
    whole = (train / "tokens.bin").stat().st_size
    os.truncate(train / "tokens.bin", whole // 2)
    assert len(shards.read(0, 0, 1)) == 1
    told = f"tokens.bin has {whole // 2:,} bytes, expected {whole:,}: it was cut short while"
    with pytest.raises(StorageError, match=told) as caught:
        for document, length in enumerate(shards.lengths):
            shards.read(document, 0, int(length))
    assert caught.value.exit_status == 74


def test_a_flipped_bit_is_found_by_verify(train: Path) -> None:
    open_shards(train).verify()
    _flip(train / "tokens.bin")
    shards = open_shards(train)
    with pytest.raises(InputError, match=r"tokens.bin is damaged"):
        shards.verify()


def test_flipped_bits_of_the_index_are_refused_in_a_line_or_change_nothing(train: Path) -> None:
    file = train / "index.json"
    content = file.read_bytes()
    index = json.loads(content)
    for bit in np.random.default_rng(0).integers(0, 8 * len(content), 300):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        told = ""
        try:
            assert open_shards(train).index == index  # a blank has become another
        except InputError as error:
            told = str(error)
        assert "\n" not in told


def _cut_at(file: Path, place: int) -> None:
    file.write_bytes(file.read_bytes()[:place])


def _flip_at(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_twenty_faults_in_files_are_all_detected(train: Path, tmp_path: Path) -> None:
    """Cuts and flips at random places of each file, and its absence: no content passes."""
    random = np.random.default_rng(0)
    names = ("index.json", "lengths.npy", "tokens.bin")
    faults = [(name, lambda file, place: file.unlink()) for name in names]
    faults += [(name, fault) for name in names for fault in (_cut_at, _flip_at) for _ in range(3)]
    for number, (name, fault) in enumerate(faults[:20]):
        damaged = tmp_path / str(number)
        shutil.copytree(train, damaged)
        content = (damaged / name).read_bytes().rstrip()
        fault(damaged / name, int(random.integers(len(content))))
        with pytest.raises(InputError) as told:
            open_shards(damaged).verify()
        assert "\n" not in str(told.value)


def test_shards_of_version_1_are_read_with_a_line_that_says_so(train: Path, caplog: Any) -> None:
    index = json.loads((train / "index.json").read_text()) | {"version": 1}
    del index["sha256"]["index.json"]
    (train / "index.json").write_text(json.dumps(index))
    with caplog.at_level(logging.INFO):
        assert len(open_shards(train)) == 200
    assert [r.message for r in caplog.records] == [
        f"{train / 'index.json'} is of an early version, which has no checksum of its own"
    ]


def test_an_index_edited_by_hand_is_refused(train: Path) -> None:
    file = train / "index.json"
    file.write_text(file.read_text().replace('"source": "notes"', '"source": "other"'))
    with pytest.raises(InputError, match=r"index.json is damaged or was edited by hand: run bcmb"):
        open_shards(train)


def test_an_id_beyond_the_vocabulary_is_found_by_verify(train: Path) -> None:
    tokenizer = json.loads((train / "index.json").read_text())["tokenizer"]
    change_index(train, tokenizer=tokenizer | {"vocab_size": 7})
    with pytest.raises(InputError, match=r"has token .* of a vocabulary of 7"):
        open_shards(train).verify()


def test_a_wrong_folder_says_what_is_there(train: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds train: give " + re.escape(str(train))):
        open_shards(train.parent)
    with pytest.raises(InputError, match=r"no index.json \(but 1 other"):
        open_shards(tmp_path)
    with pytest.raises(InputError, match="do not exist"):
        open_shards(tmp_path / "nothing")


def test_the_writer_leaves_all_or_nothing(train: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        ShardWriter(train, SMALL)
    with pytest.raises(KeyError), ShardWriter(train.with_name("other"), SMALL) as writer:
        writer.add(DOCUMENTS[0])
        raise KeyError
    assert [path.name for path in train.parent.iterdir()] == ["train"]


def test_the_writer_clears_what_a_killed_one_left(train: Path, tmp_path: Path) -> None:
    left = tmp_path / f".again.{socket.gethostname()}-{NO_PROCESS}.x.partial"
    left.mkdir()
    (left / "junk").write_text("x")
    write(tmp_path / "again")
    names = sorted(path.name for path in (tmp_path / "again").iterdir())
    assert names == ["index.json", "lengths.npy", "tokens.bin"]
    assert not left.exists()


@pytest.mark.parametrize("ids", [[], [1000], [-1]])
def test_the_writer_refuses_what_is_no_document(tmp_path: Path, ids: list[int]) -> None:
    with (
        ShardWriter(tmp_path / "train", SMALL) as writer,
        pytest.raises(ValueError, match=r"at least one token|beyond the vocabulary"),
    ):
        writer.add(np.array(ids, dtype=np.int32))
