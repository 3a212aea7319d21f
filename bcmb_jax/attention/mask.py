# SPDX-License-Identifier: Apache-2.0
"""Which keys a query sees: one contiguous interval, the contract of every attention kernel.

In a packed row, segment ids are 1, 2, … in contiguous runs and 0 is padding. Query `i` sees the
keys `[max(segment_start, i - window), min(segment_end, i + window + 1))`; `window=None` is a
global layer.
Two segments and a padding position, window 1 (`#` is seen):

    segment_ids  1 1 1 2 2 0          start  0 0 1 3 3 0
    query 0      # # . . . .          end    2 3 3 5 5 0
    query 1      # # # . . .
    query 2      . # # . . .
    query 3      . . . # # .
    query 4      . . . # # .
    query 5      . . . . . .          (padding sees nothing; its output is 0)
"""

import jax
import jax.numpy as jnp
from jax import lax

MASKED = -1e30
"""The score of an unseen key: finite, so that a row without keys gives no NaN."""

LEAST = -1e29
"""The least maximum of a query's scores: far above `MASKED`, so that unseen keys weigh exactly
nothing also where nothing is seen, and far below any score."""


def key_intervals(segment_ids: jax.Array, window: int | None) -> tuple[jax.Array, jax.Array]:
    """`(start, end)`, each `[B, L]` int32: query `i` sees the keys `start[i] <= j < end[i]`."""
    position = lax.broadcasted_iota(jnp.int32, segment_ids.shape, 1)
    length = segment_ids.shape[1]
    change = segment_ids[:, 1:] != segment_ids[:, :-1]
    edge = jnp.ones_like(change[:, :1], shape=(segment_ids.shape[0], 1))
    first = jnp.concatenate([edge, change], axis=1)
    last = jnp.concatenate([change, edge], axis=1)
    start = lax.cummax(jnp.where(first, position, 0), axis=1)
    end = lax.cummin(jnp.where(last, position + 1, length), axis=1, reverse=True)
    if window is not None:
        start = jnp.maximum(start, position - window)
        end = jnp.minimum(end, position + window + 1)
    padding = segment_ids == 0
    return jnp.where(padding, 0, start), jnp.where(padding, 0, end)


def segment_positions(segment_ids: jax.Array) -> jax.Array:
    """`[B, L]` int32: the position of each token in its segment, from 0; 0 in padding."""
    start, end = key_intervals(segment_ids, None)
    position = lax.broadcasted_iota(jnp.int32, segment_ids.shape, 1)
    return jnp.where(end > start, position - start, 0)


def visible(start: jax.Array, end: jax.Array, keys: jax.Array) -> jax.Array:
    """Bool: whether the key numbers `keys` lie in `[start, end)` (broadcast together)."""
    return (keys >= start) & (keys < end)


def visited_keys(
    start: jax.Array, end: jax.Array, queries: int, keys: int
) -> tuple[jax.Array, jax.Array]:
    """`(first, stop)`, `[..., L / queries]`: a block of `queries` queries sees keys of the blocks
    `first <= j < stop` of `keys` keys only; `stop` is 0 where it sees none."""
    start, end = (x.reshape(*x.shape[:-1], -1, queries) for x in (start, end))
    empty = end <= start
    first = jnp.where(empty, jnp.iinfo(jnp.int32).max, start).min(-1) // keys
    return first, -(-jnp.where(empty, 0, end).max(-1) // keys)


def whole_keys(
    start: jax.Array, end: jax.Array, queries: int, keys: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """`(first, whole, rest, stop)`: those of `visited_keys`, and between them the blocks
    `whole <= j < rest`, of which all queries of a block see all keys; `rest` is `whole` where there
    are none."""
    first, stop = visited_keys(start, end, queries, keys)
    start, end = (x.reshape(*x.shape[:-1], -1, queries) for x in (start, end))
    whole = jnp.clip(-(-start.max(-1) // keys), first, stop)
    return first, whole, jnp.clip(end.min(-1) // keys, whole, stop), stop


def visited_queries(start: jax.Array, end: jax.Array, block: int) -> tuple[jax.Array, jax.Array]:
    """`visited_keys` the other way round: each block of keys is seen by queries of the blocks
    `first <= i < stop` only."""
    first, stop = (x[..., None] for x in visited_keys(start, end, block, block))
    blocks = first.shape[-2]
    query = lax.broadcasted_iota(jnp.int32, (*first.shape[:-1], blocks), first.ndim - 2)
    key = lax.broadcasted_iota(jnp.int32, query.shape, first.ndim - 1)
    seen = visible(first, stop, key)
    return jnp.where(seen, query, blocks).min(-2), jnp.where(seen, query + 1, 0).max(-2)
