# SPDX-License-Identifier: Apache-2.0
"""Layer norm without a bias.

Where a norm begins a branch of the residual stream, its gradient is a kernel on NVIDIA GPUs, in
bf16: XLA makes two passes over memory of that gradient, the second for the weight's; the kernel
makes one, and adds the stream's own gradient on the way.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from bcmb_jax.device import BATCH_AXES
from bcmb_jax.ops.cpu import column_sums
from bcmb_jax.ops.triton import gradient_is_a_kernel, map_tokens, on_each_device, pieces

TOKENS_PER_BLOCK = 64  # tokens handled by one Triton program
TOKENS_AT_ONCE = 4  # tokens that a program holds in registers, one a warp
MAX_SIZE = 1024  # elements of a token that fit in registers with their gradients (235 of 255)
MAX_PIECE = 256


def layer_norm(
    x: Float[Array, "... D"], weight: Float[Array, " D"], eps: float
) -> Float[Array, "... D"]:
    """Return `x` with mean 0 and variance 1 along its last axis, times `weight`."""
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return scaled(centred * lax.rsqrt(variance + eps), weight)


def branch_norm(
    x: Float[Array, "B L D"], weight: Float[Array, " D"], eps: float, dtype: jnp.dtype
) -> tuple[Float[Array, "B L D"], Float[Array, "B L D"]]:
    """Return the residual stream `x` as it goes on, and its norm in `dtype`."""
    size = x.shape[-1]
    if gradient_is_a_kernel(dtype, size) and size <= MAX_SIZE:
        return with_kernel(x, weight, eps, dtype)
    return x, layer_norm(x, weight, eps).astype(dtype)


@jax.custom_vjp
def scaled(x: Float[Array, "... D"], weight: Float[Array, " D"]) -> Float[Array, "... D"]:
    """Return `x * weight`, with a gradient of `weight` by `column_sums`.

    On a CPU the whole gradient of a norm then takes a third of the time.
    """
    return x * weight.reshape((1,) * (x.ndim - 1) + (-1,))


def _scaled_backward(residuals: tuple[Array, Array], dout: Array) -> tuple[Array, Array]:
    x, weight = residuals
    return scaled(dout, weight), column_sums(dout * x).astype(weight.dtype)


scaled.defvjp(lambda x, weight: (scaled(x, weight), (x, weight)), _scaled_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def with_kernel(
    x: Float[Array, "B L D"], weight: Float[Array, " D"], eps: float, dtype: jnp.dtype
) -> tuple[Float[Array, "B L D"], Float[Array, "B L D"]]:
    """Return the results of `branch_norm`, with the kernel as their gradient."""
    return x, layer_norm(x, weight, eps).astype(dtype)


@jax.named_scope("norm")
def _backward(
    eps: float, _: jnp.dtype, residuals: tuple[Array, Array], cotangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    rows = P(BATCH_AXES)
    run = functools.partial(_gradient, eps)
    gradient = on_each_device(run, (rows, P(), rows, rows), (rows, rows))
    dx, dweight = gradient(*residuals, *cotangents)
    return dx, dweight.sum(0)


with_kernel.defvjp(lambda x, w, *rest: (with_kernel(x, w, *rest), (x, w)), _backward)


def _gradient(
    eps: float,
    x: Float[Array, "B L D"],
    weight: Float[Array, " D"],
    dstream: Float[Array, "B L D"],
    dnormed: Float[Array, "B L D"],
) -> tuple[Float[Array, "B L D"], Float[Array, "programs D"]]:
    """Return the gradient of `x`, and that of `weight` as the sums of each program's tokens."""
    arrays = [y.reshape(-1, x.shape[-1]) for y in (x, dstream, dnormed)]
    kernel = functools.partial(_gradient_kernel, eps)
    dx, dweight = map_tokens(
        kernel, "norm_gradient", TOKENS_PER_BLOCK, arrays, arrays[:1], weights=[weight]
    )
    return dx.reshape(x.shape), dweight


def _gradient_kernel(
    eps: float,
    weight_ref: Float[jax.Ref, " D"],
    x_ref: Float[jax.Ref, "T D"],
    dstream_ref: Float[jax.Ref, "T D"],
    dnormed_ref: Float[jax.Ref, "T D"],
    dx_ref: Float[jax.Ref, "T D"],
    dweight_ref: Float[jax.Ref, " D"],
) -> None:
    """Compute the gradients of a block of tokens.

    Blocks are powers of two, so a token's elements come in pieces: 768 as three of 256.
    """
    tokens, size = x_ref.shape
    piece, count = pieces(size, MAX_PIECE)
    parts = [pl.ds(i * piece, piece) for i in range(count)]
    weights = [weight_ref[p][None] for p in parts]

    def mean(values: Sequence[Array]) -> Array:
        first, *others = (value.sum(1) for value in values)
        means: Array = sum(others, first)[:, None] / size
        return means

    def step(i: Array, dweights: tuple[Array, ...]) -> tuple[Array, ...]:
        here = pl.ds(i * TOKENS_AT_ONCE, TOKENS_AT_ONCE)
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

    zeros = jnp.zeros((TOKENS_AT_ONCE, piece), jnp.float32)
    dweights = lax.fori_loop(0, tokens // TOKENS_AT_ONCE, step, (zeros,) * count)
    for p, sums in zip(parts, dweights, strict=True):
        dweight_ref[p] = sums.sum(0)
