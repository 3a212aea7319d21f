# SPDX-License-Identifier: Apache-2.0
"""Attention by key intervals on NVIDIA GPUs (Ampere and later), written in Pallas for Triton.

One kernel for local and global layers: a block of queries meets exactly the blocks of keys that any
of its intervals touches, and in the backward pass a block of keys exactly the queries that see it.
Three launches, forward, dq and dk/dv; every output block has one writer, so there are no atomics
and results repeat to the bit. On a CPU the kernels run in Pallas's interpreter, for tests.

Idioms that the Triton lowering dictates: bounds of loops are loaded from arrays, since it has no
scalar prefetch; refs are sliced, never values; blocks are powers of two.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from bcmb_jax.attention.mask import (
    LEAST,
    MASKED,
    visible,
    visited_keys,
    visited_queries,
    whole_keys,
)
from bcmb_jax.errors import InputError
from bcmb_jax.ops.triton import fill_up, triton_call

LOG2E = math.log2(math.e)


@dataclasses.dataclass(frozen=True)
class Interval:
    """A `vjp.Kernel` for any key intervals.

    Attributes:
      whole: in the forward pass, blocks of keys that all queries of a block see have a loop of
        their own, without a mask: a quarter less time in long documents, more in local layers.

    Raises:
      InputError: a head size that is not a power of two from 16 to 128.
    """

    whole: bool = False

    def forward(self, q, k, v, start, end):
        see = _Views(q)
        q, k, v, start, end = (fill_up(x, 1, see.block) for x in (q, k, v, start, end))
        bounds = (whole_keys if self.whole else visited_keys)(start, end, see.block, see.block)
        out, lse = self._call(
            _forward_kernel,
            see,
            inputs=[see.block_of_heads, see.heads, see.heads]
            + [see.block_of_row] * 2
            + [see.number] * len(bounds),
            outputs=[see.block_of_heads, see.block_of_queries],
            shapes=[q, jax.ShapeDtypeStruct((*q.shape[::2], q.shape[1]), jnp.float32)],
            stages=3 if self.whole else 2,
        )(q, k, v, start, end, *bounds)
        return out[:, : see.length], lse[..., : see.length]

    def backward(self, q, k, v, start, end, dout, lse, delta):
        see = _Views(q)
        per_head = [fill_up(x, 1, see.block) for x in (q, k, v, dout)]
        rows = [fill_up(x, 1, see.block) for x in (start, end)]
        queries = [fill_up(x, 2, see.block) for x in (lse, delta)]
        q, k, v, dout = per_head
        dq = self._call(
            _dq_kernel,
            see,
            inputs=[see.block_of_heads, see.heads, see.heads, see.block_of_heads]
            + [see.block_of_row] * 2
            + [see.block_of_queries] * 2
            + [see.number] * 2,
            outputs=[see.block_of_heads],
            shapes=[q],
        )(*per_head, *rows, *queries, *visited_keys(*rows, see.block, see.block))
        dk, dv = self._call(
            _dkv_kernel,
            see,
            inputs=[see.heads, see.block_of_heads, see.block_of_heads, see.heads]
            + [see.row] * 2
            + [see.queries] * 2
            + [see.number] * 2,
            outputs=[see.block_of_heads, see.block_of_heads],
            shapes=[k, v],
        )(*per_head, *rows, *queries, *visited_queries(*rows, see.block))
        return tuple(x[:, : see.length] for x in (*dq, dk, dv))

    def _call(
        self, kernel: Callable, see: "_Views", inputs, outputs, shapes, stages: int = 2
    ) -> Callable:
        """`pallas_call` with a program for each head, block and row."""
        batch, length, heads, _ = shapes[0].shape
        return triton_call(
            functools.partial(kernel, block=see.block),  # one for each grid (jax issue 40847)
            "attention" + kernel.__name__.removesuffix("_kernel"),
            # Heads first: neighbouring programs then share the cache lines of [B, L, H, D].
            grid=(heads, length // see.block, batch),
            in_specs=inputs,
            out_specs=outputs,
            out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in shapes],
            num_stages=stages,
        )


class _Views:
    """What a program (head `h`, block `i`, row `b`) sees of an array; a whole row is a pointer
    until it is sliced."""

    def __init__(self, q: jax.Array):
        _, self.length, _, size = q.shape
        if size & (size - 1) or not 16 <= size <= 128:
            raise InputError(
                f"the interval kernel takes head sizes 16, 32, 64 and 128, not {size}; "
                "implementation='xla' takes any"
            )
        # Of queries and of keys. Larger ones spill registers in dk/dv, on H100 and A100.
        self.block = block = 32 if q.dtype == jnp.float32 else 64
        padded = -(-self.length // block) * block
        # [B, L, H, D]
        self.heads = pl.BlockSpec((None, padded, None, size), lambda h, i, b: (b, 0, h, 0))
        self.block_of_heads = pl.BlockSpec((None, block, None, size), lambda h, i, b: (b, i, h, 0))
        # [B, L]
        self.row = pl.BlockSpec((None, padded), lambda h, i, b: (b, 0))
        self.block_of_row = pl.BlockSpec((None, block), lambda h, i, b: (b, i))
        # [B, H, L]
        self.queries = pl.BlockSpec((None, None, padded), lambda h, i, b: (b, h, 0))
        self.block_of_queries = pl.BlockSpec((None, None, block), lambda h, i, b: (b, h, i))
        # [B, blocks]
        self.number = pl.BlockSpec((None, 1), lambda h, i, b: (b, i))


def _forward_kernel(q_ref, k_ref, v_ref, start_ref, end_ref, *rest, block):
    """`rest`: the bounds of the loops over blocks of keys, and the outputs. A loop with a mask, one
    without and one with again, or a single one with a mask."""
    *bounds, out_ref, lse_ref = rest
    q, start, end = q_ref[...], start_ref[...], end_ref[...]

    def keys(masked, j, carry):
        top, total, out = carry
        here = pl.ds(j * block, block)
        scores = _dot(q, k_ref[here, :].T)
        if masked:
            seen = visible(start[:, None], end[:, None], _numbers(j, block, axis=1))
            scores = jnp.where(seen, scores, MASKED)
        new_top = jnp.maximum(top, scores.max(1) * LOG2E)
        shrink = jnp.exp2(top - new_top)
        weights = jnp.exp2(scores * LOG2E - new_top[:, None])
        out = out * shrink[:, None] + _dot(weights.astype(q.dtype), v_ref[here, :])
        return new_top, total * shrink + weights.sum(1), out

    zeros = jnp.zeros(block, jnp.float32)
    carry = zeros + LEAST, zeros, jnp.zeros(q.shape, jnp.float32)
    for n, (first, stop) in enumerate(itertools.pairwise(bounds)):
        carry = lax.fori_loop(first[0], stop[0], functools.partial(keys, n != 1), carry)
    top, total, out = carry
    total = jnp.maximum(total, 1e-37)
    out_ref[...] = (out / total[:, None]).astype(out_ref.dtype)
    lse_ref[...] = (top + jnp.log2(total)) / LOG2E


def _dq_kernel(
    q_ref,
    k_ref,
    v_ref,
    dout_ref,
    start_ref,
    end_ref,
    lse_ref,
    delta_ref,
    first,
    stop,
    dq_ref,
    *,
    block,
):
    q, dout, start, end = q_ref[...], dout_ref[...], start_ref[...], end_ref[...]
    lse, delta = lse_ref[...] * LOG2E, delta_ref[...]

    def keys(j, dq):
        here = pl.ds(j * block, block)
        k, v = k_ref[here, :], v_ref[here, :]
        seen = visible(start[:, None], end[:, None], _numbers(j, block, axis=1))
        scores = jnp.where(seen, _dot(q, k.T), MASKED)
        weights = jnp.exp2(scores * LOG2E - lse[:, None])
        dscores = weights * (_dot(dout, v.T) - delta[:, None])
        return dq + _dot(dscores.astype(k.dtype), k)

    dq = lax.fori_loop(first[0], stop[0], keys, jnp.zeros(q.shape, jnp.float32))
    dq_ref[...] = dq.astype(dq_ref.dtype)


def _dkv_kernel(
    q_ref,
    k_ref,
    v_ref,
    dout_ref,
    start_ref,
    end_ref,
    lse_ref,
    delta_ref,
    first,
    stop,
    dk_ref,
    dv_ref,
    *,
    block,
):
    k, v = k_ref[...], v_ref[...]
    key = _numbers(pl.program_id(1), block, axis=0)

    def queries(i, carry):
        dk, dv = carry
        here = pl.ds(i * block, block)
        q, dout, lse = q_ref[here, :], dout_ref[here, :], lse_ref[here] * LOG2E
        # Key-major, so that the weights need no transpose on their way to dv.
        seen = visible(start_ref[here][None, :], end_ref[here][None, :], key)
        scores = jnp.where(seen, _dot(k, q.T), MASKED)
        weights = jnp.exp2(scores * LOG2E - lse[None, :])
        dscores = weights * (_dot(v, dout.T) - delta_ref[here][None, :])
        dv = dv + _dot(weights.astype(dout.dtype), dout)
        return dk + _dot(dscores.astype(q.dtype), q), dv

    zeros = jnp.zeros(k.shape, jnp.float32)
    dk, dv = lax.fori_loop(first[0], stop[0], queries, (zeros, zeros))
    dk_ref[...], dv_ref[...] = dk.astype(dk_ref.dtype), dv.astype(dv_ref.dtype)


def _numbers(i: jax.Array, block: int, axis: int) -> jax.Array:
    """`[block, block]`: the positions of the keys of block `i`, along `axis`."""
    return i * block + lax.broadcasted_iota(jnp.int32, (block, block), axis)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """fp32 sums; fp32 operands are not rounded to TF32."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jnp.dot(a, b, preferred_element_type=jnp.float32, precision=precision)
