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
def dropout(
    x: Float[Array, "B L D"], words: UInt32[Array, "B 2"], rate: float
) -> Float[Array, "B L D"]:
    """Return `x` with a `rate` of its elements zeroed and the others divided by `1 - rate`.

    Row `b` depends on `words[b]` (see `row_words`) alone, so that a row drops the same elements on
    any number of devices and in any microbatch.
    """
    first, second = (words[:, i].reshape(-1, 1, 1) for i in (0, 1))
    return x * kept(elements(x.shape[1:]), first, second, rate).astype(x.dtype)


@jax.named_scope("dropout")
def row_words(keys: Key[Array, " B"], layers: int) -> UInt32[Array, "{layers} B 2"]:
    """Return the two random words of each layer and row that its mask starts from."""
    # For all layers at once: on a GPU each would ask for launches of its own, and again backward.

    def words(key: Array, layer: Array) -> Array:
        return jax.random.bits(jax.random.fold_in(key, layer), (2,), jnp.uint32)

    over_rows = jax.vmap(words, in_axes=(0, None))
    return jax.vmap(over_rows, in_axes=(None, 0))(keys, jnp.arange(layers))


def elements(shape: tuple[int, ...]) -> UInt32[Array, "1 L D"]:
    """Return the number of each element of a row `[L, D]`."""
    token, column = (lax.broadcasted_iota(jnp.uint32, (1, *shape), axis) for axis in (1, 2))
    return token * shape[1] + column


def kept(
    element: UInt32[Array, "..."],
    first: UInt32[Array, "..."],
    second: UInt32[Array, "..."],
    rate: float,
) -> Float[Array, "..."]:
    """Return 0 for a `rate` of the elements and `1 / (1 - rate)` for the others, fp32."""
    uniform = (random_bits(element, first, second) >> 9).astype(jnp.int32).astype(jnp.float32)
    # Not a choice between `x` and 0, nor a product with what was compared, of which XLA makes one:
    # it would keep one array of zeros, as large as `x`, for all layers, and read it in each.
    return jnp.floor(uniform * 2.0**-23 + (1.0 - rate)) / (1.0 - rate)


def random_bits(
    element: UInt32[Array, "..."], first: UInt32[Array, "..."], second: UInt32[Array, "..."]
) -> UInt32[Array, "..."]:
    """Return a random word for each element of a row from the row's two words."""
    # With one word, masks of rows whose words share their upper bits would be the same, reordered.
    return _mixed(_mixed(element ^ first) ^ second)


def _mixed(bits: Array) -> Array:
    """Return words whose every bit depends on all of `bits`: the finalizer of MurmurHash3."""
    bits = (bits ^ bits >> 16) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ bits >> 13) * jnp.uint32(0xC2B2AE35)
    return bits ^ bits >> 16
