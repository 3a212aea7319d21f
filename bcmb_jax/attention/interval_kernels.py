# SPDX-License-Identifier: Apache-2.0
"""The kernels of `bcmb_jax.attention.interval`: one block of queries, or of keys, of one head.

Idioms that the Triton lowering dictates: bounds of loops are loaded from arrays, since it has no
scalar prefetch; refs are sliced, never values; blocks are powers of two.
"""

import functools
import itertools
import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from bcmb_jax.attention.kernel import Arrays
from bcmb_jax.attention.mask import LEAST, MASKED, visible
from bcmb_jax.device import operand_precision

LOG2E = math.log2(math.e)

# Of a block or of a whole row, and the bounds of a loop.
HeadRef: TypeAlias = Float[jax.Ref, "_ K"]
BoundRefs: TypeAlias = tuple[Int[jax.Ref, " _"], Int[jax.Ref, " _"]]
TableRefs: TypeAlias = tuple[Float[jax.Ref, "block half"], Float[jax.Ref, "block half"]]
VisitRefs: TypeAlias = tuple[Int[jax.Ref, " 1"], ...]


def forward_kernel(
    heads: tuple[HeadRef, HeadRef, HeadRef],
    bounds: BoundRefs,
    visits: VisitRefs,
    out_ref: HeadRef,
    lse_ref: Float[jax.Ref, " block"],
    *,
    block: int,
) -> None:
    """Compute output and log-sum-exps of a block of queries.

    `visits` bound the loops over blocks of keys: one with a mask, one without and one with again,
    or a single one with a mask.
    """
    q_ref, k_ref, v_ref = heads
    q, start, end = q_ref[...], bounds[0][...], bounds[1][...]

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
    for n, (first, stop) in enumerate(itertools.pairwise(visits)):
        carry = lax.fori_loop(first[0], stop[0], functools.partial(keys, n != 1), carry)
    top, total, out = carry
    total = jnp.maximum(total, 1e-37)
    out_ref[...] = (out / total[:, None]).astype(out_ref.dtype)
    lse_ref[...] = (top + jnp.log2(total)) / LOG2E


def dq_kernel(
    heads: tuple[HeadRef, HeadRef, HeadRef],
    outs: tuple[HeadRef, HeadRef],
    bounds: BoundRefs,
    table: TableRefs,
    lse_ref: Float[jax.Ref, " block"],
    visits: VisitRefs,
    dq_ref: HeadRef,
    delta_ref: Float[jax.Ref, " block"],
    *,
    block: int,
) -> None:
    """Compute the gradient of a block of queries, and the sums of `out · dout` over the head."""
    q_ref, k_ref, v_ref = heads
    q, dout, start, end = q_ref[...], outs[1][...], bounds[0][...], bounds[1][...]
    lse = lse_ref[...][:, None]
    delta = (outs[0][...].astype(jnp.float32) * dout.astype(jnp.float32)).sum(1)
    delta_ref[...] = delta

    def keys(j: Array, dq: Array) -> Array:
        here = pl.ds(j * block, block)
        k, v = k_ref[here, :], v_ref[here, :]
        seen = visible(start[:, None], end[:, None], _numbers(j, block, axis=1))
        _, dscores = _weights_and_gradient(seen, q, k, dout, v, lse, delta[:, None])
        return dq + _dot(dscores.astype(k.dtype), k)

    dq = lax.fori_loop(visits[0][0], visits[1][0], keys, jnp.zeros(q.shape, jnp.float32))
    size = q.shape[1]
    for here, half in _rotated_back(dq * size**-0.5, table):
        dq_ref[:, here] = half.astype(dq_ref.dtype)


def dkv_kernel(
    _: Float[jax.Ref, "block 3 K"],
    heads: tuple[HeadRef, HeadRef, HeadRef],
    dout_ref: HeadRef,
    bounds: BoundRefs,
    table: TableRefs,
    queries: tuple[Float[jax.Ref, " L"], Float[jax.Ref, " L"]],
    visits: VisitRefs,
    dqkv_ref: Float[jax.Ref, "block 3 K"],
    *,
    block: int,
) -> None:
    """Compute the gradient of a block of keys and values, beside that of the queries.

    Scores are key-major, so that the weights need no transpose on their way to dv.
    """
    q_ref, k_ref, v_ref = heads
    k, v = k_ref[...], v_ref[...]
    key = _numbers(pl.program_id(1), block, axis=0)

    def queries_of(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        dk, dv = carry
        here = pl.ds(i * block, block)
        q, dout = q_ref[here, :], dout_ref[here, :]
        start, end, lse, delta = (x[here][None, :] for x in (*bounds, *queries))
        seen = visible(start, end, key)
        weights, dscores = _weights_and_gradient(seen, k, q, v, dout, lse, delta)
        dv = dv + _dot(weights.astype(dout.dtype), dout)
        return dk + _dot(dscores.astype(q.dtype), q), dv

    zeros = jnp.zeros(k.shape, jnp.float32)
    dk, dv = lax.fori_loop(visits[0][0], visits[1][0], queries_of, (zeros, zeros))
    for here, half in _rotated_back(dk, table):
        dqkv_ref[:, 1, here] = half.astype(dqkv_ref.dtype)
    dqkv_ref[:, 2, :] = dv.astype(dqkv_ref.dtype)


def _rotated_back(gradient: Array, table: TableRefs) -> list[tuple[slice | pl.Slice, Array]]:
    """Return where each half of a head is written, and the half, of a gradient rotated back."""
    half = gradient.shape[1] // 2
    # Values cannot be sliced: of two halves the one is summed with zeros for the other.
    parts = gradient.reshape(-1, 2, half)
    number = lax.broadcasted_iota(jnp.int32, parts.shape, 1)
    first, second = (jnp.where(number == n, parts, 0.0).sum(1) for n in (0, 1))
    cos, sin = table[0][...], table[1][...]
    rotated = first * cos + second * sin, second * cos - first * sin
    return [(pl.ds(n * half, half), x) for n, x in enumerate(rotated)]


def _weights_and_gradient(
    seen: Array, a: Array, b: Array, da: Array, db: Array, lse: Array, delta: Array
) -> tuple[Array, Array]:
    """Return softmax weights and the gradient of the scores `a · b`, one of which is the queries.

    With queries come the output's gradients, with keys the values, as `da` and `db`.
    """
    scores = jnp.where(seen, _dot(a, b.T), MASKED)
    weights = jnp.exp2(scores * LOG2E - lse * LOG2E)
    return weights, weights * (_dot(da, db.T) - delta)


def _numbers(i: Array, block: int, axis: int) -> Array:
    """Return `[block, block]`: the positions of the keys of block `i`, along `axis`."""
    return i * block + lax.broadcasted_iota(jnp.int32, (block, block), axis)


def _dot(a: Array, b: Array) -> Array:
    """Return the product in fp32; fp32 operands are rounded only in `products_in("tf32")`."""
    precision = operand_precision(a.dtype)
    return jnp.dot(a, b, preferred_element_type=jnp.float32, precision=precision)
