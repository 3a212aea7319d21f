# SPDX-License-Identifier: Apache-2.0
"""Dropout: how much, and that no element's fate says anything of another's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax.ops.dropout import dropout, elements, random_bits, row_words

pytestmark = pytest.mark.usefixtures("strict_dtypes")

ROWS, LENGTH, SIZE = 4, 512, 768
NOISE = 5  # standard deviations: one in two million by chance


def words():
    rows = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(3), jnp.arange(ROWS))
    return row_words(rows, 2)[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
def test_a_share_of_rate_is_zeroed_and_the_rest_scaled_up(rate, dtype):
    x = jnp.full((ROWS, LENGTH, SIZE), 3.0, dtype)
    out = dropout(x, words(), rate)
    assert out.dtype == dtype
    out = np.asarray(out, "float32")
    np.testing.assert_allclose(out[out > 0], 3.0 / (1 - rate), rtol=1e-2)
    assert abs((out == 0).mean() - rate) <= NOISE * np.sqrt(rate * (1 - rate) / out.size)


def test_the_gradient_passes_where_the_element_did():
    x = jnp.ones((ROWS, LENGTH, SIZE))
    out, pull = jax.vjp(lambda x: dropout(x, words(), 0.1), x)
    np.testing.assert_array_equal(pull(x)[0], out)


def test_rows_columns_and_tokens_share_nothing():
    """Correlations of a mask with itself shifted and with other rows' are noise; sums over tokens
    and columns spread as those of independent elements."""
    mask = np.asarray(dropout(jnp.ones((ROWS, LENGTH, SIZE)), words(), 0.1) > 0) - 0.9
    noise = NOISE * 0.1 * 0.9 / np.sqrt(mask[0].size)
    along_columns, along_tokens = [(0, 1), (0, 2), (0, 32), (0, 256)], [(1, 0), (2, 0), (64, 0)]
    for shift in (*along_columns, *along_tokens, (1, 1), (256, 1)):
        shifted = np.roll(mask, shift, axis=(1, 2))
        assert np.abs((mask * shifted).mean((1, 2))).max() <= noise, shift
    for a in range(ROWS):
        for b in range(a):
            assert abs((mask[a] * mask[b]).mean()) <= noise, (a, b)
    for axis, count in ((1, SIZE), (2, LENGTH)):
        spread = mask.sum(axis).var() / (mask.shape[axis] * 0.09)
        assert abs(spread - 1) <= NOISE * np.sqrt(2 / (ROWS * count))


def half(first, second):
    """`[L, D]`: what a rate of a half keeps."""
    words = (jnp.full((1, 1, 1), word, jnp.uint32) for word in (first, second))
    return np.asarray(random_bits(elements((LENGTH, 1024)), *words))[0] >= 2**31


def assert_unlike(one, other):
    assert abs((one == other).mean() - 0.5) <= NOISE * 0.5 / np.sqrt(one.size / 2), "alike"


WORDS = 0x9E3779B9, 0x7F4A7C15


def test_every_bit_of_a_word_changes_half_of_the_mask():
    for bit in range(32):
        assert_unlike(half(*WORDS), half(WORDS[0] ^ 1 << bit, WORDS[1]))
        assert_unlike(half(*WORDS), half(WORDS[0], WORDS[1] ^ 1 << bit))


def test_every_bit_of_a_place_decides_anew():
    mask = half(*WORDS)
    for bit in range(9):
        assert_unlike(mask, mask[np.arange(LENGTH) ^ 1 << bit])
    for bit in range(10):
        assert_unlike(mask, mask[:, np.arange(1024) ^ 1 << bit])


@pytest.mark.parametrize("bit", [0, 5, 12])
def test_masks_of_like_words_are_not_each_other_reordered(bit):
    """With one round they would be."""
    other = half(WORDS[0], WORDS[1] ^ 1 << bit)
    places = np.arange(LENGTH * 1024).reshape(LENGTH, 1024) ^ 1 << bit
    assert_unlike(half(*WORDS), other.ravel()[places])
