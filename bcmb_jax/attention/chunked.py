# SPDX-License-Identifier: Apache-2.0
"""Global layers in chunks, forward and backward, in plain XLA: memory O(L), and only the key
blocks that some query of a chunk sees.

A chunk of queries meets the blocks of keys one by one with a running softmax. The range of blocks
comes from the key intervals, so a packed row costs the sum of its documents' squares, not the
square of its length, and a wide window costs its width.
"""

import jax
import jax.numpy as jnp
from jax import lax

from bcmb_jax.attention.heads import for_each_head, merge_heads, pad_and_split, pad_length
from bcmb_jax.attention.mask import MASKED, visible
from bcmb_jax.linear import accumulator, product, row_major_transpose

QUERIES, KEYS = 256, 512  # a tile of scores: small enough for a CPU core's L2 cache


@jax.custom_vjp
def chunked_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, start: jax.Array, end: jax.Array
) -> jax.Array:
    """`[B, L, H, D]` from queries (already scaled), keys, values and `[B, L]` key intervals."""
    return _forward(q, k, v, start, end)[0]


def _forward(q, k, v, start, end):
    heads, rows = pad_and_split((q, k, v), (start, end), KEYS)
    out, lse = for_each_head(_head_forward, heads, rows)
    return merge_heads(out, q.shape[2])[:, : q.shape[1]], lse


def _fwd(q, k, v, start, end):
    out, lse = _forward(q, k, v, start, end)
    return out, (q, k, v, start, end, out, lse)


def _bwd(residuals, dout):
    q, k, v, start, end, out, lse = residuals
    delta = jnp.einsum("blhd,blhd->bhl", out, dout, preferred_element_type=accumulator(q.dtype))
    delta = pad_length(delta.reshape(-1, q.shape[1]), KEYS)
    heads, rows = pad_and_split((q, k, v, dout.astype(q.dtype)), (start, end), KEYS)
    grads = for_each_head(_head_backward, (*heads, lse, delta), rows)
    return *(merge_heads(g, q.shape[2])[:, : q.shape[1]] for g in grads), None, None


chunked_attention.defvjp(_fwd, _bwd)


def _block_range(start: jax.Array, end: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The key blocks `[first, stop)` that any query of the chunk sees; empty for padding."""
    empty = end <= start
    first = jnp.where(empty, jnp.iinfo(jnp.int32).max, start).min() // KEYS
    return first, -(-jnp.where(empty, 0, end).max() // KEYS)


def _chunks(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(x.reshape(-1, QUERIES, *x.shape[1:]) for x in arrays)


def _head_forward(q, k, v, start, end):
    """One head: `[L, D]` each, intervals `[L]` → output `[L, D]` and log-sum-exp `[L]`."""

    def chunk(args):
        q, start, end = args

        def block(j, carry):
            top, total, out = carry
            k_block, v_block = (lax.dynamic_slice_in_dim(x, j * KEYS, KEYS) for x in (k, v))
            keys = j * KEYS + jnp.arange(KEYS)[None, :]
            seen = visible(start[:, None], end[:, None], keys)
            scores = jnp.where(seen, product(q, k_block, (1,), (1,)), MASKED)
            new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
            shrink = jnp.exp(top - new_top)
            weights = jnp.where(seen, jnp.exp(scores - new_top), 0.0)
            total = total * shrink + weights.sum(-1, keepdims=True)
            out = out * shrink + product(weights.astype(q.dtype), v_block, (1,), (0,))
            return new_top, total, out

        zeros = jnp.zeros((QUERIES, 1), accumulator(q.dtype))
        init = (zeros + MASKED, zeros, jnp.zeros(q.shape, zeros.dtype))
        top, total, out = lax.fori_loop(*_block_range(start, end), block, init)
        total = jnp.maximum(total, 1e-37)
        return (out / total).astype(q.dtype), (top + jnp.log(total))[:, 0]

    out, lse = lax.map(chunk, _chunks(q, start, end))
    return out.reshape(q.shape), lse.reshape(-1)


def _head_backward(q, k, v, dout, lse, delta, start, end):
    """One head's `(dq, dk, dv)`, `[L, D]` each, from key-major scores (see `banded`)."""
    dtype = q.dtype
    k_transposed = row_major_transpose(k)

    def chunk(dk_dv, args):
        q, dout, lse, delta, start, end = args

        def block(j, carry):
            dq, dk, dv = carry
            first = j * KEYS
            k_block, v_block = (lax.dynamic_slice_in_dim(x, first, KEYS) for x in (k, v))
            keys = first + jnp.arange(KEYS)[:, None]
            seen = visible(start[None, :], end[None, :], keys)
            scores = product(k_block, q, (1,), (1,))
            weights = jnp.where(seen, jnp.exp(scores - lse[None, :]), 0.0)
            dweights = product(v_block, dout, (1,), (1,))
            dscores = (weights * (dweights - delta[None, :])).astype(dtype)
            dk = _add_at(dk, product(dscores, q, (1,), (0,)), first)
            dv = _add_at(dv, product(weights.astype(dtype), dout, (1,), (0,)), first)
            k_columns = lax.dynamic_slice_in_dim(k_transposed, first, KEYS, axis=1)
            return dq + product(k_columns, dscores, (1,), (0,)), dk, dv

        zeros = jnp.zeros(q.shape[::-1], dk_dv[0].dtype)
        dq, dk, dv = lax.fori_loop(*_block_range(start, end), block, (zeros, *dk_dv))
        # The barrier: see `banded._head_backward`.
        return (dk, dv), lax.optimization_barrier(dq).T.astype(dtype)

    zeros = jnp.zeros(k.shape, accumulator(dtype))
    per_query = _chunks(q, dout, lse, delta, start, end)
    (dk, dv), dq = lax.scan(chunk, (zeros, zeros), per_query)
    return dq.reshape(q.shape), dk.astype(dtype), dv.astype(dtype)


def _add_at(total: jax.Array, block: jax.Array, first: jax.Array) -> jax.Array:
    present = lax.dynamic_slice_in_dim(total, first, KEYS)
    return lax.dynamic_update_slice_in_dim(total, present + block, first, 0)
