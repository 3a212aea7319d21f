# SPDX-License-Identifier: Apache-2.0
"""Dropout by a hash of each element's place.

`jax.random` runs the twenty rounds of Threefry for each element, forward and again backward: on a
GPU more work than all else that is done to it between products. A mask needs no more than that no
element's fate says anything of another's, for which two rounds of a plain hash will do
(`tests/ops/test_dropout.py`); the words they start from are `jax.random`'s.
"""

import jax
import jax.numpy as jnp
from jax import lax


@jax.named_scope("dropout")
def dropout(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
    """`x` `[B, L, D]` with a `rate` of its elements zeroed, the others divided by `1 - rate`; row
    `b` depends on `keys[b]` alone, so that a row drops the same elements on any number of devices
    and in any microbatch."""
    words = jax.vmap(lambda key: jax.random.bits(key, (2, 1, 1), jnp.uint32))(keys)
    bits = random_bits(words[:, 0], words[:, 1], x.shape[1:])
    uniform = (bits >> 9).astype(jnp.int32).astype(jnp.float32) * 2.0**-23
    # Not a choice between `x` and 0, nor a product with what was compared, of which XLA makes one:
    # it would keep one array of zeros, as large as `x`, for all layers, and read it in each.
    factor = jnp.floor(uniform + (1.0 - rate)) / (1.0 - rate)
    return x * factor.astype(x.dtype)


def random_bits(first: jax.Array, second: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`[B, *shape]` uint32 from two words `[B, 1, 1]` of each row."""
    row, column = (lax.broadcasted_iota(jnp.uint32, (1, *shape), axis) for axis in (1, 2))
    # With one word, masks of rows whose words share their upper bits would be the same, reordered.
    return _mixed(_mixed((row * shape[1] + column) ^ first) ^ second)


def _mixed(bits: jax.Array) -> jax.Array:
    """Each of 32 bits of the result depends on all of `bits`: the end of MurmurHash3."""
    bits = (bits ^ bits >> 16) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ bits >> 13) * jnp.uint32(0xC2B2AE35)
    return bits ^ bits >> 16
