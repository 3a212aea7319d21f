# SPDX-License-Identifier: Apache-2.0
"""Dropout: how much, and that no element's fate says anything of another's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax.model.dropout import dropout

ROWS, LENGTH, SIZE = 4, 512, 768


def kept(keys, rate=0.1):
    x = jnp.ones((len(keys), LENGTH, SIZE))
    return np.asarray(jax.jit(dropout, static_argnums=2)(x, keys, rate)) > 0


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
def test_a_share_of_rate_is_zeroed_and_the_rest_scaled_up(rate):
    keys = jax.random.split(jax.random.key(0), ROWS)
    x = jnp.full((ROWS, LENGTH, SIZE), 3.0)
    out = np.asarray(dropout(x, keys, rate))
    np.testing.assert_allclose(out[out > 0], 3.0 / (1 - rate), rtol=1e-6)
    deviation = np.sqrt(rate * (1 - rate) / out.size)
    assert abs((out == 0).mean() - rate) <= 5 * deviation


def test_the_gradient_passes_where_the_element_did():
    keys = jax.random.split(jax.random.key(0), ROWS)
    x = jnp.ones((ROWS, LENGTH, SIZE))
    out, pull = jax.vjp(lambda x: dropout(x, keys, 0.1), x)
    np.testing.assert_array_equal(pull(x)[0], out)


def test_rows_columns_and_tokens_share_nothing():
    """Correlations of a mask with itself shifted, with other rows' and with those of neighbouring
    keys are noise; sums over rows and columns spread as those of independent elements."""
    seed = jax.random.key(3)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(seed, jnp.arange(ROWS))
    mask = kept(keys).astype("float64") - 0.9
    noise = 5 * 0.1 * 0.9 / np.sqrt(mask[0].size)
    for token, column in [
        (0, 1),
        (0, 2),
        (0, 32),
        (0, 256),
        (1, 0),
        (1, 1),
        (2, 0),
        (64, 0),
        (256, 0),
    ]:
        shifted = np.roll(mask, (token, column), axis=(1, 2))
        assert np.abs((mask * shifted).mean((1, 2))).max() <= noise, (token, column)
    for a in range(ROWS):
        for b in range(a):
            assert abs((mask[a] * mask[b]).mean()) <= noise, (a, b)
    for axis, count in ((1, SIZE), (2, LENGTH)):
        spread = mask.sum(axis).var() / (mask.shape[axis] * 0.09)
        assert abs(spread - 1) <= 5 * np.sqrt(2 / (ROWS * count))


def test_every_bit_of_a_key_and_of_a_place_changes_half_of_the_mask():
    one, other = jax.random.split(jax.random.key(0))
    masks = kept(jnp.stack([one, other]), rate=0.5)
    assert abs((masks[0] == masks[1]).mean() - 0.5) <= 5 * 0.5 / np.sqrt(masks[0].size)
    for bit in range(8):
        swapped = masks[0][:, np.arange(SIZE) ^ (1 << bit)]
        assert abs((masks[0] == swapped).mean() - 0.5) <= 5 * 0.7 / np.sqrt(masks[0].size)
