# SPDX-License-Identifier: Apache-2.0
"""The matrix product and its gradients against float64, on this machine's real kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax.ops.cpu import row_sums
from bcmb_jax.ops.linear import linear
from bcmb_jax.ops.norm import scaled

pytestmark = pytest.mark.usefixtures("strict_dtypes")

# Relative to the largest element: fp32 sums of a few hundred products, and bf16's 8 bits.
TOLERANCE = {"float32": 2e-6, "bfloat16": 2e-2}


@pytest.mark.parametrize(
    ("dtype", "out_dtype"), [("float32", None), ("bfloat16", None), ("bfloat16", "bfloat16")]
)
@pytest.mark.parametrize("rows", [(6, 4), (7, 1)])  # an odd number takes another path on CPU
@pytest.mark.parametrize("shapes", [((5,), (8,)), ((3, 2, 4), (8,)), ((8,), (2, 4))])
def test_product_and_gradients(dtype, out_dtype, rows, shapes):
    outputs, inputs = shapes
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(*rows, *inputs)), random.normal(size=(*outputs, *inputs))
    g = random.normal(size=(*rows, *outputs))
    outer, inner = "hkm"[: len(outputs)], "pqr"[: len(inputs)]
    equation = f"bl{inner},{outer}{inner}->bl{outer}"

    def run(x, weight):
        out = out_dtype and jnp.dtype(out_dtype)
        return linear(equation, x, weight, jnp.dtype(dtype), out_dtype=out)

    def loss(x, weight):
        return (run(x, weight).astype(jnp.float32) * jnp.asarray(g, jnp.float32)).sum()

    out = jax.jit(run)(x, weight)
    dx, dweight = jax.jit(jax.grad(loss, argnums=(0, 1)))(
        jnp.asarray(x, jnp.float32), jnp.asarray(weight, jnp.float32)
    )
    width, depth = int(np.prod(outputs)), int(np.prod(inputs))
    x2, w2, g2 = x.reshape(-1, depth), weight.reshape(width, depth), g.reshape(-1, width)
    assert out.dtype == (out_dtype or jnp.float32)
    assert dweight.dtype == jnp.float32
    for found, expected in [(out, x2 @ w2.T), (dx, g2 @ w2), (dweight, g2.T @ x2)]:
        error = np.abs(np.asarray(found).reshape(expected.shape) - expected).max()
        assert error <= TOLERANCE[dtype] * np.abs(expected).max()


@pytest.mark.parametrize("out_dtype", [None, jnp.dtype(jnp.bfloat16)])
def test_bf16_products_accumulate_in_fp32(out_dtype):
    # 1 + 1024 × 2^-10 is 2 in fp32; a bf16 sum would stay at 1.
    x = jnp.concatenate([jnp.ones(1), jnp.full(1024, 2.0**-10)])[None, :]
    out = linear("md,nd->mn", x, jnp.ones((1, 1025)), jnp.dtype(jnp.bfloat16), out_dtype=out_dtype)
    assert out[0, 0] == 2.0
    assert out.dtype == (out_dtype or jnp.float32)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_row_sums_are_sums_in_the_dtype_of_what_is_summed(dtype):
    x = np.random.default_rng(0).normal(size=(1, 40, 3, 64)).astype(dtype)
    with jax.enable_x64(dtype == "float64"):
        found = jax.jit(row_sums)(jnp.asarray(x))
    assert found.dtype == dtype
    error = np.abs(np.asarray(found) - x.astype("float64").sum(-1)).max()
    assert error <= {"float32": 1e-5, "float64": 1e-13}[dtype]


def test_scaled_has_the_gradients_of_a_product():
    x, g = (np.random.default_rng(i).normal(size=(3, 40, 16)).astype("float32") for i in (0, 1))
    weight = np.linspace(-1, 2, 16, dtype="float32")
    out, pull = jax.vjp(scaled, *map(jnp.asarray, (x, weight)))
    np.testing.assert_array_equal(out, x * weight)
    dx, dweight = pull(jnp.asarray(g))
    np.testing.assert_array_equal(dx, g * weight)
    np.testing.assert_allclose(dweight, (g * x).sum((0, 1)), rtol=1e-5, atol=1e-5)
