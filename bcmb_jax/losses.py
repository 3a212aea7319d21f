# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy at the masked positions, without ever building all their logits."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from bcmb_jax.device import on_cpu
from bcmb_jax.ops.linear import column_sums, dot, linear, weight_gradient

LOGITS_ON_CPU = 2**26
"""fp32 logits that exist at a time: 268 MB. With half of it the gradient of base at 4x512 took 6 %
longer (Xeon with AMX, bf16, median of 5 turns)."""
LOGITS_ON_ACCELERATORS = 2**27
"""The same on each GPU or TPU, 537 MB: every chunk also reads and writes the decoder's whole
gradient; chunks of a quarter took 11 ms longer on an H200, 4 % of a step of base."""


class LossSums(NamedTuple):
    """Sums over predicted tokens: divide by `weight` for means, add to join batches."""

    loss: jax.Array
    correct: jax.Array
    weight: jax.Array


@jax.named_scope("decoder")
def masked_lm_sums(
    hidden: jax.Array,
    decoder_weight: jax.Array,
    decoder_bias: jax.Array,
    targets: jax.Array,
    loss_weights: jax.Array,
    dtype: jnp.dtype,
) -> LossSums:
    """Cross-entropy and top-1 hits of the predicted tokens, summed.

    Args:
      hidden: `[B, K, D]`, the prediction head's output at the predicted positions.
      decoder_weight: `[V, D]` fp32; decoder_bias: `[V]` fp32.
      targets: `[B, K]` int32 original tokens; loss_weights: `[B, K]`, 0 where unused.
      dtype: of the decoder's operands.

    The sum over the whole global batch divided by its number of masked tokens does not depend on
    microbatches or devices.
    """
    # Fidelity: upstream averages within each microbatch and weighs microbatches by their number
    # of packed segments (RECIPE §6), so that a masked token's weight depends on its neighbours.
    pieces = position_chunks(hidden.shape, decoder_weight.shape[0])
    loss, correct = _cross_entropy(
        hidden.astype(dtype), decoder_weight, decoder_bias, targets, loss_weights, pieces
    )
    return LossSums(loss, correct, loss_weights.sum())


def position_chunks(shape: tuple[int, ...], vocab_size: int) -> int:
    """Into how many equal parts the K axis is cut (a divisor of K)."""
    rows, positions, _ = shape
    mesh = jax.sharding.get_abstract_mesh()
    devices = 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]
    at_once = LOGITS_ON_CPU if on_cpu() else LOGITS_ON_ACCELERATORS
    wanted = -(-rows * positions * vocab_size // (at_once * devices))
    return next(n for n in range(min(wanted, positions), positions + 1) if positions % n == 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _cross_entropy(hidden, weight, bias, targets, loss_weights, pieces):
    def piece(sums, part):
        loss, correct, _ = _softmax_and_sums(weight, bias, *part)
        return (sums[0] + loss, sums[1] + correct), None

    sums, _ = lax.scan(piece, (0.0, 0.0), split_positions((hidden, targets, loss_weights), pieces))
    return sums


def _softmax_and_sums(weight, bias, hidden, targets, loss_weights):
    logits = linear(hidden, weight, hidden.dtype) + bias.reshape(1, 1, -1)
    at_target = jnp.take_along_axis(logits, targets[..., None], axis=-1)
    top = logits.max(-1, keepdims=True)
    powers = jnp.exp(logits - top)
    total = powers.sum(-1, keepdims=True)
    loss = ((top + jnp.log(total) - at_target)[..., 0] * loss_weights).sum()
    correct = ((at_target >= top)[..., 0] * loss_weights).sum()
    return loss, correct, (powers, total)


def _fwd(hidden, weight, bias, targets, loss_weights, pieces):
    # The gradient is made here, beside the loss, while a chunk's logits exist: nothing of size
    # K × V is kept or computed twice.
    def piece(sums, part):
        hidden, targets, loss_weights = part
        loss, correct, (powers, total) = _softmax_and_sums(weight, bias, *part)
        token = lax.broadcasted_iota(jnp.int32, powers.shape, 2)
        dlogits = powers * (loss_weights[..., None] / total)
        dlogits = jnp.where(token == targets[..., None], dlogits - loss_weights[..., None], dlogits)
        rounded = dlogits.astype(hidden.dtype)
        operand = weight.astype(hidden.dtype)
        dhidden = dot(rounded, operand, (2,), (0,), out_dtype=hidden.dtype)
        dweight = sums[2] + weight_gradient(rounded, hidden, 1)
        dbias = sums[3] + column_sums(dlogits)
        return (sums[0] + loss, sums[1] + correct, dweight, dbias), dhidden

    zeros = (0.0, 0.0, jnp.zeros_like(weight), jnp.zeros_like(bias))
    parts = split_positions((hidden, targets, loss_weights), pieces)
    (loss, correct, dweight, dbias), dhidden = lax.scan(piece, zeros, parts)
    dhidden = jnp.moveaxis(dhidden, 0, 1).reshape(hidden.shape)
    return (loss, correct), (dhidden, dweight, dbias)


def _bwd(pieces, residuals, cotangents):
    dhidden, dweight, dbias = residuals
    scale = cotangents[0]  # of the loss; `correct` has no gradient
    return (dhidden * scale).astype(dhidden.dtype), dweight * scale, dbias * scale, None, None


_cross_entropy.defvjp(_fwd, _bwd)


def split_positions(arrays, pieces: int):
    """`[B, K, ...]` → `[pieces, B, K / pieces, ...]`: rows stay whole, and so on their devices."""
    return tuple(
        jnp.moveaxis(x.reshape(x.shape[0], pieces, -1, *x.shape[2:]), 1, 0) for x in arrays
    )
