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

from bcmb_jax.attention.kernel import (
    Arrays,
    Bounds,
    HeadKernel,
    Heads,
    Queries,
    RowKernel,
    for_each_head,
)
from bcmb_jax.attention.mask import LEAST, MASKED, visible
from bcmb_jax.ops.cpu import bf16_to_bits, bits_to_bf16, row_major_transpose
from bcmb_jax.ops.linear import dot
from bcmb_jax.ops.triton import pad_to_multiple

BLOCK = 64  # blocks are as long as a multiple of it
JOINED_TOKENS = 8192  # tokens of a joined row, at most


@dataclasses.dataclass(frozen=True)
class Banded:
    """The `Kernel` for key intervals that reach at most `window` keys to either side."""

    window: int

    @property
    def block(self) -> int:
        """Queries in a block."""
        return -(-max(self.window, 1) // BLOCK) * BLOCK

    def forward(self, heads: Heads, bounds: Bounds) -> Arrays:
        """Return the output and the log-sum-exps (see `Kernel`)."""
        return self._run(self._forward_row, heads, bounds, ())

    def backward(self, heads: Heads, bounds: Bounds, queries: Queries) -> Arrays:
        """Return the gradients of queries, keys and values (see `Kernel`)."""
        return self._run(self._backward_row, heads, bounds, queries)

    def _run(self, row_kernel: RowKernel, heads: Heads, bounds: Bounds, queries: Queries) -> Arrays:
        """Run `row_kernel` on short rows behind each other, joined to up to `JOINED_TOKENS` tokens.

        A query sees no more of the next row than of the next document, and a few long turns of a
        loop take less time than many short ones.
        """
        batch, length = heads[0].shape[:2]
        padded = -(-length // self.block) * self.block
        joined = -(-batch // max(1, JOINED_TOKENS // padded))
        rows = -(-batch // joined)  # in a joined row; the last one is padded with empty ones

        def join(x: Array) -> Array:
            x = pad_to_multiple(pad_to_multiple(x, 1, padded), 0, rows)
            return x.reshape(-1, rows * padded, *x.shape[2:])

        def split(x: Array) -> Array:
            return x.reshape(-1, padded, *x.shape[2:])[:batch, :length]

        first = jnp.arange(batch)[:, None] % rows * padded
        results = for_each_head(
            row_kernel,
            tuple(map(join, heads)),
            (join(bounds[0] + first), join(bounds[1] + first)),
            tuple(join(x.swapaxes(1, 2)).swapaxes(1, 2) for x in queries),
            self.block,
        )
        return tuple(
            split(x) if x.ndim == 4 else split(x.swapaxes(1, 2)).swapaxes(1, 2) for x in results
        )

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
