# SPDX-License-Identifier: Apache-2.0
"""GeGLU, `gelu(a) · b`; on NVIDIA GPUs, in bf16, its gradient is a kernel.

XLA writes the gradients of `a` and `b` side by side, as the product behind them takes them, in a
loop for each, both of which compute the error function; the kernel computes it once.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P

from bcmb_jax.device import BATCH_AXES
from bcmb_jax.ops.linear import accumulation_dtype
from bcmb_jax.ops.triton import fill_up, gradient_is_a_kernel, on_each_device, pieces, triton_call

TOKENS = 16
"""Of a program of the kernel."""
WIDEST_PIECE = 128


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU of ModernBERT, by erf as PyTorch has it; `jax.nn.gelu` takes twice the time
    with erfc, or approximates."""
    return 0.5 * x * (1.0 + lax.erf(x * math.sqrt(0.5)))


def geglu(inner: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`[B, L, I]` in `dtype` from `inner` `[B, L, 2, I]`, `a` before `b`; computed in
    `accumulation_dtype(dtype)`, fp32."""
    if gradient_is_a_kernel(inner.dtype, inner.shape[-1]):
        return with_kernel(inner, dtype)
    return _geglu(inner, dtype)


def _geglu(inner: jax.Array, dtype: jnp.dtype) -> jax.Array:
    halves = jnp.split(inner.astype(accumulation_dtype(dtype)), 2, axis=-2)
    activated, gate = (y.squeeze(-2) for y in halves)
    return (gelu(activated) * gate).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def with_kernel(inner: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """As `geglu`, with the kernel as its gradient."""
    return _geglu(inner, dtype)


def _bwd(_, inner: jax.Array, dout: jax.Array) -> tuple[jax.Array]:
    halves, whole = P(BATCH_AXES, None, None, "tensor"), P(BATCH_AXES, None, "tensor")
    return (on_each_device(_gradient, (halves, whole), halves)(inner, dout),)


with_kernel.defvjp(lambda inner, dtype: (with_kernel(inner, dtype), inner), _bwd)


def _gradient(inner: jax.Array, dout: jax.Array) -> jax.Array:
    size = inner.shape[-1]
    piece, count = pieces(size, WIDEST_PIECE)
    rows = fill_up(inner.reshape(-1, 2, size), 0, TOKENS)
    douts = fill_up(dout.reshape(-1, size), 0, TOKENS)
    halves = pl.BlockSpec((TOKENS, 2, piece), lambda i, j: (i, 0, j))
    dinner = triton_call(
        _gradient_kernel,
        "geglu_gradient",
        grid=(len(rows) // TOKENS, count),
        in_specs=[halves, pl.BlockSpec((TOKENS, piece), lambda i, j: (i, j))],
        out_specs=halves,
        out_shape=jax.ShapeDtypeStruct(rows.shape, rows.dtype),
    )(rows, douts)
    return dinner[: dout.size // size].reshape(inner.shape)


def _gradient_kernel(inner_ref, dout_ref, dinner_ref):
    a, b, dout = (x.astype(jnp.float32) for x in (inner_ref[:, 0], inner_ref[:, 1], dout_ref[...]))
    bell = jnp.exp(-0.5 * a * a)
    below = _normal_cdf(a, bell)
    slope = below + a * bell / math.sqrt(2 * math.pi)
    dinner_ref[:, 0] = (dout * b * slope).astype(dinner_ref.dtype)
    dinner_ref[:, 1] = (dout * a * below).astype(dinner_ref.dtype)


def _normal_cdf(x: jax.Array, bell: jax.Array) -> jax.Array:
    """`(1 + erf(x / √2)) / 2`, within 3e-7, from `bell`, `exp(-x² / 2)` (Abramowitz and Stegun
    7.1.26; Triton's lowering knows no erf)."""
    t = 1.0 / (1.0 + 0.3275911 * math.sqrt(0.5) * jnp.abs(x))
    tail = 0.5 * 1.061405429 * t
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = (tail + 0.5 * coefficient) * t
    tail = tail * bell
    return jnp.where(x < 0, tail, 1.0 - tail)
