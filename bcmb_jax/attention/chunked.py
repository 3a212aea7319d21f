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
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from bcmb_jax.attention.mask import LEAST, MASKED, visible, whole_keys
from bcmb_jax.attention.one_head import for_each_head
from bcmb_jax.device import on_cpu
from bcmb_jax.ops.cpu import bf16_to_bits, bits_to_bf16, row_major_transpose
from bcmb_jax.ops.linear import accumulation_dtype, dot

TILE = 512  # of queries and of keys: on a CPU smaller ones wait more, larger ones leave the cache
EDGE, WHOLE = 256, 1024  # of keys, where rows are longer than `WHOLE`


@dataclasses.dataclass(frozen=True)
class Chunked:
    """A `vjp.Kernel` for any key intervals.

    Attributes:
      queries: of a tile; rows are filled up to a multiple of it.
      keys: of a tile with a mask; divides `queries`.
      whole: keys of a tile without a mask, which all queries see: a multiple of `keys`. 0 for none.
        Never as long as the row: its product would not change from turn to turn, and XLA would
        move it out of the loop, where it is computed even for no turn.
    """

    queries: int
    keys: int
    whole: int

    @classmethod
    def for_rows(cls, length: int) -> "Chunked":
        # Elsewhere all rows take their turns together: a loop lasts as long as its slowest row.
        if length > WHOLE and on_cpu():
            return cls(TILE, EDGE, WHOLE)
        tile = min(TILE, -(-length // 64) * 64)
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
                    scores = dot(q, keys.of(k), (1,), (1,))
                    if masked:
                        scores = _mask(scores, sight, keys, queries_axis=0)
                    new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
                    shrink = jnp.exp(top - new_top)
                    # Fidelity: the sum is of weights as they multiply `v`, rounded; upstream's is
                    # of them before. Here that saves an fp32 copy of every tile.
                    weights = jnp.exp(scores - new_top).astype(q.dtype)
                    total = total * shrink + weights.astype(total.dtype).sum(-1, keepdims=True)
                    out = out * shrink + dot(weights, keys.of(v), (1,), (0,))
                    return new_top, total, out

                zeros = jnp.zeros((len(q), 1), accumulation_dtype(q.dtype))
                carry = zeros + LEAST, zeros, jnp.zeros(q.shape, zeros.dtype)
                top, total, out = self._over_keys(meet, sight, carry)
                total = jnp.maximum(total, 1e-37)
                return bf16_to_bits((out / total).astype(q.dtype)), (top + jnp.log(total))[:, 0]

            out, lse = lax.map(queries, (self._tiles(q), sight))
            return bits_to_bf16(out.reshape(q.shape)), lse.reshape(-1)

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
                    scores = dot(keys.of(k), q, (1,), (1,))
                    if masked:
                        scores = _mask(scores, sight, keys, queries_axis=1)
                    weights = jnp.exp(scores - lse[None, :])
                    dweights = dot(keys.of(v), dout, (1,), (1,))
                    dscores = (weights * (dweights - delta[None, :])).astype(dtype)
                    dk = keys.add(dk, dot(dscores, q, (1,), (0,)))
                    dv = keys.add(dv, dot(weights.astype(dtype), dout, (1,), (0,)))
                    return dq + dot(keys.of(k_transposed, 1), dscores, (1,), (0,)), dk, dv

                zeros = jnp.zeros(q.shape[::-1], dk_dv[0].dtype)
                dq, dk, dv = self._over_keys(meet, sight, (zeros, *dk_dv))
                # The barrier: see `banded`.
                return (dk, dv), bf16_to_bits(lax.optimization_barrier(dq).T.astype(dtype))

            zeros = jnp.zeros(k.shape, accumulation_dtype(dtype))
            per_query = (*(self._tiles(x) for x in (q, dout, lse, delta)), sight)
            (dk, dv), dq = lax.scan(queries, (zeros, zeros), per_query)
            return bits_to_bf16(dq.reshape(q.shape)), dk.astype(dtype), dv.astype(dtype)

        return head

    def _sight(self, start: jax.Array, end: jax.Array) -> "_Sight":
        bounds = whole_keys(start, end, self.queries, self.keys)
        first, whole, rest, stop = (x * self.keys for x in bounds)
        rest -= (rest - whole) % self.whole if self.whole else rest - whole
        return _Sight(self._tiles(start), self._tiles(end), first, whole, rest, stop)

    def _over_keys(self, meet: Callable, sight: "_Sight", carry: tuple) -> tuple:
        """`carry = meet(keys, masked, carry)`, over all keys that the queries of a tile see."""
        _, _, first, whole, rest, stop = sight

        def around(j, carry):
            at = first + j * self.keys
            return meet(_Keys(jnp.where(at < whole, at, at + rest - whole), self.keys), True, carry)

        def inside(j, carry):
            return meet(_Keys(whole + j * self.whole, self.whole), False, carry)

        carry = lax.fori_loop(0, (whole - first + stop - rest) // self.keys, around, carry)
        if self.whole:
            carry = lax.fori_loop(0, (rest - whole) // self.whole, inside, carry)
        return carry

    def _tiles(self, x: jax.Array) -> jax.Array:
        return x.reshape(-1, self.queries, *x.shape[1:])


class _Sight(NamedTuple):
    """What the queries of a tile see, for every tile of a row."""

    start: jax.Array
    """`[tiles, queries]`, as `end`: the key intervals."""
    end: jax.Array
    first: jax.Array
    """`[tiles]`, as all that follow: any query sees keys `first <= j < stop` only, and keys
    `whole <= j < rest` are taken in tiles of `Chunked.whole`."""
    whole: jax.Array
    rest: jax.Array
    stop: jax.Array


class _Keys(NamedTuple):
    """A tile of keys."""

    first: jax.Array
    size: int

    def of(self, x: jax.Array, axis: int = 0) -> jax.Array:
        return bits_to_bf16(lax.dynamic_slice_in_dim(bf16_to_bits(x), self.first, self.size, axis))

    def add(self, total: jax.Array, x: jax.Array) -> jax.Array:
        return lax.dynamic_update_slice_in_dim(total, self.of(total) + x, self.first, 0)


def _mask(scores: jax.Array, sight: _Sight, keys: _Keys, queries_axis: int) -> jax.Array:
    """`scores` of queries with `keys`, the unseen ones `MASKED`."""
    start, end = (jnp.expand_dims(x, 1 - queries_axis) for x in (sight.start, sight.end))
    numbers = jnp.expand_dims(keys.first + jnp.arange(keys.size), queries_axis)
    return jnp.where(visible(start, end, numbers), scores, MASKED)
