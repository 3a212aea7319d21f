# SPDX-License-Identifier: Apache-2.0
"""The norm, and its gradient as a kernel beside the one that JAX derives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
@pytest.mark.parametrize(
    "shape", [(1, 7, 512), (3, 50, 768), pytest.param((2, 64, 128), marks=pytest.mark.slow)]
)
def test_the_kernel_has_the_gradient_of_the_norm_and_of_the_stream(dtype, shape):
    """Also of rows that fill no program, and of sizes of one, two and three pieces."""
    random = np.random.default_rng(0)
    x, dstream = (3 + random.normal(size=shape).astype("float32") for _ in range(2))
    dnormed = jnp.asarray(random.normal(size=shape), dtype)
    weight = np.linspace(-1, 2, shape[-1], dtype="float32")

    def plain(x, weight):
        return x, layer_norm(x, weight, EPS).astype(dtype)

    def kernel(x, weight):
        return with_kernel(x, weight, EPS, jnp.dtype(dtype))

    (stream, normed), pull = jax.vjp(jax.jit(kernel), x, weight)
    (_, expected), expected_pull = jax.vjp(jax.jit(plain), x, weight)
    np.testing.assert_array_equal(stream, x)
    assert_close(normed, expected, dtype)
    for found, expected in zip(
        jax.jit(pull)((dstream, dnormed)), expected_pull((dstream, dnormed)), strict=True
    ):
        assert_close(found, expected)
