# SPDX-License-Identifier: Apache-2.0
"""The norm, and the kernels of a branch's beginning beside what JAX makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax.ops.dropout import dropout, row_words
from bcmb_jax.ops.norm import layer_norm, with_kernel
from tests.fixtures.tiny_batches import assert_within

pytestmark = pytest.mark.usefixtures("strict_dtypes")

EPS = 1e-5
# Of the largest element: fp32 sums over a token or over all of them; one rounding to bf16.
TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2}


def assert_close(found, expected, dtype="float32"):
    assert found.dtype == dtype
    assert_within(TOLERANCE[dtype], found, expected.astype("float32"))


def test_the_norm_has_mean_zero_and_variance_one_times_its_weight():
    x = 3 + 2 * np.random.default_rng(0).normal(size=(2, 5, 48)).astype("float32")
    weight = np.linspace(-1, 2, 48, dtype="float32")
    wide = x.astype("float64")
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt(wide.var(-1, keepdims=True) + EPS) * weight
    assert_close(layer_norm(jnp.asarray(x), jnp.asarray(weight), EPS), expected)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize(
    "shape", [(1, 7, 512), (3, 50, 768), pytest.param((2, 130, 128), marks=pytest.mark.slow)]
)
def test_the_kernels_add_drop_and_norm_and_have_the_gradients(dtype, shape, rate):
    """Also of rows that fill no program, and of sizes of one, two and three pieces."""
    random = np.random.default_rng(0)
    x, dstream = (jnp.asarray(3 + random.normal(size=shape), jnp.float32) for _ in range(2))
    update, dnormed = (jnp.asarray(random.normal(size=shape), dtype) for _ in range(2))
    weight = jnp.linspace(-1, 2, shape[-1], dtype=jnp.float32)
    words = row_words(jax.random.split(jax.random.key(0), shape[0]), 1)[0]

    def plain(x, update, weight):
        stream = x + dropout(update.astype(jnp.float32), words, rate)
        return stream, layer_norm(stream, weight, EPS).astype(dtype)

    def kernel(x, update, weight):
        return with_kernel(EPS, rate, jnp.dtype(dtype), x, update, words, weight)

    found, pull = jax.vjp(jax.jit(kernel), x, update, weight)
    expected, expected_pull = jax.vjp(jax.jit(plain), x, update, weight)
    assert_close(found[0], expected[0])
    assert_close(found[1], expected[1], dtype)
    found, expected = jax.jit(pull)((dstream, dnormed)), expected_pull((dstream, dnormed))
    for ours, wanted, of in zip(found, expected, ("float32", dtype, "float32"), strict=True):
        assert_close(ours, wanted, of)
    if rate:
        np.testing.assert_array_equal(found[1] == 0, expected[1] == 0)
        assert (found[1] == 0).any()


def test_a_stream_to_which_nothing_is_added_has_the_gradient_too():
    random = np.random.default_rng(0)
    x, dstream, dnormed = (
        jnp.asarray(random.normal(size=(2, 9, 128)), "float32") for _ in range(3)
    )
    weight, words = jnp.linspace(-1, 2, 128), jnp.zeros((2, 2), jnp.uint32)

    def kernel(x, weight):
        return with_kernel(EPS, 0.0, jnp.dtype("float32"), x, None, words, weight)

    (stream, normed), pull = jax.vjp(kernel, x, weight)
    expected, expected_pull = jax.vjp(lambda *a: (a[0], layer_norm(*a, EPS)), x, weight)
    np.testing.assert_array_equal(stream, x)
    for found, wanted in zip(
        (normed, *jax.jit(pull)((dstream, dnormed))),
        (expected[1], *expected_pull((dstream, dnormed))),
        strict=True,
    ):
        assert_close(found, wanted)
