# SPDX-License-Identifier: Apache-2.0
"""Running a one-head kernel over every row and head of a batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def split_heads(x: jax.Array) -> jax.Array:
    """`[B, L, H, D]` → `[B·H, L, D]`."""
    batch, length, heads, size = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch * heads, length, size)


def merge_heads(x: jax.Array, heads: int) -> jax.Array:
    """`[B·H, L, D]` → `[B, L, H, D]`."""
    _, length, size = x.shape
    return x.reshape(-1, heads, length, size).transpose(0, 2, 1, 3)


def pad_length(x: jax.Array, block: int) -> jax.Array:
    """`x` `[N, L, ...]` with zeros appended to the next multiple of `block` along axis 1."""
    missing = -x.shape[1] % block
    return jnp.pad(x, ((0, 0), (0, missing)) + ((0, 0),) * (x.ndim - 2)) if missing else x


def pad_and_split(
    heads: tuple[jax.Array, ...], rows: tuple[jax.Array, ...], block: int
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """`[B, L, H, D]` → `[B·H, L, D]` and `[B, L]`, all with `L` a multiple of `block`."""
    split = tuple(pad_length(split_heads(x), block) for x in heads)
    return split, tuple(pad_length(x, block) for x in rows)


def for_each_head(
    kernel: Callable, per_head: tuple[jax.Array, ...], per_row: tuple[jax.Array, ...]
):
    """`kernel(*arrays_of_one_head, *arrays_of_its_row)`, stacked over `[B·H, ...]`.

    On CPU one head at a time, which keeps its scores in cache (a third faster at 4,096 tokens than
    all heads at once); on other devices all heads in one batch.
    """
    heads = per_head[0].shape[0] // per_row[0].shape[0]
    rows = jnp.arange(per_head[0].shape[0]) // heads

    def one(head: tuple[jax.Array, ...], row: jax.Array, per_row: tuple[jax.Array, ...]):
        return kernel(*head, *(lax.dynamic_index_in_dim(x, row, keepdims=False) for x in per_row))

    def in_turn(per_head, per_row):
        return lax.map(lambda item: one(*item, per_row), (per_head, rows))

    def at_once(per_head, per_row):
        return jax.vmap(one, in_axes=(0, 0, None))(per_head, rows, per_row)

    return lax.platform_dependent(per_head, per_row, cpu=in_turn, default=at_once)
