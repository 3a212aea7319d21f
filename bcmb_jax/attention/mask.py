# SPDX-License-Identifier: Apache-2.0
"""The keys that a query sees: one contiguous interval, the contract of every attention kernel.

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

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int

MASKED = -1e30
"""Score of an unseen key: finite, so that a row without keys gives no NaN."""

LEAST = -1e29
"""Lower bound of a query's maximal score: far above `MASKED`, so that unseen keys weigh exactly
nothing also where nothing is seen, and far below any score."""


def key_intervals(
    segment_ids: Int[ArrayLike, "B L"], window: int | None
) -> tuple[Int[Array, "B L"], Int[Array, "B L"]]:
    """Return `(start, end)`, int32: query `i` sees the keys `start[i] <= j < end[i]`."""
    segment_ids = jnp.asarray(segment_ids)
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


def segment_positions(segment_ids: Int[ArrayLike, "B L"]) -> Int[Array, "B L"]:
    """Return the position of each token in its segment, from 0; 0 in padding."""
    start, end = key_intervals(segment_ids, None)
    position = lax.broadcasted_iota(jnp.int32, start.shape, 1)
    return jnp.where(end > start, position - start, 0)


def visible(
    start: Int[Array, "*#N"], end: Int[Array, "*#N"], keys: Int[Array, "*#N"]
) -> Bool[Array, "*N"]:
    """Return whether the key numbers `keys` lie in `[start, end)`, broadcast together."""
    return (keys >= start) & (keys < end)


def visited_keys(
    start: Int[Array, "*N L"], end: Int[Array, "*N L"], queries: int, keys: int
) -> tuple[Int[Array, "*N blocks"], Int[Array, "*N blocks"]]:
    """Return `(first, stop)` for each block of `queries` queries of a row.

    The block sees keys of the blocks `first <= j < stop` of `keys` keys only; `stop` is 0 where it
    sees none.
    """
    start, end = (x.reshape(*x.shape[:-1], -1, queries) for x in (start, end))
    empty = end <= start
    first = jnp.where(empty, 2**31 - 1, start).min(-1) // keys
    return first, -(-jnp.where(empty, 0, end).max(-1) // keys)


def fully_visible_keys(
    start: Int[Array, "*N L"], end: Int[Array, "*N L"], queries: int, keys: int
) -> tuple[Int[Array, "*N blocks"], ...]:
    """Return `(first, unmasked, masked, stop)` for each block of `queries` queries of a row.

    `first` and `stop` are those of `visited_keys`. Of the key blocks `unmasked <= j < masked`
    between them, all queries of the block see all keys; `masked` is `unmasked` where there are
    none.
    """
    first, stop = visited_keys(start, end, queries, keys)
    start, end = (x.reshape(*x.shape[:-1], -1, queries) for x in (start, end))
    unmasked = jnp.clip(-(-start.max(-1) // keys), first, stop)
    return first, unmasked, jnp.clip(end.min(-1) // keys, unmasked, stop), stop


def visited_queries(
    start: Int[Array, "*N L"], end: Int[Array, "*N L"], block: int
) -> tuple[Int[Array, "*N blocks"], Int[Array, "*N blocks"]]:
    """Return `(first, stop)` for each block of keys: queries of `first <= i < stop` see them.

    The transpose of `visited_keys` for blocks of `block` queries and keys.
    """
    first, stop = (x[..., None] for x in visited_keys(start, end, block, block))
    blocks = first.shape[-2]
    query = lax.broadcasted_iota(jnp.int32, (*first.shape[:-1], blocks), first.ndim - 2)
    key = lax.broadcasted_iota(jnp.int32, query.shape, first.ndim - 1)
    seen = visible(first, stop, key)
    return jnp.where(seen, query, blocks).min(-2), jnp.where(seen, query + 1, 0).max(-2)
