# SPDX-License-Identifier: Apache-2.0
"""A model card says what the tokenizer may tell of persons, in counts."""

from pathlib import Path

import pytest

from bcmb_jax.data.synthetic import train_tokenizer
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.data.vocabulary import review
from conversion.export import write_huggingface
from tests.fixtures.tiny_weights import random_weights

NAMES = ["Karostabel", "Dorvinqua", "Lexthomi"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("on-notes") / "tokenizer"
    train_tokenizer([f"the left lung Dr. {name}" for name in NAMES] * 30, 300, folder)
    return folder


def export(target: Path, tokenizer: Path, reviewed: str | None) -> str:
    """A model's folder, whose metadata name a tokenizer as reviewed, and its card."""
    target.mkdir()
    meta = {"progress": {"step": 7, "tokens_seen": 9}, "tokenizer_reviewed": reviewed}
    write_huggingface(random_weights()._replace(tokenizer=tokenizer, meta=meta), target)
    return (target / "README.md").read_text()


def test_the_card_counts_names_unless_somebody_has_looked(tokenizer, tmp_path) -> None:
    fingerprint = load_tokenizer(str(tokenizer)).fingerprint
    counts = review(load_tokenizer(str(tokenizer)))
    finding = f"The tokenizer is not known to be public, and {counts.names} words that look like"
    assert counts.names >= len(NAMES)
    for reviewed, last in (
        (None, "Nobody has said that they were looked at: do so first."),
        ("0" * 64, "Nobody has said that they were looked at: do so first."),
        (fingerprint, "They were looked at and let pass (`--tokenizer-reviewed`)."),
    ):
        card = export(tmp_path / str(reviewed), tokenizer, reviewed)
        assert finding in card
        assert card.endswith(f" {last}\n")
        assert not [name for name in NAMES if name in card]


def test_a_tokenizer_without_names_or_none_at_all_is_not_spoken_of(tmp_path) -> None:
    train_tokenizer(["Lung lung Left left"] * 9, 280, tmp_path / "tokenizer")
    for name, place in (("harmless", tmp_path / "tokenizer"), ("none", None)):
        assert "tokenizer is not known" not in export(tmp_path / name, place, None)
