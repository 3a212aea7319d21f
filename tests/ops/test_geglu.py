# SPDX-License-Identifier: Apache-2.0
"""GeGLU, and its gradient as a kernel beside the one that JAX derives."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax.ops.geglu import geglu, with_kernel
from tests.fixtures.tiny_batches import assert_within

pytestmark = pytest.mark.usefixtures("strict_dtypes")

# Of the largest element: fp32, with a normal distribution within 3e-7; one rounding to bf16.
TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2}


def written_out(inner):
    """Not `geglu` itself, which on a GPU has the kernel."""
    return jax.nn.gelu(inner[:, :, 0], approximate=False) * inner[:, :, 1]


def test_the_first_half_is_activated_and_the_second_its_gate():
    inner = np.random.default_rng(0).normal(size=(1, 3, 2, 8)).astype("float32")
    a, b = inner[:, :, 0].astype("float64"), inner[:, :, 1]
    expected = 0.5 * a * (1 + np.vectorize(math.erf)(a / math.sqrt(2))) * b
    np.testing.assert_allclose(geglu(jnp.asarray(inner), jnp.dtype("float32")), expected, atol=1e-6)


def test_silu_may_stand_in_place_of_gelu():
    inner = jnp.asarray(3 * np.random.default_rng(0).normal(size=(2, 3, 2, 8)), jnp.float32)
    out, pull = jax.vjp(lambda x: geglu(x, jnp.dtype("float32"), "silu"), inner)
    a, b = (np.asarray(inner[:, :, i], "float64") for i in range(2))
    sigmoid = 1 / (1 + np.exp(-a))
    np.testing.assert_allclose(out, a * sigmoid * b, atol=1e-5)
    (gradient,) = pull(jnp.ones_like(out))
    np.testing.assert_allclose(gradient[:, :, 1], a * sigmoid, atol=1e-5)
    slope = sigmoid * (1 + a * (1 - sigmoid)) * b
    np.testing.assert_allclose(gradient[:, :, 0], slope, atol=1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "shape",
    [(3, 7, 2, 192), (1, 16, 2, 1152), pytest.param((2, 16, 2, 256), marks=pytest.mark.slow)],
)
def test_the_kernel_has_the_gradient(dtype, shape):
    """Also of rows that fill no program, and of sizes of two, three and nine pieces."""
    random = np.random.default_rng(0)
    inner = jnp.asarray(2 * random.normal(size=shape), dtype)
    dout = jnp.asarray(random.normal(size=(*shape[:2], shape[-1])), dtype)
    out, pull = jax.vjp(lambda x: with_kernel(x, jnp.dtype(dtype)), inner)
    expected_out, expected_pull = jax.vjp(written_out, inner.astype(jnp.float32))
    (expected,) = expected_pull(dout.astype(jnp.float32))
    for found, wanted in ((out, expected_out), (jax.jit(pull)(dout)[0], expected)):
        assert found.dtype == dtype
        assert_within(TOLERANCE[dtype], found, wanted)
