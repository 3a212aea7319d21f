# SPDX-License-Identifier: Apache-2.0
"""Layer norm; of one that begins a branch of the residual stream, the gradient is a kernel on
NVIDIA GPUs, in bf16.

XLA makes two passes over memory of that gradient, the second for the weight's; the kernel makes
one, and adds the stream's own gradient on the way.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P

from bcmb_jax.device import BATCH_AXES
from bcmb_jax.ops.linear import scaled
from bcmb_jax.ops.triton import fill_up, gradient_is_a_kernel, on_each_device, pieces, triton_call

TOKENS, AT_ONCE = 64, 4
"""Of a program of the kernel, and how many of them it holds, one a warp."""
WIDEST = 1024
"""A token's elements that fit in registers, with their gradients (235 of 255 a thread)."""
WIDEST_PIECE = 256


class LayerNorm(nnx.Module):
    """Mean and variance normalised, scaled, no bias; in the dtype of `x`, which is fp32."""

    def __init__(self, size: int, eps: float):
        self.weight = nnx.Param(jnp.ones(size))
        self.eps = eps

    @jax.named_scope("norm")
    def __call__(self, x: jax.Array) -> jax.Array:
        return layer_norm(x, self.weight[...], self.eps)

    @jax.named_scope("norm")
    def branch(self, x: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
        """`x` `[B, L, D]`, as the residual stream goes on, and its norm in `dtype`."""
        size = x.shape[-1]
        if gradient_is_a_kernel(dtype, size) and size <= WIDEST:
            return with_kernel(x, self.weight[...], self.eps, dtype)
        return x, self(x).astype(dtype)


def layer_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """`[..., D]` from `x` `[..., D]` and `weight` `[D]`."""
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return scaled(centred * lax.rsqrt(variance + eps), weight)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def with_kernel(
    x: jax.Array, weight: jax.Array, eps: float, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array]:
    """`x` `[B, L, D]` fp32 and its norm in `dtype`, with the kernel as their gradient."""
    return x, layer_norm(x, weight, eps).astype(dtype)


def _fwd(x, weight, *rest):
    return with_kernel(x, weight, *rest), (x, weight)


@jax.named_scope("norm")
def _bwd(eps: float, _, residuals, cotangents):
    rows = P(BATCH_AXES)
    gradient = on_each_device(
        functools.partial(_gradient, eps), (rows, P(), rows, rows), (rows, rows)
    )
    dx, dweight = gradient(*residuals, *cotangents)
    return dx, dweight.sum(0)


with_kernel.defvjp(_fwd, _bwd)


def _gradient(eps, x, weight, dstream, dnormed) -> tuple[jax.Array, jax.Array]:
    """`x`'s `[B, L, D]`, and the weight's as sums over the tokens of each program."""
    size = x.shape[-1]
    arrays = [fill_up(y.reshape(-1, size), 0, TOKENS) for y in (x, dstream, dnormed)]
    programs = len(arrays[0]) // TOKENS
    of_tokens = pl.BlockSpec((TOKENS, size), lambda i: (i, 0))
    dx, dweight = triton_call(
        functools.partial(_gradient_kernel, eps),
        "norm_gradient",
        grid=(programs,),
        in_specs=[pl.BlockSpec((size,), lambda i: (0,)), *[of_tokens] * 3],
        out_specs=[of_tokens, pl.BlockSpec((None, size), lambda i: (i, 0))],
        out_shape=[
            jax.ShapeDtypeStruct(arrays[0].shape, x.dtype),
            jax.ShapeDtypeStruct((programs, size), jnp.float32),
        ],
    )(weight, *arrays)
    return dx[: x.size // size].reshape(x.shape), dweight


def _gradient_kernel(eps, weight_ref, x_ref, dstream_ref, dnormed_ref, dx_ref, dweight_ref):
    """Blocks are powers of two, so a token's elements come in pieces: 768 as three of 256."""
    tokens, size = x_ref.shape
    piece, count = pieces(size, WIDEST_PIECE)
    parts = [pl.ds(i * piece, piece) for i in range(count)]
    weights = [weight_ref[p][None] for p in parts]

    def mean(values):
        return sum(value.sum(1) for value in values)[:, None] / size

    def step(i, dweights):
        here = pl.ds(i * AT_ONCE, AT_ONCE)
        x = [x_ref[here, p] for p in parts]
        x_mean = mean(x)
        centred = [part - x_mean for part in x]
        inverse = lax.rsqrt(mean([part * part for part in centred]) + eps)
        normed = [part * inverse for part in centred]
        douts = [dnormed_ref[here, p].astype(jnp.float32) for p in parts]
        scaled_douts = [dout * weight for dout, weight in zip(douts, weights, strict=True)]
        along_one = mean(scaled_douts)
        along_x = mean([d * n for d, n in zip(scaled_douts, normed, strict=True)])
        for p, d, n in zip(parts, scaled_douts, normed, strict=True):
            dx_ref[here, p] = dstream_ref[here, p] + inverse * (d - along_one - n * along_x)
        return tuple(sums + dout * n for sums, dout, n in zip(dweights, douts, normed, strict=True))

    zeros = jnp.zeros((AT_ONCE, piece), jnp.float32)
    dweights = lax.fori_loop(0, tokens // AT_ONCE, step, (zeros,) * count)
    for p, sums in zip(parts, dweights, strict=True):
        dweight_ref[p] = sums.sum(0)
