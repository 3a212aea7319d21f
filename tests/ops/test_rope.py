# SPDX-License-Identifier: Apache-2.0
"""Queries, keys and values from a layer's product, and their rotation as a kernel."""

import decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax.ops.rope import (
    attention_operands,
    rope_frequencies,
    rope_table,
    rotate,
    rotate_in_place,
)
from tests.fixtures.tiny_batches import assert_within

# Of the largest element: fp32; one rounding to bf16.
TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2}


def made_up(batch, length, heads, size, dtype):
    random = np.random.default_rng(0)
    qkv = jnp.asarray(random.normal(size=(batch, length, 3, heads, size)), dtype)
    positions = jnp.tile(jnp.arange(length), (batch, 1))
    return qkv, rope_table(positions, 10_000.0, size), random


def test_scores_depend_on_the_distance_alone_and_values_stay():
    qkv, rope, _ = made_up(1, 40, 2, 16, "float32")
    qkv = jnp.broadcast_to(qkv[:, :1], qkv.shape)  # the same token everywhere
    q, k, v = attention_operands(qkv, rope, jnp.dtype("float32"))
    np.testing.assert_array_equal(v, qkv[:, :, 2])
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, precision="highest")
    at_zero = (qkv[0, 0, 0] * qkv[0, 0, 1]).sum(-1) / 4
    np.testing.assert_allclose(jnp.diagonal(scores, axis1=2, axis2=3)[0, :, 7], at_zero, rtol=1e-5)
    for distance in (1, 9):
        along = jnp.diagonal(scores, offset=distance, axis1=2, axis2=3)
        np.testing.assert_allclose(along, jnp.broadcast_to(along[..., :1], along.shape), atol=1e-5)


@pytest.mark.parametrize("theta", [160_000.0, 10_000.0, 5000.0, 700.0, 3.5])
@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_frequencies_are_the_exact_ones_rounded_once(theta, size):
    """Frequencies have equal bits on every machine, which powers in fp32 have not."""
    with decimal.localcontext(prec=60):
        exponents = [-decimal.Decimal(2 * i) / size for i in range(size // 2)]
        exact = [decimal.Decimal(theta) ** x for x in exponents]
    found = rope_frequencies(theta, size)
    assert found.dtype == np.float32
    for x, right in zip(found, exact, strict=True):
        neighbours = (np.nextafter(x, np.float32(side)) for side in (0, 2))
        error = abs(decimal.Decimal(float(x)) - right)
        assert all(abs(decimal.Decimal(float(y)) - right) > error for y in neighbours)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(2, 16, 3, 64), (3, 32, 1, 32)])
def test_the_kernel_rotates_queries_and_keys_and_leaves_values(dtype, shape):
    qkv, rope, _ = made_up(*shape, dtype)
    found = jax.jit(rotate_in_place)(qkv, *rope)
    assert found.dtype == dtype
    q, k, v = (qkv[:, :, i].astype(jnp.float32) for i in range(3))
    expected = rotate(q, *rope) * shape[-1] ** -0.5, rotate(k, *rope), v
    assert_within(TOLERANCE[dtype], found, jnp.stack(expected, 2))
    np.testing.assert_array_equal(found[:, :, 2], qkv[:, :, 2])
