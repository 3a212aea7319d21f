# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy of a linear decoder, in chunks of positions: all logits never exist together.

The gradient is computed in the forward pass, beside the loss, while a chunk's logits exist: nothing
of size `P × V` is saved or computed twice.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from bcmb_jax.device import BATCH_AXES
from bcmb_jax.ops import cpu
from bcmb_jax.ops.cross_entropy_kernels import loss_and_gradient
from bcmb_jax.ops.linear import accumulation_dtype, dot
from bcmb_jax.ops.triton import is_a_kernel, on_each_device

LOGITS_ON_ACCELERATORS = 2**27
"""fp32 logits that exist at a time on each GPU or TPU, 537 MB: every chunk also reads and writes
the decoder's whole gradient; chunks of a quarter took 11 ms longer on an H200, 4 % of a step of
base."""

Scalar = Float[Array, ""]
Chunk = tuple[Array, Array, Array]
Sums = tuple[Array, Array, Array, Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def cross_entropy(
    hidden: Float[Array, "B P D"],
    weight: Float[Array, "V D"],
    bias: Float[Array, " V"],
    targets: Int[Array, "B P"],
    loss_weights: Float[Array, "B P"],
    chunks: int,
) -> tuple[Scalar, Scalar]:
    """Return the summed cross-entropy and the number of top-1 hits, weighted by `loss_weights`.

    Args:
      hidden: rounded to the compute dtype of the decoder's product.
      weight: fp32, as `bias`.
      chunks: a divisor of `P` (see `position_chunks`).
    """
    # Where no gradient is asked for, its products are dead code, which the compiler removes; the
    # kernel of GPUs still writes the gradient of the logits.
    return _forward(hidden, weight, bias, targets, loss_weights, chunks)[0]


def _forward(
    hidden: Array, weight: Array, bias: Array, targets: Array, loss_weights: Array, chunks: int
) -> tuple[tuple[Array, Array], Chunk]:
    table = weight.astype(hidden.dtype)  # once, not in every turn

    def step(sums: Sums, chunk: Chunk) -> tuple[Sums, Array]:
        hidden, targets, loss_weights = chunk
        logits = dot("bpd,vd->bpv", hidden, table) + bias.reshape(1, 1, -1)
        if is_a_kernel(hidden.dtype, len(weight)):
            loss, correct, rounded = _with_kernel(
                logits.astype(hidden.dtype), targets, loss_weights
            )
            # With more columns than one, since XLA would make a sum of the product.
            ones = jnp.ones((*hidden.shape[:2], 16), hidden.dtype)
            dbias = dot("bpv,bpn->vn", rounded, ones)[:, 0]
        else:
            loss, correct, dlogits = _with_xla(logits, targets, loss_weights)
            rounded = dlogits.astype(hidden.dtype)
            dbias = cpu.column_sums(dlogits)
        dhidden = dot("bpv,vd->bpd", rounded, table, hidden.dtype)
        dweight = sums[2] + dot("bpv,bpd->vd", rounded, hidden)
        return (sums[0] + loss, sums[1] + correct, dweight, sums[3] + dbias), dhidden

    zero = jnp.zeros((), accumulation_dtype(hidden.dtype))
    zeros = (zero, zero, jnp.zeros_like(weight), jnp.zeros_like(bias))
    parts = split_positions((hidden, targets, loss_weights), chunks)
    (loss, correct, dweight, dbias), dhidden = lax.scan(step, zeros, parts)
    dhidden = jnp.moveaxis(dhidden, 0, 1).reshape(hidden.shape)
    return (loss, correct), (dhidden, dweight, dbias)


def _with_xla(logits: Array, targets: Array, loss_weights: Array) -> tuple[Array, Array, Array]:
    """Return the summed loss, the sum of hits and the gradient of `logits`."""
    at_target = jnp.take_along_axis(logits, targets[..., None], axis=-1)
    top = logits.max(-1, keepdims=True)
    powers = jnp.exp(logits - top)
    total = powers.sum(-1, keepdims=True)
    loss = ((top + jnp.log(total) - at_target)[..., 0] * loss_weights).sum()
    correct = jnp.where((at_target >= top)[..., 0], loss_weights, 0).sum()
    token = lax.broadcasted_iota(jnp.int32, powers.shape, 2)
    dlogits = powers * (loss_weights[..., None] / total)
    dlogits = jnp.where(token == targets[..., None], dlogits - loss_weights[..., None], dlogits)
    return loss, correct, dlogits


def _with_kernel(logits: Array, targets: Array, loss_weights: Array) -> tuple[Array, Array, Array]:
    """Return what `_with_xla` does, the gradient in the place of bf16 `logits`."""

    def run(logits: Array, targets: Array, loss_weights: Array) -> tuple[Array, Array, Array]:
        flat = loss_and_gradient(
            logits.reshape(-1, logits.shape[-1]),
            targets.astype(jnp.int32).reshape(-1),
            loss_weights.reshape(-1),
        )
        return (
            flat[0].reshape(targets.shape),
            flat[1].reshape(targets.shape),
            flat[2].reshape(logits.shape),
        )

    wide, rows = P(BATCH_AXES, None, None), P(BATCH_AXES, None)
    losses, hits, dlogits = on_each_device(run, (wide, rows, rows), (rows, rows, wide))(
        logits, targets, loss_weights
    )
    return losses.sum(), hits.sum(), dlogits


def _backward(
    chunks: int, residuals: Chunk, cotangents: tuple[Array, Array]
) -> tuple[Array, Array, Array, None, None]:
    dhidden, dweight, dbias = residuals
    scale = cotangents[0]  # of the loss; the number of hits has no gradient
    return (dhidden * scale).astype(dhidden.dtype), dweight * scale, dbias * scale, None, None


cross_entropy.defvjp(_forward, _backward)


def position_chunks(shape: tuple[int, ...], vocab_size: int) -> int:
    """Return into how many equal chunks to split the `P` positions of `shape`, `[B, P, D]`."""
    rows, positions, _ = shape
    # Axes that the function being traced is mapped over are not among these: its rows are local.
    mesh = jax.sharding.get_abstract_mesh()
    devices = math.prod(mesh.shape[axis] for axis in BATCH_AXES if axis in mesh.auto_axes)
    at_once = cpu.logits_at_once(LOGITS_ON_ACCELERATORS)
    wanted = -(-rows * positions * vocab_size // (at_once * devices))
    return next(n for n in range(min(wanted, positions), positions + 1) if positions % n == 0)


def split_positions(arrays: tuple[Array | np.ndarray, ...], chunks: int) -> Chunk:
    """Return each `[B, P, …]` as `[chunks, B, P / chunks, …]`: rows stay whole on their devices."""
    a, b, c = (jnp.moveaxis(x.reshape(len(x), chunks, -1, *x.shape[2:]), 1, 0) for x in arrays)
    return a, b, c
