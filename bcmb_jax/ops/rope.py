# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding, rotate-half (not interleaved), over the whole head.

On NVIDIA GPUs, in bf16, the gradient of attention's operands is a kernel: it rotates the gradients
of queries and keys back and writes them beside that of the values, as the product behind them takes
all three. XLA does the same at half of the memory's speed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float32, Int

from bcmb_jax.device import BATCH_AXES
from bcmb_jax.ops.triton import gradient_is_a_kernel, map_tokens, on_each_device

TOKENS_PER_BLOCK = 16  # tokens handled by one Triton program

Table = tuple[Float[Array, "B L 1 half"], Float[Array, "B L 1 half"]]
"""Cosines and sines of each position's angles, fp32."""
Heads = tuple[Float[Array, "B L H K"], Float[Array, "B L H K"], Float[Array, "B L H K"]]
"""Queries, keys and values."""


def rope_frequencies(theta: float, head_size: int) -> Float32[np.ndarray, " half"]:
    """Return the angle of each pair of a head's elements from one position to the next."""
    # Fidelity: upstream takes the power in fp32, where PyTorch, NumPy and different CPUs differ by
    # two units in the last place: 2.4e-4 rad at position 8,192. In float64, rounded once, they are
    # the same everywhere.
    exponents = -np.arange(0, head_size, 2) / head_size
    return np.power(np.float64(theta), exponents).astype(np.float32)


def rope_table(positions: Int[Array | np.ndarray, "B L"], theta: float, head_size: int) -> Table:
    """Return `(cos, sin)` of the angles of `positions`."""
    # Fidelity: upstream rounds the tables to bf16 when it trains in bf16; here they stay fp32.
    frequencies = rope_frequencies(theta, head_size).reshape(1, 1, 1, -1)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "B L H K"], cos: Float[Array, "B L 1 half"], sin: Float[Array, "B L 1 half"]
) -> Float[Array, "B L H K"]:
    """Return the heads `x` rotated by their positions' angles, in fp32.

    The two halves of a head are the pairs' first and second components.
    """
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attention_operands(qkv: Float[Array, "B L 3 H K"], rope: Table, dtype: jnp.dtype) -> Heads:
    """Return queries, scaled and rotated, keys, rotated, and values, in `dtype`."""
    size = qkv.shape[-1]
    if gradient_is_a_kernel(qkv.dtype, size) and size & (size - 1) == 0:
        return with_kernel(qkv, rope)
    return _operands(qkv, rope, dtype)


def _operands(qkv: Array, rope: Table, dtype: jnp.dtype) -> Heads:
    with jax.named_scope("qkv"):
        q, k, v = (x.squeeze(-3) for x in jnp.split(qkv, 3, axis=-3))
    with jax.named_scope("rotary"):
        q, k = rotate(q, *rope) * q.shape[-1] ** -0.5, rotate(k, *rope)
        return q.astype(dtype), k.astype(dtype), v.astype(dtype)


@jax.custom_vjp
def with_kernel(qkv: Float[Array, "B L 3 H K"], rope: Table) -> Heads:
    """Return the result of `attention_operands` in `qkv`'s dtype, the kernel as its gradient."""
    return _operands(qkv, rope, qkv.dtype)


@jax.named_scope("rotary")
def _backward(rope: Table, cotangents: Heads) -> tuple[Array, None]:
    heads, table = P(BATCH_AXES, None, "tensor", None), P(BATCH_AXES, None, None, None)
    joined = P(BATCH_AXES, None, None, "tensor", None)
    gradient = on_each_device(_gradient, (heads,) * 3 + (table,) * 2, joined)
    return gradient(*cotangents, *rope), None


with_kernel.defvjp(lambda qkv, rope: (with_kernel(qkv, rope), rope), _backward)


def _gradient(
    dq: Float[Array, "B L H K"],
    dk: Float[Array, "B L H K"],
    dv: Float[Array, "B L H K"],
    cos: Float[Array, "B L 1 half"],
    sin: Float[Array, "B L 1 half"],
) -> Float[Array, "B L 3 H K"]:
    batch, length, heads, size = dq.shape
    arrays = [x.reshape(batch * length, -1) for x in (dq, dk, dv, cos, sin)]
    shape = jax.ShapeDtypeStruct((batch * length, 3 * heads * size), dq.dtype)
    kernel = functools.partial(_gradient_kernel, size=size)
    (joined,) = map_tokens(kernel, "rotary_gradient", TOKENS_PER_BLOCK, arrays, [shape])
    return joined.reshape(batch, length, 3, heads, size)


def _gradient_kernel(
    dq_ref: Float[jax.Ref, "T width"],
    dk_ref: Float[jax.Ref, "T width"],
    dv_ref: Float[jax.Ref, "T width"],
    cos_ref: Float[jax.Ref, "T half"],
    sin_ref: Float[jax.Ref, "T half"],
    joined_ref: Float[jax.Ref, "T three_widths"],
    *,
    size: int,
) -> None:
    """Rotate the gradients of a block of `T` tokens back; a query's scale is its gradient's."""
    width, half = dq_ref.shape[1], size // 2
    cos, sin = cos_ref[...], sin_ref[...]

    def head(h: Array, _: Array) -> int:
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
