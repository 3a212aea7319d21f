# SPDX-License-Identifier: Apache-2.0
"""Masks in a text become the mask token, and get words by their probability."""

import numpy as np
import pytest

from bcmb_jax.commands.fill_mask import encode_clozes, fill, ranks, read_probes, summary
from bcmb_jax.data.synthetic import DEMO_CLOZES, train_tokenizer
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer(["the left lung is clear", "a stroke"], 280, directory)
    return load_tokenizer(str(directory))


def test_masks_take_the_space_before_them(tokenizer) -> None:
    special = tokenizer.special
    (row,) = encode_clozes(tokenizer.directory, tokenizer, ["the [MASK] lung"])
    before, after = tokenizer.encode_batch(["the", " lung"])
    wanted = [special.cls, *before, special.mask, *after, special.sep]
    assert row.tolist() == wanted


def test_demo_sentences_have_a_mask_each(tokenizer) -> None:
    rows = encode_clozes(tokenizer.directory, tokenizer, DEMO_CLOZES)
    assert all((row == tokenizer.special.mask).sum() == 1 for row in rows)


def test_a_text_without_a_mask_is_named_by_number(tokenizer) -> None:
    with pytest.raises(InputError, match="text 2 of 2") as error:
        encode_clozes(tokenizer.directory, tokenizer, ["a [MASK]", "private words"])
    assert "private" not in str(error.value)


def test_words_come_by_probability_for_each_mask(tokenizer) -> None:
    x, y = (int(tokenizer.encode_batch([letter])[0][0]) for letter in "xy")
    rows = encode_clozes(tokenizer.directory, tokenizer, ["[MASK] the [MASK]", "a [MASK]"])

    def model(tokens, segment_ids):
        assert (segment_ids.sum(1) == [len(row) for row in rows]).all()
        logits = np.full((*tokens.shape, 280), -50.0, np.float32)
        logits[..., x], logits[..., y] = np.log(3), 0.0
        return logits

    filled = fill(model, tokenizer, rows, top=2)
    assert [len(places) for places in filled] == [2, 1]
    for places in filled:
        for (first, p), (second, q) in places:
            assert (first, second) == ("x", "y")
            np.testing.assert_allclose([p, q], [0.75, 0.25], rtol=1e-5)


def test_probes_are_ranked_by_the_best_form_of_their_word(tokenizer, tmp_path) -> None:
    file = tmp_path / "probes.tsv"
    file.write_text("the [MASK] lung\tx\n[MASK] is\ty\n")
    texts, answers = read_probes(file, tokenizer)
    x, y = (int(tokenizer.encode_batch([letter])[0][0]) for letter in "xy")
    assert texts == ["the [MASK] lung", "[MASK] is"]
    assert x in answers[0]
    assert y in answers[1]

    def model(tokens, segment_ids):
        logits = np.full((*tokens.shape, 280), -50.0, np.float32)
        logits[..., x], logits[..., 5], logits[..., 6], logits[..., y] = 3, 2, 1, 0
        return logits

    found = ranks(model, tokenizer, encode_clozes(tokenizer.directory, tokenizer, texts), answers)
    assert found.tolist() == [1, 4]
    assert summary(found, 5) == (
        "2 probes: right 50.0%, among the first 5 100.0%, mean reciprocal rank 0.625"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no mask\tx", r"probes\.tsv:2 is not a text with one \[MASK\], a tab and a word"),
        ("[MASK] and [MASK]\tx", "probes.tsv:2 is not"),
        ("the [MASK]", "probes.tsv:2 is not"),
        ("the [MASK]\txyzzy", "probes.tsv:2: the word is . tokens, and must be 1"),
    ],
)
def test_bad_probes_are_named_by_line(tokenizer, tmp_path, line, message) -> None:
    file = tmp_path / "probes.tsv"
    file.write_text(f"the [MASK]\tx\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_probes(file, tokenizer)
