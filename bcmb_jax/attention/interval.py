# SPDX-License-Identifier: Apache-2.0
"""Attention by key intervals on NVIDIA GPUs (Ampere and later), written in Pallas for Triton.

One kernel for local and global layers: a block of queries visits exactly the blocks of keys that
any of its intervals touches, and in the backward pass a block of keys exactly the queries that see
it. Four launches, rotation, forward, dq and dk/dv; every output block has one writer, so there are
no atomics and results repeat to the bit. On a CPU the kernels run in Pallas's interpreter, for
tests.

Queries, keys and values stay where the product before attention wrote them, `[B, L, 3, H, K]`:
queries and keys are rotated there, and their gradients are rotated back before they are written
beside those of the values, as the product behind takes them.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from bcmb_jax.attention.interval_kernels import dkv_kernel, dq_kernel, forward_kernel
from bcmb_jax.attention.kernel import Arrays, Bounds
from bcmb_jax.attention.mask import fully_visible_keys, visited_keys, visited_queries
from bcmb_jax.errors import InputError
from bcmb_jax.ops.remat import ATTENTION_OUTPUT, QKV
from bcmb_jax.ops.rope import Table, rotate_in_place
from bcmb_jax.ops.triton import call, pad_to_multiple

Joined: TypeAlias = Float[Array, "B L 3 H K"]
Visits: TypeAlias = tuple[tuple[Int[Array, "B blocks"], ...], tuple[Int[Array, "B blocks"], ...]]
"""Bounds of the loops of each block of queries over blocks of keys: two around one loop with a
mask, or four around one with, one without and one with again. Then two of the loop of each block of
keys over blocks of queries."""


def visits(bounds: Bounds, dtype: jnp.dtype, *, unmasked: bool) -> Visits:
    """Return the blocks to visit where queries see the keys of `bounds`.

    Args:
      unmasked: in the forward pass, blocks of keys that all queries of a block see have a loop of
        their own, without a mask: a quarter less time in long documents, more in local layers.
    """
    block = _block(dtype)
    start, end = (pad_to_multiple(x, 1, block) for x in bounds)
    keys = (fully_visible_keys if unmasked else visited_keys)(start, end, block, block)
    return keys, visited_queries(start, end, block)


@jax.custom_vjp
def attend(qkv: Joined, rope: Table, bounds: Bounds, visits: Visits) -> Float[Array, "B L H K"]:
    """Return the attention of queries, scaled by `K ** -0.5` and rotated, to rotated keys.

    Raises:
      InputError: a head size that is not a power of two from 16 to 128.
    """
    return _forward(qkv, rope, bounds, visits)[0]


def _forward(
    qkv: Joined, rope: Table, bounds: Bounds, visits: Visits
) -> tuple[Array, tuple[Any, ...]]:
    at = _Programs(qkv)
    with jax.named_scope("rotary"):
        turned = checkpoint_name(rotate_in_place(at.pad(1, qkv)[0], *at.pad(1, *rope)), QKV)
    start, end = at.pad(1, *bounds)
    batch, length, _, heads, size = turned.shape
    out, lse = at.call(
        forward_kernel,
        [
            (at.block_of(0), at.row_of(1), at.row_of(2)),
            (at.bounds,) * 2,
            (at.visit,) * len(visits[0]),
        ],
        [at.heads, at.queries],
        [
            jax.ShapeDtypeStruct((batch, length, heads, size), qkv.dtype),
            jax.ShapeDtypeStruct((batch, heads, length), jnp.float32),
        ],
        stages=3 if len(visits[0]) == 4 else 2,
    )((turned,) * 3, (start, end), visits[0])
    out, lse = (checkpoint_name(x, ATTENTION_OUTPUT) for x in (out, lse))
    return out[:, : at.length], (turned, rope, (start, end), visits, out, lse)


def _backward(residuals: tuple[Any, ...], dout: Array) -> tuple[Array, None, None, None]:
    turned, rope, bounds, visits, out, lse = residuals
    at = _Programs(turned)
    length = dout.shape[1]
    rope, (dout,) = at.pad(1, *rope), at.pad(1, dout.astype(out.dtype))
    q, k, v, table = at.block_of(0), at.row_of(1), at.row_of(2), (at.table,) * 2
    joined, per_query = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (turned, lse))
    dqkv, delta = at.call(
        dq_kernel,
        [(q, k, v), (at.heads,) * 2, (at.bounds,) * 2, table, at.queries, (at.visit,) * 2],
        [at.block_of(0), at.queries],
        [joined, per_query],
    )((turned,) * 3, (out, dout), bounds, rope, lse, (visits[0][0], visits[0][-1]))
    (dqkv,) = at.call(
        dkv_kernel,
        [
            at.blocks,
            (at.row_of(0), at.block_of(1), at.block_of(2)),
            at.row_of_heads,
            (at.row,) * 2,
            table,
            (at.row_of_queries,) * 2,
            (at.visit,) * 2,
        ],
        [at.blocks],
        [joined],
        aliases={0: 0},
    )(dqkv, (turned,) * 3, dout, bounds, rope, (lse, delta), visits[1])
    return dqkv[:, :length], None, None, None


attend.defvjp(_forward, _backward)


def _block(dtype: jnp.dtype) -> int:
    """Return how many queries, and keys, a block has.

    Larger ones spill registers in dk/dv, on H100 and A100.
    """
    return 32 if dtype == jnp.float32 else 64


class _Programs:
    """The programs of a kernel, for head `h`, block `i` and row `b`, and specs of their arrays.

    A whole row is a pointer until it is sliced.
    """

    def __init__(self, qkv: Joined):
        batch, self.length, _, heads, size = qkv.shape
        if size & (size - 1) or not 16 <= size <= 128:
            raise InputError(
                f"the interval kernel takes head sizes 16, 32, 64 and 128, not {size}; "
                "implementation='xla' takes any"
            )
        self.block = block = _block(qkv.dtype)
        self.padded = padded = -(-self.length // block) * block
        # Heads first: neighbouring programs then share the cache lines of [B, L, 3, H, K].
        self.grid = heads, padded // block, batch
        self.size = size
        # [B, L, 3, H, K]
        self.blocks = pl.BlockSpec((None, block, 3, None, size), lambda h, i, b: (b, i, 0, h, 0))
        # [B, L, H, K]
        self.heads = pl.BlockSpec((None, block, None, size), lambda h, i, b: (b, i, h, 0))
        self.row_of_heads = pl.BlockSpec((None, padded, None, size), lambda h, i, b: (b, 0, h, 0))
        # [B, L, 1, half]
        self.table = pl.BlockSpec((None, block, None, size // 2), lambda h, i, b: (b, i, 0, 0))
        # [B, L]
        self.bounds = pl.BlockSpec((None, block), lambda h, i, b: (b, i))
        self.row = pl.BlockSpec((None, padded), lambda h, i, b: (b, 0))
        # [B, H, L]
        self.queries = pl.BlockSpec((None, None, block), lambda h, i, b: (b, h, i))
        self.row_of_queries = pl.BlockSpec((None, None, padded), lambda h, i, b: (b, h, 0))
        # [B, blocks]
        self.visit = pl.BlockSpec((None, 1), lambda h, i, b: (b, i))

    def block_of(self, which: int) -> pl.BlockSpec:
        """Return a block of queries (0), keys (1) or values (2) of `[B, L, 3, H, K]`."""
        shape = (None, self.block, None, None, self.size)
        return pl.BlockSpec(shape, lambda h, i, b: (b, i, which, h, 0))

    def row_of(self, which: int) -> pl.BlockSpec:
        """Return a row's queries (0), keys (1) or values (2) of `[B, L, 3, H, K]`."""
        shape = (None, self.padded, None, None, self.size)
        return pl.BlockSpec(shape, lambda h, i, b: (b, 0, which, h, 0))

    def pad(self, axis: int, *arrays: Array) -> Arrays:
        """Return `arrays` with whole blocks along `axis`."""
        return tuple(pad_to_multiple(x, axis, self.block) for x in arrays)

    def call(
        self,
        kernel: Callable[..., None],
        inputs: list[Any],
        outputs: list[pl.BlockSpec],
        shapes: list[jax.ShapeDtypeStruct],
        *,
        stages: int = 2,
        aliases: dict[int, int] | None = None,
    ) -> Callable[..., Arrays]:
        """Return the call of `kernel`, each program of which writes its block of the outputs."""
        return call(
            functools.partial(kernel, block=self.block),  # one for each grid (jax issue 40847)
            "attention_" + kernel.__name__.removesuffix("_kernel"),
            self.grid,
            inputs,
            outputs,
            shapes,
            stages=stages,
            aliases=aliases,
        )
