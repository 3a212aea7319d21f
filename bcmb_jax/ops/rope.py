# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding, rotate-half (not interleaved), over the whole head.

On NVIDIA GPUs, in bf16, the gradient of what attention takes is a kernel: it turns those of queries
and keys back and writes them beside that of the values, as the product behind them takes all three.
XLA does the same at half of the memory's speed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P

from bcmb_jax.device import BATCH_AXES
from bcmb_jax.ops.triton import fill_up, gradient_is_a_kernel, on_each_device, triton_call

TOKENS = 16
"""Of a program of the kernel."""

Table = tuple[jax.Array, jax.Array]
Heads = tuple[jax.Array, jax.Array, jax.Array]


def rope_table(positions: jax.Array, theta: float, head_size: int) -> Table:
    """`(cos, sin)`, each `[B, L, 1, head_size / 2]` fp32, for `positions` `[B, L]`."""
    # Fidelity: upstream rounds the tables to bf16 when it trains in bf16; here they stay fp32.
    frequencies = 1.0 / theta ** (np.arange(0, head_size, 2, dtype=np.float32) / head_size)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies.reshape(1, 1, 1, -1)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """`x` `[B, L, H, D]` turned by its positions' angles; fp32. `(x1, x2)` are the two halves."""
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attention_operands(qkv: jax.Array, rope: Table, dtype: jnp.dtype) -> Heads:
    """Queries, scaled and turned, keys, turned, and values, each `[B, L, H, D]` in `dtype`, from
    `qkv` `[B, L, 3, H, D]`."""
    size = qkv.shape[-1]
    if gradient_is_a_kernel(qkv.dtype, size) and size & (size - 1) == 0:
        return with_kernel(qkv, rope)
    return _operands(qkv, rope, dtype)


def _operands(qkv: jax.Array, rope: Table, dtype: jnp.dtype) -> Heads:
    with jax.named_scope("qkv"):
        q, k, v = (x.squeeze(-3) for x in jnp.split(qkv, 3, axis=-3))
    with jax.named_scope("rotary"):
        q, k = rotate(q, *rope) * q.shape[-1] ** -0.5, rotate(k, *rope)
        return q.astype(dtype), k.astype(dtype), v.astype(dtype)


@jax.custom_vjp
def with_kernel(qkv: jax.Array, rope: Table) -> Heads:
    """As `attention_operands` in `qkv`'s dtype, with the kernel as its gradient."""
    return _operands(qkv, rope, qkv.dtype)


@jax.named_scope("rotary")
def _bwd(rope: Table, cotangents: Heads) -> tuple[jax.Array, None]:
    heads, table = P(BATCH_AXES, None, "tensor", None), P(BATCH_AXES, None, None, None)
    joined = P(BATCH_AXES, None, None, "tensor", None)
    gradient = on_each_device(_gradient, (heads,) * 3 + (table,) * 2, joined)
    return gradient(*cotangents, *rope), None


with_kernel.defvjp(lambda qkv, rope: (with_kernel(qkv, rope), rope), _bwd)


def _gradient(dq, dk, dv, cos, sin) -> jax.Array:
    batch, length, heads, size = dq.shape
    arrays = [x.reshape(batch * length, -1) for x in (dq, dk, dv, cos, sin)]
    arrays = [fill_up(x, 0, TOKENS) for x in arrays]
    programs = len(arrays[0]) // TOKENS

    def tokens(columns: int) -> pl.BlockSpec:
        return pl.BlockSpec((TOKENS, columns), lambda i: (i, 0))

    width = 3 * heads * size
    joined = triton_call(
        functools.partial(_gradient_kernel, size=size),
        "rotary_gradient",
        grid=(programs,),
        in_specs=[tokens(x.shape[1]) for x in arrays],
        out_specs=tokens(width),
        out_shape=jax.ShapeDtypeStruct((programs * TOKENS, width), dq.dtype),
    )(*arrays)
    return joined[: batch * length].reshape(batch, length, 3, heads, size)


def _gradient_kernel(dq_ref, dk_ref, dv_ref, cos_ref, sin_ref, joined_ref, *, size):
    """Turns back by the same angles; a query's scale is its gradient's."""
    width, half = dq_ref.shape[1], size // 2
    cos, sin = cos_ref[...], sin_ref[...]

    def head(h, _):
        for which, (ref, scale) in enumerate([(dq_ref, size**-0.5), (dk_ref, 1.0)]):
            here = [pl.ds(h * size + start, half) for start in (0, half)]
            there = [pl.ds(which * width + h * size + start, half) for start in (0, half)]
            first, second = (ref[:, x].astype(jnp.float32) * scale for x in here)
            joined_ref[:, there[0]] = (first * cos + second * sin).astype(joined_ref.dtype)
            joined_ref[:, there[1]] = (second * cos - first * sin).astype(joined_ref.dtype)
        values = pl.ds(h * size, size)
        joined_ref[:, pl.ds(2 * width + h * size, size)] = dv_ref[:, values]
        return 0

    lax.fori_loop(0, width // size, head, 0)
