# SPDX-License-Identifier: Apache-2.0
"""Global layers in tiles, forward and backward, in plain XLA, in O(L) memory.

A tile of queries visits tiles of keys one by one with a running softmax. Which ones comes from the
key intervals, so that a packed row costs the sum of its documents' squares, not the square of its
length, and a wide window costs its width. In long rows, keys that all of the queries see are taken
in large tiles without a mask, and those before and behind them in small ones, which reach less far
into other documents.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from bcmb_jax.attention.kernel import Arrays, Bounds, HeadKernel, Heads, Queries, for_each_head
from bcmb_jax.attention.mask import LEAST, MASKED, fully_visible_keys, visible
from bcmb_jax.ops.cpu import bf16_to_bits, bits_to_bf16, row_major_transpose, runs_heads_in_turn
from bcmb_jax.ops.linear import accumulation_dtype, dot

TILE = 512  # queries, and keys: on a CPU smaller tiles wait more, larger ones leave the cache
MASKED_KEYS, UNMASKED_KEYS = 256, 1024  # keys of a tile in rows longer than `UNMASKED_KEYS`


@dataclasses.dataclass(frozen=True)
class Chunked:
    """The `Kernel` for any key intervals.

    Attributes:
      queries: queries of a tile; rows are padded to a multiple of it.
      masked_keys: keys of a tile with a mask; divides `queries`.
      unmasked_keys: keys of a tile without a mask, all of which all queries see: a multiple of
        `masked_keys`, or 0 for no such tiles. Never as long as the row: the tile's product would
        not change from turn to turn, and XLA would move it out of the loop, where it is computed
        even for no turn.
    """

    queries: int
    masked_keys: int
    unmasked_keys: int

    @classmethod
    def for_rows(cls, length: int) -> "Chunked":
        """Return the kernel for rows of `length` tokens."""
        # Where all rows take their turns together, a loop lasts as long as its slowest row.
        if length > UNMASKED_KEYS and runs_heads_in_turn():
            return cls(TILE, MASKED_KEYS, UNMASKED_KEYS)
        tile = min(TILE, -(-length // 64) * 64)
        return cls(tile, tile, 0)

    def forward(self, heads: Heads, bounds: Bounds) -> Arrays:
        """Return the output and the log-sum-exps (see `Kernel`)."""
        return for_each_head(self._forward_row, heads, bounds, (), self.queries)

    def backward(self, heads: Heads, bounds: Bounds, queries: Queries) -> Arrays:
        """Return the gradients of queries, keys and values (see `Kernel`)."""
        return for_each_head(self._backward_row, heads, bounds, queries, self.queries)

    def _forward_row(self, start: Array, end: Array) -> HeadKernel:
        tiles = self._query_tiles(start, end)

        def head(q: Array, k: Array, v: Array) -> Arrays:
            def query_tile(args: tuple[Array, _QueryTiles]) -> Arrays:
                q, tile = args

                def key_tile(keys: _KeyTile, masked: bool, carry: Arrays) -> Arrays:
                    top, total, out = carry
                    scores = dot("qd,kd->qk", q, keys.slice(k))
                    if masked:
                        scores = _mask(scores, tile, keys, queries_axis=0)
                    new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
                    shrink = jnp.exp(top - new_top)
                    # Fidelity: the sum is of weights as they multiply `v`, rounded; upstream's is
                    # of them before. Here that saves an fp32 copy of every tile.
                    weights = jnp.exp(scores - new_top).astype(q.dtype)
                    total = total * shrink + weights.astype(total.dtype).sum(-1, keepdims=True)
                    out = out * shrink + dot("qk,kd->qd", weights, keys.slice(v))
                    return new_top, total, out

                zeros = jnp.zeros((len(q), 1), accumulation_dtype(q.dtype))
                carry = zeros + LEAST, zeros, jnp.zeros(q.shape, zeros.dtype)
                top, total, out = self._over_keys(key_tile, tile, carry)
                total = jnp.maximum(total, 1e-37)
                return bf16_to_bits((out / total).astype(q.dtype)), (top + jnp.log(total))[:, 0]

            out, lse = lax.map(query_tile, (self._split(q), tiles))
            return bits_to_bf16(out.reshape(q.shape)), lse.reshape(-1)

        return head

    def _backward_row(self, start: Array, end: Array) -> HeadKernel:
        """Return the gradient of a head, from key-major scores (see `banded`)."""
        tiles = self._query_tiles(start, end)

        def head(q: Array, k: Array, v: Array, dout: Array, lse: Array, delta: Array) -> Arrays:
            dtype = q.dtype
            k_transposed = row_major_transpose(k)

            def query_tile(
                dk_dv: tuple[Array, Array], args: tuple[Array, Array, Array, Array, _QueryTiles]
            ) -> tuple[tuple[Array, Array], Array]:
                q, dout, lse, delta, tile = args

                def key_tile(keys: _KeyTile, masked: bool, carry: Arrays) -> Arrays:
                    dq, dk, dv = carry
                    scores = dot("kd,qd->kq", keys.slice(k), q)
                    if masked:
                        scores = _mask(scores, tile, keys, queries_axis=1)
                    weights = jnp.exp(scores - lse[None, :])
                    dweights = dot("kd,qd->kq", keys.slice(v), dout)
                    dscores = (weights * (dweights - delta[None, :])).astype(dtype)
                    dk = keys.add(dk, dot("kq,qd->kd", dscores, q))
                    dv = keys.add(dv, dot("kq,qd->kd", weights.astype(dtype), dout))
                    return dq + dot("dk,kq->dq", keys.slice(k_transposed, 1), dscores), dk, dv

                zeros = jnp.zeros(q.shape[::-1], dk_dv[0].dtype)
                dq, dk, dv = self._over_keys(key_tile, tile, (zeros, *dk_dv))
                # The barrier: see `banded`.
                return (dk, dv), bf16_to_bits(lax.optimization_barrier(dq).T.astype(dtype))

            zeros = jnp.zeros(k.shape, accumulation_dtype(dtype))
            split = self._split
            per_query = split(q), split(dout), split(lse), split(delta), tiles
            (dk, dv), dq = lax.scan(query_tile, (zeros, zeros), per_query)
            return bits_to_bf16(dq.reshape(q.shape)), dk.astype(dtype), dv.astype(dtype)

        return head

    def _query_tiles(self, start: Array, end: Array) -> "_QueryTiles":
        bounds = fully_visible_keys(start, end, self.queries, self.masked_keys)
        first, unmasked, masked, stop = (x * self.masked_keys for x in bounds)
        between = masked - unmasked
        masked -= between % self.unmasked_keys if self.unmasked_keys else between
        return _QueryTiles(self._split(start), self._split(end), first, unmasked, masked, stop)

    def _over_keys(
        self,
        key_tile: "Callable[[_KeyTile, bool, Arrays], Arrays]",
        tile: "_QueryTiles",
        carry: Arrays,
    ) -> Arrays:
        """Run `carry = key_tile(keys, masked, carry)` over all keys that a tile of queries sees."""
        _, _, first, unmasked, masked, stop = tile

        def with_mask(j: Array, carry: Arrays) -> Arrays:
            key = first + j * self.masked_keys
            key = jnp.where(key < unmasked, key, key + masked - unmasked)
            return key_tile(_KeyTile(key, self.masked_keys), True, carry)

        def without_mask(j: Array, carry: Arrays) -> Arrays:
            keys = _KeyTile(unmasked + j * self.unmasked_keys, self.unmasked_keys)
            return key_tile(keys, False, carry)

        turns = (unmasked - first + stop - masked) // self.masked_keys
        carry = lax.fori_loop(0, turns, with_mask, carry)
        if self.unmasked_keys:
            turns = (masked - unmasked) // self.unmasked_keys
            carry = lax.fori_loop(0, turns, without_mask, carry)
        return carry

    def _split(self, x: Array) -> Array:
        return x.reshape(-1, self.queries, *x.shape[1:])


class _QueryTiles(NamedTuple):
    """The tiles of queries of a row, and which keys each of them sees."""

    start: Array
    """`[tiles, queries]`, as `end`: the key intervals."""
    end: Array
    first: Array
    """`[tiles]`, as all that follow: any query sees keys `first <= j < stop` only, and keys
    `unmasked <= j < masked` are taken in tiles of `Chunked.unmasked_keys`."""
    unmasked: Array
    masked: Array
    stop: Array


class _KeyTile(NamedTuple):
    """A tile of keys, `first <= j < first + size`."""

    first: Array
    size: int

    def slice(self, x: Array, axis: int = 0) -> Array:
        """Return these keys of `x`."""
        return bits_to_bf16(lax.dynamic_slice_in_dim(bf16_to_bits(x), self.first, self.size, axis))

    def add(self, total: Array, x: Array) -> Array:
        """Return `total` with `x` added to these keys."""
        return lax.dynamic_update_slice_in_dim(total, self.slice(total) + x, self.first, 0)


def _mask(scores: Array, tile: _QueryTiles, keys: _KeyTile, queries_axis: int) -> Array:
    """Return `scores` of queries with `keys`, the unseen ones `MASKED`."""
    start, end = (jnp.expand_dims(x, 1 - queries_axis) for x in (tile.start, tile.end))
    numbers = jnp.expand_dims(keys.first + jnp.arange(keys.size), queries_axis)
    return jnp.where(visible(start, end, numbers), scores, MASKED)
