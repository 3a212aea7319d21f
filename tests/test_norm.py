# SPDX-License-Identifier: Apache-2.0
"""The norm, and its gradient as a kernel beside the one that JAX derives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax.model.norm import branch, layer_norm

EPS = 1e-5


def test_the_norm_has_mean_zero_and_variance_one_times_its_weight():
    x = 3 + 2 * np.random.default_rng(0).normal(size=(2, 5, 48)).astype("float32")
    weight = np.linspace(-1, 2, 48, dtype="float32")
    wide = x.astype("float64")
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt(wide.var(-1, keepdims=True) + EPS) * weight
    np.testing.assert_allclose(layer_norm(x, weight, EPS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 64, 128), (3, 50, 768), (1, 7, 48)])
def test_the_kernel_has_the_gradient_of_the_norm_and_of_the_stream(dtype, shape):
    """Rows that fill no program, and sizes of one, two and three pieces."""
    random = np.random.default_rng(0)
    x, dstream = (3 + random.normal(size=shape).astype("float32") for _ in range(2))
    dnormed = jnp.asarray(random.normal(size=shape), dtype)
    weight = np.linspace(-1, 2, shape[-1], dtype="float32")

    def plain(x, weight):
        return x, layer_norm(x, weight, EPS).astype(dtype)

    out, pull = jax.vjp(jax.jit(lambda *a: branch(*a, EPS, jnp.dtype(dtype))), x, weight)
    expected_out, expected_pull = jax.vjp(jax.jit(plain), x, weight)
    np.testing.assert_array_equal(out[0], x)
    error = jnp.abs(out[1].astype(jnp.float32) - expected_out[1].astype(jnp.float32)).max()
    assert error <= {"float32": 2e-6, "bfloat16": 1e-2}[dtype] * jnp.abs(expected_out[1]).max()
    dx, dweight = jax.jit(pull)((dstream, dnormed))
    expected_dx, expected_dweight = expected_pull((dstream, dnormed))
    assert dx.dtype == dweight.dtype == jnp.float32
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dweight, expected_dweight, rtol=1e-5, atol=1e-4)
