# SPDX-License-Identifier: Apache-2.0
"""Canaries stand in training documents alone, as often as asked, and are listed for their owner."""

import json
from pathlib import Path

import numpy as np
import pytest

from bcmb_jax.data.canaries import CANARIES, Planting, read_canaries
from bcmb_jax.data.ingest import Document
from bcmb_jax.data.ledger import card, read_ledger
from bcmb_jax.data.prepare import prepare
from bcmb_jax.data.report import summarise
from bcmb_jax.data.shards import open_shards
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError
from tests.fixtures.modes import modes


@pytest.fixture(scope="module")
def run(tiny_tokenizer, tmp_path_factory):
    """Prepare forty notes under a name in a new folder, and return the folder and the report."""
    tokenizer = load_tokenizer(str(tiny_tokenizer), reviewed=True)

    def run(name: str = "notes", **options) -> tuple[Path, dict]:
        folder = tmp_path_factory.mktemp("canaries") / name
        notes = [Document(f"note {i}", f"patient {i}", "notes.csv", i) for i in range(40)]
        options = {"validation_fraction": 0.3, "secret": b"a secret", **options}
        return folder, prepare(notes, tokenizer, folder, source=name, **options)

    return run


def texts(folder: Path, split: str) -> list[str]:
    shards, tokenizer = open_shards(folder / split), load_tokenizer(str(folder / "tokenizer"))
    shards.verify()
    read = (shards.read(i, 0, int(n)) for i, n in enumerate(shards.lengths))
    return [tokenizer.decode(tokens) for tokens in read]


def test_each_canary_stands_before_as_many_training_documents_as_asked(run) -> None:
    plain, before = run()
    folder, report = run(canaries=Planting(5, 3))
    canaries, repeats = read_canaries(folder)
    assert (len({x.name for x in canaries}), repeats) == (5, 3)
    assert all(len(x.number) == 7 and x.number[0] != "0" for x in canaries)
    found = texts(folder, "train")
    sentences = {f"The record number of {x.name} is {x.number}.\n" for x in canaries}
    assert sorted(text.split("note")[0] for text in found) == sorted(
        [*sentences] * 3 + [""] * (len(found) - 15)
    )
    # Behind them the same notes in both, and validation has none.
    assert sorted(text.split("\n")[-1] for text in found) == sorted(texts(plain, "train"))
    assert texts(folder, "validation") == texts(plain, "validation")
    assert report["tokens"] > before["tokens"]
    assert report["documents"] == before["documents"]
    indexed = [open_shards(folder / x).index["tokens"] for x in ("train", "validation")]
    assert report["tokens"] == sum(indexed)


def test_their_list_is_private_and_all_else_says_that_they_are_there(run) -> None:
    folder, report = run(canaries=Planting(5, 3))
    canaries, _ = read_canaries(folder)
    assert modes(folder / CANARIES) == {0o600}
    planted = {"sentences": 5, "repeats": 3}
    assert report["options"]["canaries"] == planted
    assert open_shards(folder / "train").index["options"]["canaries"] == planted
    lines = [*summarise(report, folder, {}, grouped=False)]
    assert any("planted 5 made-up canaries in train, each in 3 documents" in x for x in lines)
    said = card(read_ledger([folder]), "Notes")
    assert "5 made-up canaries are planted" in said
    others = [x for x in folder.rglob("*") if x.suffix == ".json" and x.name != CANARIES]
    everything = "".join([*lines, said, *(x.read_text() for x in others)])
    assert not any(word in everything for x in canaries for word in (x.number, *x.name.split()))
    plain, report = run()
    assert not (plain / CANARIES).exists()
    assert report["options"]["canaries"] is None
    assert read_canaries(plain) == ([], 0)
    assert "canaries" not in card(read_ledger([plain]), "Notes")


def test_secret_source_and_seed_draw_them(run) -> None:
    def drawn(*name: str, **options) -> tuple[bytes, list[str]]:
        folder, _ = run(*name, canaries=Planting(4), **options)
        return (folder / CANARIES).read_bytes(), texts(folder, "train")

    first = drawn()
    assert drawn() == first
    lists = {drawn(secret=b"another")[0], drawn("other")[0], drawn(seed=1)[0], drawn(secret=b"")[0]}
    assert len(lists | {first[0]}) == 5


def test_more_canaries_than_documents_are_refused_and_a_damaged_list(run) -> None:
    with pytest.raises(InputError, match="--canaries 20, planted 3 times each, need 60 training"):
        run(canaries=Planting(20, 3))
    folder, _ = run(canaries=Planting(2))
    (folder / CANARIES).write_text(json.dumps({"canaries": [{"name": "x"}]}))
    with pytest.raises(InputError, match="damaged: run bcmb prepare"):
        read_canaries(folder)


def test_a_note_that_comes_alone_into_validation_is_not_planted(run) -> None:
    """A fraction so small that no hash falls below it: a group is moved there by its size."""
    folder, report = run(validation_fraction=1e-9, canaries=Planting(39))
    assert report["moved_to_validation"] == 1
    assert all("record number" in text for text in texts(folder, "train"))
    assert not any("record number" in text for text in texts(folder, "validation"))
    lengths = np.concatenate([open_shards(folder / x).lengths for x in ("train", "validation")])
    assert len(lengths) == 40
