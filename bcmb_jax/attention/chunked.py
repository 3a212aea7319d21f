# SPDX-License-Identifier: Apache-2.0
"""Global layers in tiles, forward and backward, in plain XLA: memory O(L), and only the tiles that
some query sees.

A tile of queries meets tiles of keys one by one with a running softmax. Which ones comes from the
key intervals, so a packed row costs the sum of its documents' squares, not the square of its
length, and a wide window costs its width. In long rows, keys that all of the queries see are taken
in large tiles without a mask, and those before and behind them in small ones, which reach less far
into other documents.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from bcmb_jax.attention.heads import for_each_head
from bcmb_jax.attention.mask import LEAST, MASKED, visible, visited_keys, whole_keys
from bcmb_jax.linear import accumulator, product, row_major_transpose

QUERIES, KEYS, WHOLE = 512, 256, 1024
"""Tiles of long rows on a CPU: smaller ones wait more, larger ones leave the cache."""


@dataclasses.dataclass(frozen=True)
class Chunked:
    """A `vjp.Kernel` for any key intervals.

    Attributes:
      queries: of a tile; rows are filled up to a multiple of it.
      keys: of a tile; divides `queries`.
      whole: keys of a tile that all queries see: a multiple of `keys`, and fewer than a row's,
        since XLA would compute a tile that is the whole row before it asks whether it is seen.
        0 to take these too in tiles of `keys`.
    """

    queries: int
    keys: int
    whole: int

    @classmethod
    def for_rows(cls, length: int) -> "Chunked":
        if length > WHOLE:
            return cls(QUERIES, KEYS, WHOLE)
        tile = min(QUERIES, -(-length // 64) * 64)
        return cls(tile, tile, 0)

    def forward(self, q, k, v, start, end):
        return for_each_head(self._forward_row, (q, k, v), (), (start, end), self.queries)

    def backward(self, q, k, v, start, end, dout, lse, delta):
        heads, queries = (q, k, v, dout), (lse, delta)
        return for_each_head(self._backward_row, heads, queries, (start, end), self.queries)

    def _forward_row(self, start, end):
        sight = self._sight(start, end)

        def head(q, k, v):
            def queries(args):
                q, sight = args

                def meet(keys, masked, carry):
                    top, total, out = carry
                    scores = product(q, keys.of(k), (1,), (1,))
                    if masked:
                        scores = _mask(scores, sight, keys, queries_axis=0)
                    new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
                    shrink = jnp.exp(top - new_top)
                    weights = jnp.exp(scores - new_top)
                    total = total * shrink + weights.sum(-1, keepdims=True)
                    out = out * shrink + product(weights.astype(q.dtype), keys.of(v), (1,), (0,))
                    return new_top, total, out

                zeros = jnp.zeros((len(q), 1), accumulator(q.dtype))
                carry = zeros + LEAST, zeros, jnp.zeros(q.shape, zeros.dtype)
                top, total, out = self._over_keys(meet, sight, carry)
                total = jnp.maximum(total, 1e-37)
                return (out / total).astype(q.dtype), (top + jnp.log(total))[:, 0]

            out, lse = lax.map(queries, (self._tiles(q), sight))
            return out.reshape(q.shape), lse.reshape(-1)

        return head

    def _backward_row(self, start, end):
        """From key-major scores (see `banded`)."""
        sight = self._sight(start, end)

        def head(q, k, v, dout, lse, delta):
            dtype = q.dtype
            k_transposed = row_major_transpose(k)

            def queries(dk_dv, args):
                q, dout, lse, delta, sight = args

                def meet(keys, masked, carry):
                    dq, dk, dv = carry
                    scores = product(keys.of(k), q, (1,), (1,))
                    if masked:
                        scores = _mask(scores, sight, keys, queries_axis=1)
                    weights = jnp.exp(scores - lse[None, :])
                    dweights = product(keys.of(v), dout, (1,), (1,))
                    dscores = (weights * (dweights - delta[None, :])).astype(dtype)
                    dk = keys.add(dk, product(dscores, q, (1,), (0,)))
                    dv = keys.add(dv, product(weights.astype(dtype), dout, (1,), (0,)))
                    return dq + product(keys.of(k_transposed, 1), dscores, (1,), (0,)), dk, dv

                zeros = jnp.zeros(q.shape[::-1], dk_dv[0].dtype)
                dq, dk, dv = self._over_keys(meet, sight, (zeros, *dk_dv))
                # The barrier: see `banded`.
                return (dk, dv), lax.optimization_barrier(dq).T.astype(dtype)

            zeros = jnp.zeros(k.shape, accumulator(dtype))
            per_query = (*(self._tiles(x) for x in (q, dout, lse, delta)), sight)
            (dk, dv), dq = lax.scan(queries, (zeros, zeros), per_query)
            return dq.reshape(q.shape), dk.astype(dtype), dv.astype(dtype)

        return head

    def _sight(self, start: jax.Array, end: jax.Array) -> "_Sight":
        first, stop = visited_keys(start, end, self.queries, self.keys)
        bounds = [first, stop]
        if self.whole:
            whole, rest = whole_keys(start, end, self.queries, self.keys)
            bounds[1:1] = whole, rest - (rest - whole) % (self.whole // self.keys)
        return _Sight(self._tiles(start), self._tiles(end), bounds)

    def _over_keys(self, meet: Callable, sight: "_Sight", carry: tuple) -> tuple:
        """`carry = meet(keys, masked, carry)`, over all keys that the queries of a tile see."""

        def turn(first, size, masked, j, carry):
            return meet(_Keys(first * self.keys + j * size, size), masked, carry)

        tiles = itertools.cycle([(self.keys, True), (self.whole, False)])
        for (first, stop), tile in zip(itertools.pairwise(sight.bounds), tiles, strict=False):
            turns = (stop - first) * self.keys // tile[0]
            carry = lax.fori_loop(0, turns, functools.partial(turn, first, *tile), carry)
        return carry

    def _tiles(self, x: jax.Array) -> jax.Array:
        return x.reshape(-1, self.queries, *x.shape[1:])


class _Sight(NamedTuple):
    """What the queries of a tile see, for every tile of a row."""

    start: jax.Array
    """`[tiles, queries]`, as `end`: the key intervals."""
    end: jax.Array
    bounds: list[jax.Array]
    """`[tiles]` each, in units of `Chunked.keys`: of the keys that any query sees, and between them
    of those that are taken whole."""


class _Keys(NamedTuple):
    """A tile of keys."""

    first: jax.Array
    size: int

    def of(self, x: jax.Array, axis: int = 0) -> jax.Array:
        return lax.dynamic_slice_in_dim(x, self.first, self.size, axis)

    def add(self, total: jax.Array, x: jax.Array) -> jax.Array:
        return lax.dynamic_update_slice_in_dim(total, self.of(total) + x, self.first, 0)


def _mask(scores: jax.Array, sight: _Sight, keys: _Keys, queries_axis: int) -> jax.Array:
    """`scores` of queries with `keys`, the unseen ones `MASKED`."""
    start, end = (jnp.expand_dims(x, 1 - queries_axis) for x in (sight.start, sight.end))
    numbers = jnp.expand_dims(keys.first + jnp.arange(keys.size), queries_axis)
    return jnp.where(visible(start, end, numbers), scores, MASKED)
