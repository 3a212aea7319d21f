# SPDX-License-Identifier: Apache-2.0
"""Dropout by a hash of each element's place.

`jax.random` runs the twenty rounds of Threefry for each element, forward and again backward, which
on a GPU takes longer than moving the elements does. A mask needs no more than that no element's
fate says anything of another's, for which the two rounds here will do (`tests/test_dropout.py`);
the words they start from are `jax.random`'s.
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
    token, column = (lax.broadcasted_iota(jnp.uint32, (1, *x.shape[1:]), axis) for axis in (1, 2))
    bits = _mixed(_mixed((token * x.shape[2] + column) ^ words[:, 0]) ^ words[:, 1])
    uniform = (bits >> 9).astype(jnp.int32).astype(x.dtype) * 2.0**-23
    # Not a choice between `x` and 0: XLA would keep one array of zeros, as large as `x`, for all
    # layers, and read it in each.
    return x * (jnp.floor(uniform + (1.0 - rate)) / (1.0 - rate))


def _mixed(bits: jax.Array) -> jax.Array:
    """Each of 32 bits of the result depends on all of `bits`: the end of MurmurHash3."""
    bits = (bits ^ bits >> 16) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ bits >> 13) * jnp.uint32(0xC2B2AE35)
    return bits ^ bits >> 16
