# SPDX-License-Identifier: Apache-2.0
"""Layer norm without a bias, alone and where it begins a branch of the residual stream.

There, on NVIDIA GPUs and in bf16, it is a kernel together with the sum and the dropout before it,
forward and backward: each array passes through memory once. XLA makes a pass of the sum, one of the
norm, two of their gradient, and one more to round that for the product of the branch before.
"""

import functools
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, UInt32

from bcmb_jax.device import BATCH_AXES
from bcmb_jax.ops.cpu import column_sums
from bcmb_jax.ops.dropout import dropout, kept
from bcmb_jax.ops.remat import STREAM
from bcmb_jax.ops.triton import is_a_kernel, map_tokens, on_each_device, pieces

TOKENS_PER_BLOCK = 64  # tokens handled by one Triton program
TOKENS_AT_ONCE = 4  # tokens that a program holds in registers, one a warp
MAX_SIZE = 1024  # elements of a token that fit in registers with their gradients
MAX_PIECE = 256
ROWS = P(BATCH_AXES)

Stream: TypeAlias = Float[Array, "B L D"]
Residuals: TypeAlias = tuple[Array, Array | None, Array, Array]
"""The stream, an empty array of the update's dtype where there was one, words and weight."""


def layer_norm(
    x: Float[Array, "... D"], weight: Float[Array, " D"], eps: float
) -> Float[Array, "... D"]:
    """Return `x` with mean 0 and variance 1 along its last axis, times `weight`."""
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return scaled(centred * lax.rsqrt(variance + eps), weight)


def sums_are_kernels(dtype: jnp.dtype, size: int) -> bool:
    """Return whether `branch` adds and norms in one kernel, of tokens of `size` elements."""
    return is_a_kernel(dtype, size) and size <= MAX_SIZE


def branch(
    x: Float[Array, "B L D"],
    update: Float[Array, "B L D"] | None,
    weight: Float[Array, " D"],
    eps: float,
    dtype: jnp.dtype,
    words: UInt32[Array, "B 2"] | None = None,
    rate: float = 0.0,
) -> tuple[Float[Array, "B L D"], Float[Array, "B L D"]]:
    """Return the residual stream `x + dropout(update)`, and its norm as a product takes it.

    Args:
      x: fp32, or fp64 in `conversion.verify`.
      update: what the branch before gives, in the dtype of products; None where `x` has it.
      dtype: of products.
      words: those of `dropout.row_words`; None for no dropout.
    """
    if sums_are_kernels(dtype, x.shape[-1]):
        if words is None:
            words, rate = jnp.zeros((len(x), 2), jnp.uint32), 0.0
        return with_kernel(eps, rate, dtype, x, update, words, weight)
    if update is not None:
        update = update.astype(x.dtype)
        if words is not None and rate:
            update = dropout(update, words, rate)
        x = checkpoint_name(x + update, STREAM)
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def with_kernel(
    eps: float,
    rate: float,
    dtype: jnp.dtype,
    x: Stream,
    update: Stream | None,
    words: UInt32[Array, "B 2"],
    weight: Float[Array, " D"],
) -> tuple[Stream, Stream]:
    """Return the results of `branch` by kernels."""
    return _forward(eps, rate, dtype, x, update, words, weight)[0]


def _forward(
    eps: float,
    rate: float,
    dtype: jnp.dtype,
    x: Array,
    update: Array | None,
    words: Array,
    weight: Array,
) -> tuple[tuple[Array, Array], Residuals]:
    if update is None:  # XLA's norm is one pass too
        return (x, layer_norm(x, weight, eps).astype(dtype)), (x, None, words, weight)

    def run(x: Array, update: Array, words: Array, weight: Array) -> tuple[Array, ...]:
        return map_tokens(
            functools.partial(_forward_kernel, eps, rate),
            "norm_forward",
            TOKENS_PER_BLOCK,
            (x, update),
            (x, jax.ShapeDtypeStruct(x.shape, dtype)),
            weights=[weight],
            rows=[words],
        )

    x, normed = on_each_device(run, (ROWS, ROWS, ROWS, P()), (ROWS, ROWS))(x, update, words, weight)
    x = checkpoint_name(x, STREAM)
    return (x, normed), (x, jnp.zeros(0, update.dtype), words, weight)


@jax.named_scope("norm")
def _backward(
    eps: float, rate: float, _: jnp.dtype, residuals: Residuals, cotangents: tuple[Array, Array]
) -> tuple[Array, Array | None, None, Array]:
    x, update, words, weight = residuals

    def run(
        x: Array, dstream: Array, dnormed: Array, words: Array, weight: Array
    ) -> tuple[Array, ...]:
        rounded = [] if update is None else [jax.ShapeDtypeStruct(x.shape, update.dtype)]
        return map_tokens(
            functools.partial(_gradient_kernel, eps, rate),
            "norm_gradient",
            TOKENS_PER_BLOCK,
            (x, dstream, dnormed),
            (x, *rounded),
            weights=[weight],
            rows=[words],
            gradients=[weight],
        )

    outputs = (ROWS,) * (2 if update is None else 3)
    run = on_each_device(run, (ROWS, ROWS, ROWS, ROWS, P()), outputs)
    dx, *dupdate, dweight = run(x, *cotangents, words, weight)
    return dx, dupdate[0] if dupdate else None, None, dweight.sum((0, 1))


with_kernel.defvjp(_forward, _backward)


def _forward_kernel(
    eps: float,
    rate: float,
    weight_ref: Float[jax.Ref, " D"],
    words_ref: UInt32[jax.Ref, " 2"],
    x_ref: Float[jax.Ref, "T D"],
    update_ref: Float[jax.Ref, "T D"],
    stream_ref: Float[jax.Ref, "T D"],
    normed_ref: Float[jax.Ref, "T D"],
) -> None:
    """Add the update of a block of tokens to the stream, and norm the sum."""
    tokens, size = x_ref.shape
    first, parts = pl.program_id(0) * tokens, _parts(size)
    weights = [weight_ref[p][None] for p in parts]

    def step(i: Array, _: Array) -> int:
        here = pl.ds(i * TOKENS_AT_ONCE, TOKENS_AT_ONCE)
        x = []
        for p in parts:
            update = update_ref[here, p].astype(jnp.float32)
            x.append(
                x_ref[here, p]
                + update * _kept(words_ref, rate, first + i * TOKENS_AT_ONCE, p, size)
            )
            stream_ref[here, p] = x[-1]
        normed = _normed(x, eps, size)[0]
        for p, n, weight in zip(parts, normed, weights, strict=True):
            normed_ref[here, p] = (n * weight).astype(normed_ref.dtype)
        return 0

    lax.fori_loop(0, tokens // TOKENS_AT_ONCE, step, 0)


def _gradient_kernel(
    eps: float,
    rate: float,
    weight_ref: Float[jax.Ref, " D"],
    words_ref: UInt32[jax.Ref, " 2"],
    x_ref: Float[jax.Ref, "T D"],
    dstream_ref: Float[jax.Ref, "T D"],
    dnormed_ref: Float[jax.Ref, "T D"],
    dx_ref: Float[jax.Ref, "T D"],
    *refs: Float[jax.Ref, "..."],
) -> None:
    """Compute the gradients of a block of tokens, the update's too where `refs` begin with it."""
    *dupdate_refs, dweight_ref = refs
    tokens, size = x_ref.shape
    first, parts = pl.program_id(0) * tokens, _parts(size)
    weights = [weight_ref[p][None] for p in parts]

    def step(i: Array, dweights: tuple[Array, ...]) -> tuple[Array, ...]:
        here = pl.ds(i * TOKENS_AT_ONCE, TOKENS_AT_ONCE)
        normed, inverse = _normed([x_ref[here, p] for p in parts], eps, size)
        douts = [dnormed_ref[here, p].astype(jnp.float32) for p in parts]
        scaled_douts = [dout * weight for dout, weight in zip(douts, weights, strict=True)]
        along_one = _mean(scaled_douts, size)
        along_x = _mean([d * n for d, n in zip(scaled_douts, normed, strict=True)], size)
        for p, d, n in zip(parts, scaled_douts, normed, strict=True):
            dx = dstream_ref[here, p] + inverse * (d - along_one - n * along_x)
            dx_ref[here, p] = dx
            for ref in dupdate_refs:
                ref[here, p] = (
                    dx * _kept(words_ref, rate, first + i * TOKENS_AT_ONCE, p, size)
                ).astype(ref.dtype)
        return tuple(sums + dout * n for sums, dout, n in zip(dweights, douts, normed, strict=True))

    zeros = jnp.zeros((TOKENS_AT_ONCE, pieces(size, MAX_PIECE)[0]), jnp.float32)
    dweights = lax.fori_loop(0, tokens // TOKENS_AT_ONCE, step, (zeros,) * len(parts))
    for p, sums in zip(parts, dweights, strict=True):
        dweight_ref[p] = sums.sum(0)


def _parts(size: int) -> list[pl.Slice]:
    """Return the pieces of a token, since blocks are powers of two: 768 as three of 256."""
    piece, count = pieces(size, MAX_PIECE)
    return [pl.Slice(i * piece, piece) for i in range(count)]


def _mean(values: Sequence[Array], size: int) -> Array:
    first, *others = (value.sum(1) for value in values)
    means: Array = sum(others, first)[:, None] / size
    return means


def _normed(x: Sequence[Array], eps: float, size: int) -> tuple[list[Array], Array]:
    """Return the pieces of tokens with mean 0 and variance 1, and what made it 1."""
    mean = _mean(x, size)
    centred = [part - mean for part in x]
    inverse = lax.rsqrt(_mean([part * part for part in centred], size) + eps)
    return [part * inverse for part in centred], inverse


def _kept(
    words_ref: UInt32[jax.Ref, " 2"], rate: float, first: Array, part: pl.Slice, size: int
) -> Float[Array, "T N"] | float:
    """Return what dropout multiplies a piece of the tokens from `first` on with."""
    if not rate:
        return 1.0
    shape = TOKENS_AT_ONCE, part.size
    token, column = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    element = (first + token) * size + part.start + column
    return kept(element.astype(jnp.uint32), words_ref[0], words_ref[1], rate)
