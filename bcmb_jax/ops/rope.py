# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding, rotate-half (not interleaved), over the whole head."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Float32, Int

from bcmb_jax.ops.triton import call

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
    with jax.named_scope("qkv"):
        q, k, v = (x.squeeze(-3) for x in jnp.split(qkv, 3, axis=-3))
    with jax.named_scope("rotary"):
        q, k = rotate(q, *rope) * q.shape[-1] ** -0.5, rotate(k, *rope)
        return q.astype(dtype), k.astype(dtype), v.astype(dtype)


def rotate_in_place(
    qkv: Float[Array, "B L 3 H K"],
    cos: Float[Array, "B L 1 half"],
    sin: Float[Array, "B L 1 half"],
) -> Float[Array, "B L 3 H K"]:
    """Return the results of `attention_operands` joined, written over `qkv` by a kernel.

    Values are not touched; `B · L` is a multiple of `TOKENS_PER_BLOCK`.
    """
    size = qkv.shape[-1]
    joined, *table = (x.reshape(-1, math.prod(x.shape[2:])) for x in (qkv, cos, sin))
    specs = [
        pl.BlockSpec((TOKENS_PER_BLOCK, x.shape[1]), lambda i: (i, 0)) for x in (joined, *table)
    ]
    (rotated,) = call(
        functools.partial(_rotate_kernel, size=size),
        "rotary",
        (len(joined) // TOKENS_PER_BLOCK,),
        specs,
        specs[:1],
        [jax.ShapeDtypeStruct(joined.shape, joined.dtype)],
        aliases={0: 0},
    )(joined, *table)
    return rotated.reshape(qkv.shape)


def _rotate_kernel(
    qkv_ref: Float[jax.Ref, "T three_widths"],
    cos_ref: Float[jax.Ref, "T half"],
    sin_ref: Float[jax.Ref, "T half"],
    rotated_ref: Float[jax.Ref, "T three_widths"],
    *,
    size: int,
) -> None:
    """Scale and rotate the queries and rotate the keys of a block of `T` tokens."""
    width, half = qkv_ref.shape[1] // 3, size // 2
    cos, sin = cos_ref[...], sin_ref[...]

    def head(h: Array, _: Array) -> int:
        for start, scale in ((0, size**-0.5), (width, 1.0)):
            here = [pl.ds(start + h * size + offset, half) for offset in (0, half)]
            first, second = (qkv_ref[:, x].astype(jnp.float32) * scale for x in here)
            rotated_ref[:, here[0]] = (first * cos - second * sin).astype(rotated_ref.dtype)
            rotated_ref[:, here[1]] = (second * cos + first * sin).astype(rotated_ref.dtype)
        return 0

    lax.fori_loop(0, width // size, head, 0)
