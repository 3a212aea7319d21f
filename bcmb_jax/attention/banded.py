# SPDX-License-Identifier: Apache-2.0
"""Local layers in O(L · window) compute and memory, forward and backward, in plain XLA.

The row is cut in blocks at least as long as the window, so that a query's keys lie in its own block
and the two beside it. The backward pass works on key-major scores `[keys, queries]`: every product
in it is then `(1, 0)` or `(1, 1)`, the forms that XLA's CPU kernels take without a transpose.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from bcmb_jax.attention.mask import LEAST, MASKED, visible
from bcmb_jax.attention.one_head import for_each_head
from bcmb_jax.ops.cpu import bf16_to_bits, bits_to_bf16, row_major_transpose
from bcmb_jax.ops.linear import dot
from bcmb_jax.ops.triton import fill_up

BLOCK = 64
TOKENS = 8192  # of a joined row
BLOCKS = (0,)  # the batch axis of every product


@dataclasses.dataclass(frozen=True)
class Banded:
    """A `vjp.Kernel` for key intervals that reach at most `window` keys to either side."""

    window: int

    @property
    def block(self) -> int:
        return -(-max(self.window, 1) // BLOCK) * BLOCK

    def forward(self, q, k, v, start, end):
        rows = _Joined(q.shape, self.block)
        out, lse = for_each_head(
            self._forward_row, rows.heads(q, k, v), (), rows.intervals(start, end), self.block
        )
        return rows.part(out), rows.part_queries(lse)

    def backward(self, q, k, v, start, end, dout, lse, delta):
        rows = _Joined(q.shape, self.block)
        heads, queries = rows.heads(q, k, v, dout), rows.queries(lse, delta)
        gradients = for_each_head(
            self._backward_row, heads, queries, rows.intervals(start, end), self.block
        )
        return tuple(map(rows.part, gradients))

    def _forward_row(self, start, end):
        block = self.block
        keys = _key_numbers(len(start) // block, block)[:, None, :]
        seen = visible(start.reshape(-1, block, 1), end.reshape(-1, block, 1), keys)

        def head(q, k, v):
            length, size = q.shape
            k, v = _with_neighbours(k, block), _with_neighbours(v, block)
            scores = dot(q.reshape(-1, block, size), k, (2,), (2,), BLOCKS)
            scores = jnp.where(seen, scores, MASKED)
            top = jnp.maximum(scores.max(-1, keepdims=True), LEAST)
            weights = jnp.exp(scores - top)
            total = jnp.maximum(weights.sum(-1, keepdims=True), 1e-37)
            out = dot(weights.astype(q.dtype), v, (2,), (1,), BLOCKS) / total
            lse = (top + jnp.log(total)).reshape(length)
            return out.reshape(length, size).astype(q.dtype), lse

        return head

    def _backward_row(self, start, end):
        block = self.block
        blocks = len(start) // block
        keys = _key_numbers(blocks, block)[:, :, None]
        seen = visible(start.reshape(blocks, 1, block), end.reshape(blocks, 1, block), keys)

        def head(q, k, v, dout, lse, delta):
            length, size = q.shape
            q, dout = q.reshape(blocks, block, size), dout.reshape(blocks, block, size)
            lse, delta = lse.reshape(blocks, 1, block), delta.reshape(blocks, 1, block)
            k, v = _with_neighbours(k, block), _with_neighbours(v, block)
            scores = jnp.where(seen, dot(k, q, (2,), (2,), BLOCKS), MASKED)
            weights = jnp.exp(scores - lse)
            dscores = (weights * (dot(v, dout, (2,), (2,), BLOCKS) - delta)).astype(q.dtype)
            dv = dot(weights.astype(q.dtype), dout, (2,), (1,), BLOCKS)
            dk = dot(dscores, q, (2,), (1,), BLOCKS)
            # The barrier keeps the compiler from turning transpose(dot) into a bf16 product with
            # permuted operands, which XLA's CPU backend compiles and then cannot run.
            dq = dot(row_major_transpose(k), dscores, (2,), (1,), BLOCKS)
            dq = jnp.swapaxes(lax.optimization_barrier(dq), 1, 2).reshape(length, size)
            return tuple(x.astype(q.dtype) for x in (dq, _overlap_add(dk), _overlap_add(dv)))

        return head


class _Joined:
    """Short rows behind each other, as rows of up to `TOKENS`: a query sees no more of the next row
    than of the next document, and a few long turns of a loop take less time than many short ones.
    """

    def __init__(self, shape: tuple[int, ...], block: int):
        self.batch, self.length = shape[:2]
        self.filled = -(-self.length // block) * block
        rows = -(-self.batch // max(1, TOKENS // self.filled))
        self.count = -(-self.batch // rows)

    def heads(self, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        """`[B, L, H, D]` → `[rows, count · L, H, D]`, each row filled up to whole blocks, and the
        last joined row with empty ones."""
        return tuple(map(self._join, arrays))

    def queries(self, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        """The same of `[B, H, L]`."""
        return tuple(self._join(x.swapaxes(1, 2)).swapaxes(1, 2) for x in arrays)

    def intervals(self, *bounds: jax.Array) -> tuple[jax.Array, ...]:
        """The same of `[B, L]` starts and ends, which become positions of the joined rows."""
        first = jnp.arange(self.batch)[:, None] % self.count * self.filled
        return tuple(self._join(x + first) for x in bounds)

    def part(self, x: jax.Array) -> jax.Array:
        """The inverse of `heads`."""
        x = x.reshape(-1, self.filled, *x.shape[2:])
        return x[: self.batch, : self.length]

    def part_queries(self, x: jax.Array) -> jax.Array:
        """The inverse of `queries`."""
        return self.part(x.swapaxes(1, 2)).swapaxes(1, 2)

    def _join(self, x: jax.Array) -> jax.Array:
        x = fill_up(fill_up(x, 1, self.filled), 0, self.count)
        return x.reshape(-1, self.count * self.filled, *x.shape[2:])


def _key_numbers(blocks: int, block: int) -> jax.Array:
    """`[blocks, 3·block]`: the row positions of each block's keys (outside the row: unseen)."""
    first = (jnp.arange(blocks) - 1) * block
    return first[:, None] + jnp.arange(3 * block)[None, :]


def _with_neighbours(x: jax.Array, block: int) -> jax.Array:
    """`[L, D]` → `[blocks, 3·block, D]`: each block with the one before and the one after it."""
    padded = jnp.pad(bf16_to_bits(x), ((block, block), (0, 0))).reshape(-1, block, x.shape[1])
    return bits_to_bf16(jnp.concatenate([padded[:-2], padded[1:-1], padded[2:]], axis=1))


def _overlap_add(x: jax.Array) -> jax.Array:
    """The transpose of `_with_neighbours`: `[blocks, 3·block, D]` → `[L, D]`, sums in fp32."""
    before, own, after = jnp.split(x, 3, axis=1)
    own = own.at[:-1].add(before[1:]).at[1:].add(after[:-1])
    return own.reshape(-1, x.shape[2])
