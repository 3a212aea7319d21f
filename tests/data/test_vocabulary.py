# SPDX-License-Identifier: Apache-2.0
"""Names that a tokenizer has learned from notes are counted and said, and never shown."""

import json
import random
from pathlib import Path

import pytest
import tokenizers

from bcmb_jax import commands
from bcmb_jax.data.shards import open_shards
from bcmb_jax.data.synthetic import train_tokenizer
from bcmb_jax.data.tokenize import Tokenizer, load_tokenizer
from bcmb_jax.data.vocabulary import find_entries, review

SYLLABLES = ("ka", "ro", "mi", "sta", "bel", "dor", "vin", "qua", "lex", "tho")
COMMON = "the patient was seen with pain of the left knee and went home again on Monday monday"
ROLES = {f"{role}_token": f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}


def canaries() -> list[str]:
    """75 names that nobody has, each of which a vocabulary holds only if it was told of it."""
    draw = random.Random(1)
    names = {"".join(draw.sample(SYLLABLES, 3)).capitalize() for _ in range(100)}
    return sorted(names)[:75]


def notes(lower: bool = False) -> list[str]:
    draw, words = random.Random(2), COMMON.split()
    texts = []
    for name in canaries():
        for _ in range(12):
            said = " ".join(draw.choices(words, k=8))
            texts.append(f"{said} Dr. {name} 4471903 {said}")
    return [text.lower() for text in texts] if lower else texts


@pytest.fixture(scope="module")
def trained_on_notes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("on-notes") / "tokenizer"
    train_tokenizer(notes(), 1000, folder)
    return folder


def names_found(tokenizer: Tokenizer) -> set[str]:
    return {tokenizer.decode([i]).strip() for i in find_entries(tokenizer)[0]}


def test_all_names_of_a_vocabulary_are_counted(trained_on_notes: Path) -> None:
    tokenizer = load_tokenizer(str(trained_on_notes))
    known = [name for name in canaries() if len(tokenizer.encode_batch([f" {name}"])[0]) == 1]
    assert len(known) == 75, "as in the attack: whole names are in tokenizer.json"
    found = names_found(tokenizer)
    assert set(known) <= found
    assert "Monday" not in found, "written small too"
    counts = review(tokenizer)
    assert (counts.public, counts.names, counts.reviewed) == (None, len(found), False)
    digits = [tokenizer.decode([i]).strip() for i in find_entries(tokenizer)[1]]
    assert "4471903" in digits
    assert counts.digit_runs == len(digits)


def test_without_capitals_every_whole_word_counts(tmp_path: Path) -> None:
    train_tokenizer(notes(lower=True), 1000, tmp_path / "small")
    found = names_found(load_tokenizer(str(tmp_path / "small")))
    assert {name.lower() for name in canaries()} <= found
    assert "patient" in found
    pieces = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    pieces.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    pieces.normalizer = tokenizers.normalizers.Lowercase()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=900, special_tokens=list(ROLES.values()), show_progress=False
    )
    pieces.train_from_iterator(notes(), trainer)
    (tmp_path / "pieces").mkdir()
    pieces.save(str(tmp_path / "pieces/tokenizer.json"))
    (tmp_path / "pieces/special_tokens_map.json").write_text(json.dumps(ROLES))
    tokenizer = load_tokenizer(str(tmp_path / "pieces"))
    assert {name.lower() for name in canaries()} <= names_found(tokenizer)
    assert not any(tokenizer.token(i).startswith("##") for i in find_entries(tokenizer)[0])


def test_public_tokenizers_are_known(shared: Path, tmp_path: Path) -> None:
    modernbert = review(load_tokenizer(str(shared / "data/tokenizers/modernbert")))
    assert (modernbert.public, modernbert.finding) == ("ModernBERT", None)
    vocabulary = shared / "data/tokenizers/bert-base-uncased/vocab.txt"
    backend = tokenizers.BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(ROLES))
    bert = review(load_tokenizer(str(tmp_path)))
    assert (bert.public, bert.finding) == ("bert-base-uncased", None)


@pytest.mark.parametrize("reviewed", [False, True])
def test_the_report_warns_until_somebody_has_looked(
    trained_on_notes, tmp_path, capsys, reviewed
) -> None:
    (tmp_path / "notes.txt").write_text("the patient went home")
    arguments = ["--source", "text", "--input", tmp_path / "notes.txt", "--output"]
    arguments += [tmp_path / "out", "--tokenizer", trained_on_notes, "--validation-fraction", "0"]
    arguments += ["--tokenizer-reviewed"] if reviewed else []
    commands.main("prepare", *map(str, arguments))
    printed = capsys.readouterr().out
    counts = review(load_tokenizer(str(trained_on_notes)))
    warning = f"warning: the tokenizer is not known to be public, and {counts.names:,} words that"
    assert (warning in printed) is not reviewed
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["tokenizer"] == {**counts._asdict(), "reviewed": reviewed}
    assert open_shards(tmp_path / "out/train").index["tokenizer"]["reviewed"] is reviewed
    said = printed + json.dumps(report)
    assert not [name for name in canaries() if name in said]
