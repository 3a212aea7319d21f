# SPDX-License-Identifier: Apache-2.0
"""Attention by key intervals on NVIDIA GPUs (Ampere and later), written in Pallas for Triton.

One kernel for local and global layers: a block of queries visits exactly the blocks of keys that
any of its intervals touches, and in the backward pass a block of keys exactly the queries that see
it. Three launches, forward, dq and dk/dv; every output block has one writer, so there are no
atomics and results repeat to the bit. On a CPU the kernels run in Pallas's interpreter, for tests.

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
from jaxtyping import Array, Float, Int

from bcmb_jax.attention.mask import (
    LEAST,
    MASKED,
    fully_visible_keys,
    visible,
    visited_keys,
    visited_queries,
)
from bcmb_jax.attention.one_head import Arrays
from bcmb_jax.attention.vjp import Bounds, Heads, Queries
from bcmb_jax.errors import InputError
from bcmb_jax.ops.triton import pad_to_multiple, triton_call

LOG2E = math.log2(math.e)


@dataclasses.dataclass(frozen=True)
class Interval:
    """The `vjp.Kernel` for any key intervals.

    Attributes:
      unmasked: in the forward pass, blocks of keys that all queries of a block see have a loop of
        their own, without a mask: a quarter less time in long documents, more in local layers.

    Raises:
      InputError: a head size that is not a power of two from 16 to 128.
    """

    unmasked: bool = False

    def forward(self, q: Heads, k: Heads, v: Heads, start: Bounds, end: Bounds) -> Arrays:
        """Return the output and the log-sum-exps (see `vjp.Kernel`)."""
        see = _Views(q)
        q, k, v, start, end = (pad_to_multiple(x, 1, see.block) for x in (q, k, v, start, end))
        bounds = (fully_visible_keys if self.unmasked else visited_keys)(
            start, end, see.block, see.block
        )
        out, lse = self._call(
            _forward_kernel,
            see,
            inputs=[see.block_of_heads, see.heads, see.heads]
            + [see.block_of_row] * 2
            + [see.number] * len(bounds),
            outputs=[see.block_of_heads, see.block_of_queries],
            shapes=[q, jax.ShapeDtypeStruct((*q.shape[::2], q.shape[1]), jnp.float32)],
            stages=3 if self.unmasked else 2,
        )(q, k, v, start, end, *bounds)
        return out[:, : see.length], lse[..., : see.length]

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
        see = _Views(q)
        per_head = [pad_to_multiple(x, 1, see.block) for x in (q, k, v, dout)]
        start, end = (pad_to_multiple(x, 1, see.block) for x in (start, end))
        queries = [pad_to_multiple(x, 2, see.block) for x in (lse, delta)]
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
        )(*per_head, start, end, *queries, *visited_keys(start, end, see.block, see.block))
        dk, dv = self._call(
            _dkv_kernel,
            see,
            inputs=[see.heads, see.block_of_heads, see.block_of_heads, see.heads]
            + [see.row] * 2
            + [see.queries] * 2
            + [see.number] * 2,
            outputs=[see.block_of_heads, see.block_of_heads],
            shapes=[k, v],
        )(*per_head, start, end, *queries, *visited_queries(start, end, see.block))
        return tuple(x[:, : see.length] for x in (*dq, dk, dv))

    def _call(
        self,
        kernel: Callable[..., None],
        see: "_Views",
        inputs: list[pl.BlockSpec],
        outputs: list[pl.BlockSpec],
        shapes: list[Array | jax.ShapeDtypeStruct],
        stages: int = 2,
    ) -> Callable[..., list[Array]]:
        """Return `triton_call` with a program for each head, block and row."""
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
    """Block specs of the arrays for the program of head `h`, block `i` and row `b`.

    A whole row is a pointer until it is sliced.
    """

    def __init__(self, q: Array):
        _, self.length, _, size = q.shape
        if size & (size - 1) or not 16 <= size <= 128:
            raise InputError(
                f"the interval kernel takes head sizes 16, 32, 64 and 128, not {size}; "
                "implementation='xla' takes any"
            )
        # Queries, and keys. Larger ones spill registers in dk/dv, on H100 and A100.
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


def _forward_kernel(
    q_ref: Float[jax.Ref, "block K"],
    k_ref: Float[jax.Ref, "L K"],
    v_ref: Float[jax.Ref, "L K"],
    start_ref: Int[jax.Ref, " block"],
    end_ref: Int[jax.Ref, " block"],
    *rest: jax.Ref,
    block: int,
) -> None:
    """Compute output and log-sum-exps of a block of queries.

    `rest` holds the bounds, `[1]` each, of the loops over blocks of keys, and the outputs `[block,
    K]` and `[block]`. The loops are one with a mask, one without and one with again, or a single
    one with a mask.
    """
    *bounds, out_ref, lse_ref = rest
    q, start, end = q_ref[...], start_ref[...], end_ref[...]

    def keys(masked: bool, j: Array, carry: Arrays) -> Arrays:
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
    q_ref: Float[jax.Ref, "block K"],
    k_ref: Float[jax.Ref, "L K"],
    v_ref: Float[jax.Ref, "L K"],
    dout_ref: Float[jax.Ref, "block K"],
    start_ref: Int[jax.Ref, " block"],
    end_ref: Int[jax.Ref, " block"],
    lse_ref: Float[jax.Ref, " block"],
    delta_ref: Float[jax.Ref, " block"],
    first: Int[jax.Ref, " 1"],
    stop: Int[jax.Ref, " 1"],
    dq_ref: Float[jax.Ref, "block K"],
    *,
    block: int,
) -> None:
    """Compute the gradient of a block of queries."""
    q, dout, start, end = q_ref[...], dout_ref[...], start_ref[...], end_ref[...]
    lse, delta = lse_ref[...] * LOG2E, delta_ref[...]

    def keys(j: Array, dq: Array) -> Array:
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
    q_ref: Float[jax.Ref, "L K"],
    k_ref: Float[jax.Ref, "block K"],
    v_ref: Float[jax.Ref, "block K"],
    dout_ref: Float[jax.Ref, "L K"],
    start_ref: Int[jax.Ref, " L"],
    end_ref: Int[jax.Ref, " L"],
    lse_ref: Float[jax.Ref, " L"],
    delta_ref: Float[jax.Ref, " L"],
    first: Int[jax.Ref, " 1"],
    stop: Int[jax.Ref, " 1"],
    dk_ref: Float[jax.Ref, "block K"],
    dv_ref: Float[jax.Ref, "block K"],
    *,
    block: int,
) -> None:
    """Compute the gradient of a block of keys and values."""
    k, v = k_ref[...], v_ref[...]
    key = _numbers(pl.program_id(1), block, axis=0)

    def queries(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
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


def _numbers(i: Array, block: int, axis: int) -> Array:
    """Return `[block, block]`: the positions of the keys of block `i`, along `axis`."""
    return i * block + lax.broadcasted_iota(jnp.int32, (block, block), axis)


def _dot(a: Array, b: Array) -> Array:
    """Return the product in fp32; fp32 operands are not rounded to TF32."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jnp.dot(a, b, preferred_element_type=jnp.float32, precision=precision)
