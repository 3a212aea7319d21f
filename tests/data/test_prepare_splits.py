# SPDX-License-Identifier: Apache-2.0
"""A validation split that is never empty, and what the report counts although it is kept."""

from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from bcmb_jax import commands
from bcmb_jax.data.ingest import Document
from bcmb_jax.data.prepare import prepare
from bcmb_jax.data.shards import open_shards
from bcmb_jax.data.tokenize import SpecialTokens, Tokenizer
from bcmb_jax.errors import InputError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(400))]


def make_tokenizer() -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(backend, SpecialTokens(cls=2, sep=3, pad=0, mask=4, unk=1))


def documents(*sizes: int) -> list[Document]:
    """One document a word; group n has `sizes[n]` of them."""
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    return [Document(f"w{i} w{i}", f"p{g}", "notes.csv", i + 2) for i, g in enumerate(groups)]


def run(output: Path, records: list[Document], fraction: float = 0.01, **more) -> dict:
    options = {"source": "notes", "validation_fraction": fraction, "seed": 0, **more}
    return prepare(records, make_tokenizer(), output, **options)


def words(split: Path) -> list[int]:
    shards = open_shards(split)
    shards.verify()
    return sorted(int(shards.read(i, 0, 1)[0]) - 5 for i in range(len(shards)))


@pytest.mark.parametrize(
    ("sizes", "fraction", "moved"),
    [
        ((1, 1, 1), 0.01, 1),
        ((30, 1), 0.001, 1),
        ((1, 30, 2), 0.001, 1),
        ((40, 10, 50), 0.0001, 10),
        ((5, 5), 0.0001, 5),
    ],
)
def test_validation_holds_the_group_nearest_in_size(tmp_path, sizes, fraction, moved) -> None:
    records = documents(*sizes)
    report = run(tmp_path / "out", records, fraction)
    train, validation = words(tmp_path / "out/train"), words(tmp_path / "out/validation")
    assert report["moved_to_validation"] == len(validation) == moved
    assert sorted(train + validation) == list(range(len(records)))
    groups = [{records[i].group for i in split} for split in (train, validation)]
    assert len(groups[1]) == 1
    assert not groups[0] & groups[1]
    assert report["splits"]["validation"] == {"documents": moved, "tokens": 2 * moved}
    assert report["splits"]["train"]["tokens"] == 2 * len(train)
    assert report["tokens"] == 2 * len(records)
    again = run(tmp_path / "again", records, fraction)
    assert again == report
    for file in ("train/tokens.bin", "validation/tokens.bin"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_no_group_is_moved_where_the_hash_puts_some_into_validation(tmp_path) -> None:
    report = run(tmp_path / "out", documents(*[2] * 100), 0.2)
    assert report["moved_to_validation"] == 0
    assert 0 < report["splits"]["validation"]["documents"] < 100


def test_a_single_group_is_refused_unless_no_validation_is_asked_for(tmp_path) -> None:
    with pytest.raises(InputError, match=r"all of 7 documents are one group; add --validation-fr"):
        run(tmp_path / "out", documents(7), 0.001)
    assert not (tmp_path / "out").exists()
    report = run(tmp_path / "out", documents(7), 0)
    assert report["splits"] == {"train": {"documents": 7, "tokens": 14}}


def test_odd_documents_are_counted_although_they_are_kept(tmp_path) -> None:
    long = "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10"
    texts = [long, long + "\n", f" {long}", "NaN", "nan ", "N/A", "w1", "null", long + " w11"]
    records = [Document(text, None, "notes.csv", i) for i, text in enumerate(texts)]
    report = run(tmp_path / "out", records, 0)
    assert report["documents"] == len(texts)
    assert report["kept"] == {
        "repeats of an earlier text": 2,
        "words for a missing value": 4,
        "texts of fewer than 20 characters": 1,
    }
    fine = run(tmp_path / "fine", [records[0], records[-1]], 0)
    assert fine["kept"] == {}


@pytest.mark.parametrize(
    ("unknown", "said"), [(100, "100.0%"), (50, "50.0%"), (3, "3.0%"), (1, None), (0, None)]
)
def test_unknown_tokens_are_counted_and_said(tmp_path, capsys, unknown, said) -> None:
    make_tokenizer().save(tmp_path / "tokenizer")
    lines = [f"{'?' if i < unknown else 'w1'} {'?' if i < unknown else 'w2'}" for i in range(100)]
    (tmp_path / "notes.csv").write_text("text\n" + "\n".join(lines) + "\n")
    arguments = ["--source", "csv", "--input", tmp_path / "notes.csv", "--output", tmp_path / "out"]
    arguments += ["--tokenizer", tmp_path / "tokenizer", "--validation-fraction", "0.1"]
    commands.main("prepare", *map(str, arguments))
    counts = [
        open_shards(tmp_path / "out" / split).index["unknown_tokens"]
        for split in ("train", "validation")
    ]
    assert sum(counts) == 2 * unknown
    printed = capsys.readouterr().out
    assert (f"warning: {said} of the tokens are unknown to the tokenizer" in printed) == bool(said)
    assert ("unknown to" in printed) == bool(said)


def test_the_command_says_how_a_table_is_written(tmp_path, capsys) -> None:
    make_tokenizer().save(tmp_path / "tokenizer")
    rows = "".join(f"{n};w{n} é\n" for n in range(40))
    (tmp_path / "notes.csv").write_bytes(f"id;text\n{rows}".encode("cp1252"))
    arguments = ["--source", "csv", "--input", tmp_path / "notes.csv"]
    commands.main("prepare", *map(str, arguments), "--peek")
    assert capsys.readouterr().out.startswith("notes.csv (semicolons, cp1252): 40 rows\n")
    arguments += ["--output", tmp_path / "out", "--tokenizer", tmp_path / "tokenizer"]
    commands.main("prepare", *map(str, arguments))
    printed = capsys.readouterr().out
    assert "  read 1 file as semicolons, cp1252\n" in printed
    assert "kept, texts of fewer than 20 characters: 40 (--min-characters 20" in printed
