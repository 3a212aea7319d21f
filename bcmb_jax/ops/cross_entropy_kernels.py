# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy over bfloat16 logits in one kernel, whose gradient takes the logits' place.

Between the decoder's products the logits are read twice and overwritten once; no second array of
their size exists. The running maximum and sum are those of Milakov and Gimelshein, 2018,
https://arxiv.org/abs/1805.02867.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

from bcmb_jax.ops import triton

ROWS = 4
"""Positions to a program, at most."""

BLOCK = 1024
"""Columns of the vocabulary to a turn of a program's loops; the last turn is masked."""


def loss_and_gradient(
    logits: Float[Array, "N V"], targets: Int[Array, " N"], loss_weights: Float[Array, " N"]
) -> tuple[Float[Array, " N"], Float[Array, " N"], Float[Array, "N V"]]:
    """Return each position's cross-entropy, its top-1 hit and the gradient of the logits.

    All three are multiplied by `loss_weights` and computed in fp32; the gradient is rounded to the
    dtype of `logits` and written over them.

    Args:
      targets: int32, from 0 to `V - 1`, also where the weight is 0.
      loss_weights: fp32.
    """
    count, vocab_size = logits.shape
    rows, programs = triton.pieces(count, ROWS)
    vector = pl.BlockSpec((rows,), lambda i: (i,))
    matrix = pl.BlockSpec((rows, vocab_size), lambda i: (i, 0))
    of_rows = jax.ShapeDtypeStruct((count,), jnp.float32)
    losses, hits, dlogits = triton.call(
        _kernel,
        "cross_entropy",
        (programs,),
        [vector, vector, matrix],
        [vector, vector, matrix],
        [of_rows, of_rows, jax.ShapeDtypeStruct(logits.shape, logits.dtype)],
        aliases={2: 2},
    )(targets, loss_weights, logits)
    return losses, hits, dlogits


def _kernel(
    targets: jax.Ref,
    loss_weights: jax.Ref,
    logits: jax.Ref,
    losses: jax.Ref,
    hits: jax.Ref,
    dlogits: jax.Ref,
) -> None:
    rows, vocab_size = logits.shape
    target, weight = targets[...], loss_weights[...]

    def columns(turn: Array) -> tuple[tuple[slice, slice | pl.Slice], Array, Array]:
        """Return a block's place, its tokens and which of them exist."""
        token = turn * BLOCK + lax.broadcasted_iota(jnp.int32, (rows, BLOCK), 1)
        return (slice(None), pl.ds(turn * BLOCK, BLOCK)), token, token < vocab_size

    def read(turn: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        top, total, at_target = sums
        place, token, exists = columns(turn)
        block = plt.load(logits.at[place], mask=exists, other=-jnp.inf).astype(jnp.float32)
        higher = jnp.maximum(top, block.max(1))
        total = total * jnp.exp(top - higher) + jnp.exp(block - higher[:, None]).sum(1)
        at_target += jnp.where(token == target[:, None], block, 0).sum(1)
        return higher, total, at_target

    zeros = jnp.zeros((rows,), jnp.float32)
    turns = pl.cdiv(vocab_size, BLOCK)
    start = (jnp.full((rows,), -jnp.inf, jnp.float32), zeros, zeros)
    top, total, at_target = lax.fori_loop(0, turns, read, start)
    losses[...] = (top + jnp.log(total) - at_target) * weight
    hits[...] = jnp.where(at_target >= top, weight, 0)
    scale = weight / total

    def write(turn: Array, _: None) -> None:
        place, token, exists = columns(turn)
        block = plt.load(logits.at[place], mask=exists, other=-jnp.inf).astype(jnp.float32)
        gradient = jnp.exp(block - top[:, None]) * scale[:, None]
        gradient = jnp.where(token == target[:, None], gradient - weight[:, None], gradient)
        plt.store(dlogits.at[place], gradient.astype(dlogits.dtype), mask=exists)

    lax.fori_loop(0, turns, write, None)
