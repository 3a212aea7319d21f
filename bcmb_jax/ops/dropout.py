# SPDX-License-Identifier: Apache-2.0
"""Dropout by a hash of each element's row, token and column.

`jax.random` runs twenty rounds of Threefry for each element, forward and again backward: on a GPU
more work than everything else between two products. A mask only needs elements that are
uncorrelated, for which two rounds of a plain hash will do (`tests/ops/test_dropout.py`); the words
that they start from are `jax.random`'s.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, UInt32


@jax.named_scope("dropout")
def dropout(x: Float[Array, "B L D"], keys: Key[Array, " B"], rate: float) -> Float[Array, "B L D"]:
    """Return `x` with a `rate` of its elements zeroed and the others divided by `1 - rate`.

    Row `b` depends on `keys[b]` alone, so that a row drops the same elements on any number of
    devices and in any microbatch.
    """
    words = jax.vmap(lambda key: jax.random.bits(key, (2, 1, 1), jnp.uint32))(keys)
    bits = random_bits(words[:, 0], words[:, 1], (x.shape[1], x.shape[2]))
    uniform = (bits >> 9).astype(jnp.int32).astype(jnp.float32) * 2.0**-23
    # Not a choice between `x` and 0, nor a product with what was compared, of which XLA makes one:
    # it would keep one array of zeros, as large as `x`, for all layers, and read it in each.
    factor = jnp.floor(uniform + (1.0 - rate)) / (1.0 - rate)
    return x * factor.astype(x.dtype)


def random_bits(
    first: UInt32[Array, "B 1 1"], second: UInt32[Array, "B 1 1"], shape: tuple[int, int]
) -> UInt32[Array, "B ..."]:
    """Return `[B, *shape]` random words from two words of each row."""
    row, column = (lax.broadcasted_iota(jnp.uint32, (1, *shape), axis) for axis in (1, 2))
    # With one word, masks of rows whose words share their upper bits would be the same, reordered.
    return _mixed(_mixed((row * shape[1] + column) ^ first) ^ second)


def _mixed(bits: Array) -> Array:
    """Return words whose every bit depends on all of `bits`: the finalizer of MurmurHash3."""
    bits = (bits ^ bits >> 16) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ bits >> 13) * jnp.uint32(0xC2B2AE35)
    return bits ^ bits >> 16
