# SPDX-License-Identifier: Apache-2.0
"""GeGLU, and its gradient as a kernel beside the one that JAX derives."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax.model.geglu import geglu, with_kernel

TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2}


def test_the_first_half_is_activated_and_the_second_its_gate():
    inner = np.random.default_rng(0).normal(size=(1, 3, 2, 8)).astype("float32")
    a, b = inner[:, :, 0].astype("float64"), inner[:, :, 1]
    expected = 0.5 * a * (1 + np.vectorize(math.erf)(a / math.sqrt(2))) * b
    np.testing.assert_allclose(geglu(inner, jnp.dtype("float32")), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(2, 16, 2, 256), (3, 7, 2, 192), (1, 16, 2, 1152)])
def test_the_kernel_has_the_gradient(dtype, shape):
    """Rows that fill no program, and sizes of two, three and nine pieces."""
    random = np.random.default_rng(0)
    inner = jnp.asarray(2 * random.normal(size=shape), dtype)
    dout = jnp.asarray(random.normal(size=(*shape[:2], shape[-1])), dtype)
    out, pull = jax.vjp(lambda x: with_kernel(x, jnp.dtype(dtype)), inner)
    np.testing.assert_array_equal(out, geglu(inner, jnp.dtype(dtype)))
    (found,) = jax.jit(pull)(dout)
    wide = (x.astype(jnp.float32) for x in (inner, dout))
    expected = jax.vjp(lambda x: geglu(x, jnp.dtype("float32")), next(wide))[1](next(wide))[0]
    assert found.dtype == dtype
    error = jnp.abs(found.astype(jnp.float32) - expected).max()
    assert error <= TOLERANCE[dtype] * jnp.abs(expected).max()
