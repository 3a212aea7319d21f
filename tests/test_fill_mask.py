# SPDX-License-Identifier: Apache-2.0
"""Masks in a text become the mask token, and get words by their probability."""

import numpy as np
import pytest

from bcmb_jax.data.synthetic import DEMO_CLOZES, train_tokenizer
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError
from scripts.fill_mask import encode_clozes, fill


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
