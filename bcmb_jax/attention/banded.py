# SPDX-License-Identifier: Apache-2.0
"""Local layers in O(L · window) compute and memory, forward and backward, in plain XLA.

A row is cut into blocks at least as long as the window, so that a query's keys lie in its own block
and the two beside it. The backward pass works on key-major scores `[keys, queries]`: every product
in it then contracts last with first or last axes, the forms that XLA's CPU kernels take without a
transpose.
"""

import dataclasses

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from bcmb_jax.attention.mask import LEAST, MASKED, visible
from bcmb_jax.attention.one_head import Arrays, HeadKernel, for_each_head
from bcmb_jax.attention.vjp import Bounds, Heads, Queries
from bcmb_jax.ops.cpu import bf16_to_bits, bits_to_bf16, row_major_transpose
from bcmb_jax.ops.linear import dot
from bcmb_jax.ops.triton import pad_to_multiple

BLOCK = 64  # blocks are as long as a multiple of it
JOINED_TOKENS = 8192  # tokens of a joined row, at most


@dataclasses.dataclass(frozen=True)
class Banded:
    """The `vjp.Kernel` for key intervals that reach at most `window` keys to either side."""

    window: int

    @property
    def block(self) -> int:
        """Queries in a block."""
        return -(-max(self.window, 1) // BLOCK) * BLOCK

    def forward(self, q: Heads, k: Heads, v: Heads, start: Bounds, end: Bounds) -> Arrays:
        """Return the output and the log-sum-exps (see `vjp.Kernel`)."""
        rows = _JoinedRows(q.shape, self.block)
        out, lse = for_each_head(
            self._forward_row,
            rows.join_heads(q, k, v),
            (),
            rows.join_intervals(start, end),
            self.block,
        )
        return rows.split_heads(out), rows.split_queries(lse)

    def backward(
        self,
        q: Heads,
        k: Heads,
        v: Heads,
        start: Bounds,
        end: Bounds,
        dout: Heads,
        lse: Queries,
        delta: Queries,
    ) -> Arrays:
        """Return the gradients of queries, keys and values (see `vjp.Kernel`)."""
        rows = _JoinedRows(q.shape, self.block)
        heads, queries = rows.join_heads(q, k, v, dout), rows.join_queries(lse, delta)
        gradients = for_each_head(
            self._backward_row, heads, queries, rows.join_intervals(start, end), self.block
        )
        return tuple(map(rows.split_heads, gradients))

    def _forward_row(self, start: Array, end: Array) -> HeadKernel:
        block = self.block
        keys = _key_numbers(len(start) // block, block)[:, None, :]
        seen = visible(start.reshape(-1, block, 1), end.reshape(-1, block, 1), keys)

        def head(q: Array, k: Array, v: Array) -> Arrays:
            length, size = q.shape
            k, v = _with_neighbours(k, block), _with_neighbours(v, block)
            scores = dot("nqd,nkd->nqk", q.reshape(-1, block, size), k)
            scores = jnp.where(seen, scores, MASKED)
            top = jnp.maximum(scores.max(-1, keepdims=True), LEAST)
            weights = jnp.exp(scores - top)
            total = jnp.maximum(weights.sum(-1, keepdims=True), 1e-37)
            out = dot("nqk,nkd->nqd", weights.astype(q.dtype), v) / total
            lse = (top + jnp.log(total)).reshape(length)
            return out.reshape(length, size).astype(q.dtype), lse

        return head

    def _backward_row(self, start: Array, end: Array) -> HeadKernel:
        block = self.block
        blocks = len(start) // block
        keys = _key_numbers(blocks, block)[:, :, None]
        seen = visible(start.reshape(blocks, 1, block), end.reshape(blocks, 1, block), keys)

        def head(q: Array, k: Array, v: Array, dout: Array, lse: Array, delta: Array) -> Arrays:
            length, size = q.shape
            q, dout = q.reshape(blocks, block, size), dout.reshape(blocks, block, size)
            lse, delta = lse.reshape(blocks, 1, block), delta.reshape(blocks, 1, block)
            k, v = _with_neighbours(k, block), _with_neighbours(v, block)
            scores = jnp.where(seen, dot("nkd,nqd->nkq", k, q), MASKED)
            weights = jnp.exp(scores - lse)
            dweights = dot("nkd,nqd->nkq", v, dout)
            dscores = (weights * (dweights - delta)).astype(q.dtype)
            dv = dot("nkq,nqd->nkd", weights.astype(q.dtype), dout)
            dk = dot("nkq,nqd->nkd", dscores, q)
            # The barrier keeps the compiler from turning transpose(dot) into a bf16 product with
            # permuted operands, which XLA's CPU backend compiles and then cannot run.
            dq = dot("ndk,nkq->ndq", row_major_transpose(k), dscores)
            dq = jnp.swapaxes(lax.optimization_barrier(dq), 1, 2).reshape(length, size)
            return tuple(x.astype(q.dtype) for x in (dq, _overlap_add(dk), _overlap_add(dv)))

        return head


class _JoinedRows:
    """Short rows behind each other, as joined rows of up to `JOINED_TOKENS` tokens.

    A query sees no more of the next row than of the next document, and a few long turns of a loop
    take less time than many short ones.
    """

    def __init__(self, shape: tuple[int, ...], block: int):
        self.batch, self.length = shape[:2]
        self.padded = -(-self.length // block) * block
        joined = -(-self.batch // max(1, JOINED_TOKENS // self.padded))
        self.rows = -(
            -self.batch // joined
        )  # in a joined row; the last one is padded with empty ones

    def join_heads(self, *arrays: Array) -> Arrays:
        """Return each `[B, L, H, K]` as `[joined rows, rows · padded L, H, K]`."""
        return tuple(map(self._join, arrays))

    def join_queries(self, *arrays: Array) -> Arrays:
        """Return each `[B, H, L]` as `[joined rows, H, rows · padded L]`."""
        return tuple(self._join(x.swapaxes(1, 2)).swapaxes(1, 2) for x in arrays)

    def join_intervals(self, *bounds: Array) -> Arrays:
        """Return `[B, L]` starts and ends as positions in the joined rows."""
        first = jnp.arange(self.batch)[:, None] % self.rows * self.padded
        return tuple(self._join(x + first) for x in bounds)

    def split_heads(self, x: Array) -> Array:
        """Undo `join_heads`."""
        x = x.reshape(-1, self.padded, *x.shape[2:])
        return x[: self.batch, : self.length]

    def split_queries(self, x: Array) -> Array:
        """Undo `join_queries`."""
        return self.split_heads(x.swapaxes(1, 2)).swapaxes(1, 2)

    def _join(self, x: Array) -> Array:
        x = pad_to_multiple(pad_to_multiple(x, 1, self.padded), 0, self.rows)
        return x.reshape(-1, self.rows * self.padded, *x.shape[2:])


def _key_numbers(blocks: int, block: int) -> Array:
    """Return the row positions `[blocks, 3·block]` of each block's keys, some outside."""
    first = (jnp.arange(blocks) - 1) * block
    return first[:, None] + jnp.arange(3 * block)[None, :]


def _with_neighbours(x: Shaped[Array, "L K"], block: int) -> Shaped[Array, "blocks keys K"]:
    """Return each block of `x` with the one before and the one after it."""
    padded = jnp.pad(bf16_to_bits(x), ((block, block), (0, 0))).reshape(-1, block, x.shape[1])
    return bits_to_bf16(jnp.concatenate([padded[:-2], padded[1:-1], padded[2:]], axis=1))


def _overlap_add(x: Float[Array, "blocks keys K"]) -> Float[Array, "L K"]:
    """Return the transpose of `_with_neighbours`: each token's sum, in fp32."""
    before, own, after = jnp.split(x, 3, axis=1)
    own = own.at[:-1].add(before[1:]).at[1:].add(after[:-1])
    return own.reshape(-1, x.shape[2])
