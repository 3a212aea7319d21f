# SPDX-License-Identifier: Apache-2.0
"""Bits of bf16 and row-major transposes, as compiled programs move them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bcmb_jax.device import on_cpu
from bcmb_jax.ops.cpu import (
    bf16_to_bits,
    bits_to_bf16,
    in_alphabetical_order,
    row_major_transpose,
)

EVERY = np.arange(2**16, dtype=np.uint16)
"""All values of bf16: zeros of both signs, subnormals and NaNs among them."""


def test_bits_come_through_a_program_as_they_were():
    @jax.jit
    def moved(x):
        return bits_to_bf16(
            lax.dynamic_update_slice(jnp.zeros_like(bf16_to_bits(x)), bf16_to_bits(x), (0,))
        )

    found = moved(jnp.asarray(EVERY).view(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.view(jnp.uint16), EVERY)


def test_bits_are_of_bf16_on_a_cpu_and_nothing_else():
    expected = jnp.uint16 if on_cpu() else jnp.bfloat16
    assert bf16_to_bits(jnp.ones(3, jnp.bfloat16)).dtype == expected
    assert bf16_to_bits(jnp.ones(3)).dtype == bits_to_bf16(jnp.ones(3)).dtype == jnp.float32


def test_row_major_transpose_is_a_transpose():
    x = jnp.arange(2 * 6 * 5.0).reshape(2, 6, 5)
    np.testing.assert_array_equal(row_major_transpose(x), jnp.swapaxes(x, 1, 2))


def test_axes_are_summed_over_in_the_order_in_which_they_lie():
    """`jnp.einsum` sums over them in the order of the alphabet."""
    assert in_alphabetical_order("blshk,shkd->bld") == "abcde,cdef->abf"
