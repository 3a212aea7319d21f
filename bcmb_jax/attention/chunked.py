# SPDX-License-Identifier: Apache-2.0
"""Global layers in tiles, forward and backward, in plain XLA: memory O(L), and only the tiles that
some query sees.

A tile of queries meets the tiles of keys one by one with a running softmax. Which ones comes from
the key intervals, so a packed row costs the sum of its documents' squares, not the square of its
length, and a wide window costs its width. Tiles that all of its queries see whole are not masked.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from bcmb_jax.attention.heads import for_each_head
from bcmb_jax.attention.mask import LEAST, MASKED, visible, visited_keys
from bcmb_jax.linear import accumulator, product, row_major_transpose

TILE = 512  # of queries and of keys: on a CPU larger ones leave the cache, smaller ones wait more


@dataclasses.dataclass(frozen=True)
class Chunked:
    """A `vjp.Kernel` for any key intervals, in tiles of `tile` queries and keys."""

    tile: int = TILE

    def forward(self, q, k, v, start, end):
        return for_each_head(self._forward_row, (q, k, v), (), (start, end), self.tile)

    def backward(self, q, k, v, start, end, dout, lse, delta):
        heads, queries = (q, k, v, dout), (lse, delta)
        return for_each_head(self._backward_row, heads, queries, (start, end), self.tile)

    def _forward_row(self, start, end):
        tile, sight = self.tile, _sight(start, end, self.tile)

        def head(q, k, v):
            def queries(args):
                q, sight = args

                def keys(j, carry):
                    top, total, out = carry
                    k_tile, v_tile = (_slice(x, j, tile) for x in (k, v))
                    scores = _mask(product(q, k_tile, (1,), (1,)), sight, j, queries_axis=0)
                    new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
                    shrink = jnp.exp(top - new_top)
                    weights = jnp.exp(scores - new_top)
                    total = total * shrink + weights.sum(-1, keepdims=True)
                    out = out * shrink + product(weights.astype(q.dtype), v_tile, (1,), (0,))
                    return new_top, total, out

                zeros = jnp.zeros((tile, 1), accumulator(q.dtype))
                carry = zeros + LEAST, zeros, jnp.zeros(q.shape, zeros.dtype)
                top, total, out = lax.fori_loop(sight.first, sight.stop, keys, carry)
                total = jnp.maximum(total, 1e-37)
                return (out / total).astype(q.dtype), (top + jnp.log(total))[:, 0]

            out, lse = lax.map(queries, (_tiles(q, tile), sight))
            return out.reshape(q.shape), lse.reshape(-1)

        return head

    def _backward_row(self, start, end):
        """From key-major scores (see `banded`)."""
        tile, sight = self.tile, _sight(start, end, self.tile)

        def head(q, k, v, dout, lse, delta):
            dtype = q.dtype
            k_transposed = row_major_transpose(k)

            def queries(dk_dv, args):
                q, dout, lse, delta, sight = args

                def keys(j, carry):
                    dq, dk, dv = carry
                    k_tile, v_tile = (_slice(x, j, tile) for x in (k, v))
                    scores = _mask(product(k_tile, q, (1,), (1,)), sight, j, queries_axis=1)
                    weights = jnp.exp(scores - lse[None, :])
                    dweights = product(v_tile, dout, (1,), (1,))
                    dscores = (weights * (dweights - delta[None, :])).astype(dtype)
                    dk = _add_at(dk, product(dscores, q, (1,), (0,)), j)
                    dv = _add_at(dv, product(weights.astype(dtype), dout, (1,), (0,)), j)
                    k_columns = lax.dynamic_slice_in_dim(k_transposed, j * tile, tile, axis=1)
                    return dq + product(k_columns, dscores, (1,), (0,)), dk, dv

                zeros = jnp.zeros(q.shape[::-1], dk_dv[0].dtype)
                dq, dk, dv = lax.fori_loop(sight.first, sight.stop, keys, (zeros, *dk_dv))
                # The barrier: see `banded`.
                return (dk, dv), lax.optimization_barrier(dq).T.astype(dtype)

            zeros = jnp.zeros(k.shape, accumulator(dtype))
            per_query = (*(_tiles(x, tile) for x in (q, dout, lse, delta)), sight)
            (dk, dv), dq = lax.scan(queries, (zeros, zeros), per_query)
            return dq.reshape(q.shape), dk.astype(dtype), dv.astype(dtype)

        return head


class _Sight(NamedTuple):
    """What the queries of a tile see, for every tile of a row."""

    start: jax.Array
    """`[tiles, tile]`, as `end`: the queries' key intervals."""
    end: jax.Array
    first: jax.Array
    """`[tiles]`, as `stop`: the tiles of keys that any of them sees; none for padding."""
    stop: jax.Array


def _sight(start: jax.Array, end: jax.Array, tile: int) -> _Sight:
    return _Sight(_tiles(start, tile), _tiles(end, tile), *visited_keys(start, end, tile))


def _mask(scores: jax.Array, sight: _Sight, j: jax.Array, queries_axis: int) -> jax.Array:
    """`scores` of a tile of queries with the keys of tile `j`, the unseen ones `MASKED`."""
    tile = scores.shape[0]

    def mask(scores: jax.Array) -> jax.Array:
        keys = j * tile + jnp.arange(tile)
        start, end, keys = (
            jnp.expand_dims(x, axis)
            for x, axis in (
                (sight.start, 1 - queries_axis),
                (sight.end, 1 - queries_axis),
                (keys, queries_axis),
            )
        )
        return jnp.where(visible(start, end, keys), scores, MASKED)

    whole = (sight.start.max() <= j * tile) & (sight.end.min() >= (j + 1) * tile)
    return lax.cond(whole, lambda scores: scores, mask, scores)


def _tiles(x: jax.Array, tile: int) -> jax.Array:
    return x.reshape(-1, tile, *x.shape[1:])


def _slice(x: jax.Array, j: jax.Array, tile: int) -> jax.Array:
    return lax.dynamic_slice_in_dim(x, j * tile, tile)


def _add_at(total: jax.Array, tile: jax.Array, j: jax.Array) -> jax.Array:
    present = _slice(total, j, len(tile))
    return lax.dynamic_update_slice_in_dim(total, present + tile, j * len(tile), 0)
