# SPDX-License-Identifier: Apache-2.0
"""How bf16 arrays must lie for XLA's CPU backend to move and multiply them as they are."""

import jax
import jax.numpy as jnp
from jax import lax

from bcmb_jax.device import on_cpu


def bf16_to_bits(x: jax.Array) -> jax.Array:
    """bf16 as uint16, on a CPU, and anything else as it is; derivatives end here.

    XLA for CPUs moves no bf16: around a slice, join, pad or update it converts the whole array to
    fp32 and back, in a loop at every turn.
    """
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 and on_cpu() else x


def bits_to_bf16(x: jax.Array) -> jax.Array:
    """The inverse of `bf16_to_bits`: uint16 is taken for bf16."""
    return lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x


def row_major_transpose(x: jax.Array) -> jax.Array:
    """`x` `[..., m, n]` with its last two axes swapped and materialised row-major (`m` even).

    XLA's CPU backend gives a plain transpose a permuted layout, which its bf16 kernel does not
    take: the product is then upcast and runs at half the speed. A reshape resets the layout; the
    barrier keeps the compiler from folding it away.
    """
    *batch, m, n = x.shape
    pairs = jnp.swapaxes(x, -1, -2).reshape(*batch, n, m // 2, 2)
    return lax.optimization_barrier(pairs).reshape(*batch, n, m)
