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
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

from bcmb_jax.attention.kernel import Arrays, Bounds, Heads, Queries
from bcmb_jax.attention.mask import (
    LEAST,
    MASKED,
    fully_visible_keys,
    visible,
    visited_keys,
    visited_queries,
)
from bcmb_jax.device import on_cpu, operand_precision
from bcmb_jax.errors import InputError
from bcmb_jax.ops.triton import pad_to_multiple

LOG2E = math.log2(math.e)

# Of a block or of a whole row, and the bounds of a loop.
HeadRefs: TypeAlias = tuple[Float[jax.Ref, "_ K"], ...]
BoundRefs: TypeAlias = tuple[Int[jax.Ref, " _"], Int[jax.Ref, " _"]]
QueryRefs: TypeAlias = tuple[Float[jax.Ref, " _"], Float[jax.Ref, " _"]]
VisitRefs: TypeAlias = tuple[Int[jax.Ref, " 1"], ...]


@dataclasses.dataclass(frozen=True)
class Interval:
    """The `Kernel` for any key intervals.

    Attributes:
      unmasked: in the forward pass, blocks of keys that all queries of a block see have a loop of
        their own, without a mask: a quarter less time in long documents, more in local layers.

    Raises:
      InputError: a head size that is not a power of two from 16 to 128.
    """

    unmasked: bool = False

    def forward(self, heads: Heads, bounds: Bounds) -> Arrays:
        """Return the output and the log-sum-exps (see `Kernel`)."""
        at = _Programs(heads[0])
        heads, (start, end) = at.pad(1, *heads), at.pad(1, *bounds)
        visits = (fully_visible_keys if self.unmasked else visited_keys)(
            start, end, at.block, at.block
        )
        per_query = jax.ShapeDtypeStruct((*heads[0].shape[::2], heads[0].shape[1]), jnp.float32)
        block, whole = at.block_of_heads, at.heads
        out, lse = at.call(
            _forward_kernel,
            [(block, whole, whole), (at.block_of_row,) * 2, (at.number,) * len(visits)],
            [heads[0], per_query],
            stages=3 if self.unmasked else 2,
        )(heads, (start, end), visits)
        return out[:, : at.length], lse[..., : at.length]

    def backward(self, heads: Heads, bounds: Bounds, queries: Queries) -> Arrays:
        """Return the gradients of queries, keys and values (see `Kernel`)."""
        at = _Programs(heads[0])
        heads, (start, end) = at.pad(1, *heads), at.pad(1, *bounds)
        inputs = heads, (start, end), at.pad(2, *queries)
        block, whole, visits = at.block_of_heads, at.heads, (at.number,) * 2
        blocks = (at.block_of_row,) * 2, (at.block_of_queries,) * 2, visits
        dq = at.call(_dq_kernel, [(block, whole, whole, block), *blocks], heads[:1])(
            *inputs, visited_keys(start, end, at.block, at.block)
        )
        rows = (at.row,) * 2, (at.queries,) * 2, visits
        dk_dv = at.call(_dkv_kernel, [(whole, block, block, whole), *rows], heads[1:3])(
            *inputs, visited_queries(start, end, at.block)
        )
        return tuple(x[:, : at.length] for x in (*dq, *dk_dv))


class _Programs:
    """The programs of a kernel, for head `h`, block `i` and row `b`, and specs of their arrays.

    A whole row is a pointer until it is sliced.
    """

    def __init__(self, q: Array):
        batch, self.length, heads, size = q.shape
        if size & (size - 1) or not 16 <= size <= 128:
            raise InputError(
                f"the interval kernel takes head sizes 16, 32, 64 and 128, not {size}; "
                "implementation='xla' takes any"
            )
        # Queries, and keys. Larger ones spill registers in dk/dv, on H100 and A100.
        self.block = block = 32 if q.dtype == jnp.float32 else 64
        padded = -(-self.length // block) * block
        # Heads first: neighbouring programs then share the cache lines of [B, L, H, D].
        self.grid = heads, padded // block, batch
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

    def pad(self, axis: int, *arrays: Array) -> Arrays:
        """Return `arrays` with whole blocks along `axis`."""
        return tuple(pad_to_multiple(x, axis, self.block) for x in arrays)

    def call(
        self,
        kernel: Callable[..., None],
        inputs: list[tuple[pl.BlockSpec, ...]],
        outputs: Sequence[Array | jax.ShapeDtypeStruct],
        stages: int = 2,
    ) -> Callable[..., Arrays]:
        """Return the call of `kernel`, each program of which writes its block of `outputs`."""
        return pl.pallas_call(
            functools.partial(kernel, block=self.block),  # one for each grid (jax issue 40847)
            grid=self.grid,
            in_specs=inputs,
            out_specs=[
                self.block_of_heads if len(x.shape) == 4 else self.block_of_queries for x in outputs
            ],
            out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in outputs],
            compiler_params=plt.CompilerParams(num_warps=4, num_stages=stages),
            interpret=on_cpu(),  # for tests
            name="attention" + kernel.__name__.removesuffix("_kernel"),
        )


def _forward_kernel(
    heads: HeadRefs,
    bounds: BoundRefs,
    visits: VisitRefs,
    out_ref: Float[jax.Ref, "block K"],
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


def _dq_kernel(
    heads: HeadRefs,
    bounds: BoundRefs,
    queries: QueryRefs,
    visits: VisitRefs,
    dq_ref: Float[jax.Ref, "block K"],
    *,
    block: int,
) -> None:
    """Compute the gradient of a block of queries."""
    q_ref, k_ref, v_ref, dout_ref = heads
    q, dout, start, end = q_ref[...], dout_ref[...], bounds[0][...], bounds[1][...]
    lse, delta = (x[...][:, None] for x in queries)

    def keys(j: Array, dq: Array) -> Array:
        here = pl.ds(j * block, block)
        k, v = k_ref[here, :], v_ref[here, :]
        seen = visible(start[:, None], end[:, None], _numbers(j, block, axis=1))
        _, dscores = _weights_and_gradient(seen, q, k, dout, v, lse, delta)
        return dq + _dot(dscores.astype(k.dtype), k)

    dq = lax.fori_loop(visits[0][0], visits[1][0], keys, jnp.zeros(q.shape, jnp.float32))
    dq_ref[...] = dq.astype(dq_ref.dtype)


def _dkv_kernel(
    heads: HeadRefs,
    bounds: BoundRefs,
    queries: QueryRefs,
    visits: VisitRefs,
    dk_ref: Float[jax.Ref, "block K"],
    dv_ref: Float[jax.Ref, "block K"],
    *,
    block: int,
) -> None:
    """Compute the gradient of a block of keys and values.

    Scores are key-major, so that the weights need no transpose on their way to dv.
    """
    q_ref, k_ref, v_ref, dout_ref = heads
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
    dk_ref[...], dv_ref[...] = dk.astype(dk_ref.dtype), dv.astype(dv_ref.dtype)


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
