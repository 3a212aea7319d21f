# SPDX-License-Identifier: Apache-2.0
"""Local layers in O(L · window) compute and memory, forward and backward, in plain XLA.

The row is cut in blocks at least as long as the window, so that a query's keys lie in its own block
and the two beside it. The backward pass works on key-major scores `[keys, queries]`: every product
in it is then `(1, 0)` or `(1, 1)`, the forms that XLA's CPU kernels take without a transpose.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from bcmb_jax.attention.heads import for_each_head, merge_heads, pad_and_split, pad_length
from bcmb_jax.attention.mask import MASKED, visible
from bcmb_jax.linear import accumulator, product, row_major_transpose

BLOCK = 64
BLOCKS = (0,)  # the batch axis of every product


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def banded_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, start: jax.Array, end: jax.Array, window: int
) -> jax.Array:
    """`[B, L, H, D]` from queries (already scaled), keys, values and `[B, L]` key intervals that
    reach at most `window` keys to either side."""
    return _forward(q, k, v, start, end, window)[0]


def _forward(q, k, v, start, end, window):
    block = _block(window)
    heads, rows = pad_and_split((q, k, v), (start, end), block)
    out, lse = for_each_head(functools.partial(_head_forward, block), heads, rows)
    return merge_heads(out, q.shape[2])[:, : q.shape[1]], lse


def _fwd(q, k, v, start, end, window):
    out, lse = _forward(q, k, v, start, end, window)
    return out, (q, k, v, start, end, out, lse)


def _bwd(window, residuals, dout):
    q, k, v, start, end, out, lse = residuals
    block = _block(window)
    delta = jnp.einsum("blhd,blhd->bhl", out, dout, preferred_element_type=accumulator(q.dtype))
    delta = pad_length(delta.reshape(-1, q.shape[1]), block)
    heads, rows = pad_and_split((q, k, v, dout.astype(q.dtype)), (start, end), block)
    kernel = functools.partial(_head_backward, block)
    grads = for_each_head(kernel, (*heads, lse, delta), rows)
    return *(merge_heads(g, q.shape[2])[:, : q.shape[1]] for g in grads), None, None


banded_attention.defvjp(_fwd, _bwd)


def _block(window: int) -> int:
    return -(-max(window, 1) // BLOCK) * BLOCK


def _head_forward(block, q, k, v, start, end):
    """One head: `[L, D]` each, intervals `[L]` → output `[L, D]` and log-sum-exp `[L]`."""
    length, size = q.shape
    start, end = start.reshape(-1, block, 1), end.reshape(-1, block, 1)
    seen = visible(start, end, _key_numbers(length // block, block)[:, None, :])
    scores = product(q.reshape(-1, block, size), _with_neighbours(k, block), (2,), (2,), BLOCKS)
    scores = jnp.where(seen, scores, MASKED)
    top = scores.max(-1, keepdims=True)
    weights = jnp.where(seen, jnp.exp(scores - top), 0.0)
    total = jnp.maximum(weights.sum(-1, keepdims=True), 1e-37)
    out = product(weights.astype(q.dtype), _with_neighbours(v, block), (2,), (1,), BLOCKS) / total
    return out.reshape(length, size).astype(q.dtype), (top + jnp.log(total)).reshape(length)


def _head_backward(block, q, k, v, dout, lse, delta, start, end):
    """One head's `(dq, dk, dv)`, `[L, D]` each."""
    length, size = q.shape
    blocks = length // block
    q, dout = q.reshape(blocks, block, size), dout.reshape(blocks, block, size)
    k, v = _with_neighbours(k, block), _with_neighbours(v, block)
    per_query = [x.reshape(blocks, 1, block) for x in (start, end, lse, delta)]
    start, end, lse, delta = per_query
    seen = visible(start, end, _key_numbers(blocks, block)[:, :, None])
    weights = jnp.where(seen, jnp.exp(product(k, q, (2,), (2,), BLOCKS) - lse), 0.0)
    dscores = (weights * (product(v, dout, (2,), (2,), BLOCKS) - delta)).astype(q.dtype)
    dv = product(weights.astype(q.dtype), dout, (2,), (1,), BLOCKS)
    dk = product(dscores, q, (2,), (1,), BLOCKS)
    # The barrier keeps the compiler from turning transpose(dot) into a bf16 product with permuted
    # operands, which XLA's CPU backend compiles and then cannot run.
    dq = lax.optimization_barrier(product(row_major_transpose(k), dscores, (2,), (1,), BLOCKS))
    dq = jnp.swapaxes(dq, 1, 2).reshape(length, size)
    return tuple(x.astype(q.dtype) for x in (dq, _overlap_add(dk), _overlap_add(dv)))


def _key_numbers(blocks: int, block: int) -> jax.Array:
    """`[blocks, 3·block]`: the row positions of each block's keys (outside the row: unseen)."""
    first = (jnp.arange(blocks) - 1) * block
    return first[:, None] + jnp.arange(3 * block)[None, :]


def _with_neighbours(x: jax.Array, block: int) -> jax.Array:
    """`[L, D]` → `[blocks, 3·block, D]`: each block with the one before and the one after it."""
    padded = jnp.pad(x, ((block, block), (0, 0))).reshape(-1, block, x.shape[1])
    return jnp.concatenate([padded[:-2], padded[1:-1], padded[2:]], axis=1)


def _overlap_add(x: jax.Array) -> jax.Array:
    """The transpose of `_with_neighbours`: `[blocks, 3·block, D]` → `[L, D]`, sums in fp32."""
    before, own, after = jnp.split(x, 3, axis=1)
    own = own.at[:-1].add(before[1:]).at[1:].add(after[:-1])
    return own.reshape(-1, x.shape[2])
