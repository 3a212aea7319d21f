# SPDX-License-Identifier: Apache-2.0
"""Attention over packed rows: the only entry, and the choice of implementation.

Dimension key of shapes in signatures: `B` rows, `L` row length, `H` heads, `K` head size.
"""

import functools
import logging
from typing import NamedTuple

import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from bcmb_jax.attention import interval, libraries
from bcmb_jax.attention.banded import Banded
from bcmb_jax.attention.chunked import Chunked
from bcmb_jax.attention.kernel import Bounds, Kernel, attend
from bcmb_jax.attention.mask import key_intervals
from bcmb_jax.attention.reference import reference_attention
from bcmb_jax.device import BATCH_AXES, Target, target
from bcmb_jax.errors import InputError
from bcmb_jax.ops.remat import QKV
from bcmb_jax.ops.rope import Table, attention_operands
from bcmb_jax.ops.triton import on_each_device, runs_triton

LIBRARIES = {"fa4": libraries.fa4, "dew": libraries.dew}
IMPLEMENTATIONS = ("reference", "xla", "interval", *LIBRARIES)
MAX_BAND = 128  # windows up to this run as bands, wider ones and global layers in chunks

log = logging.getLogger(__name__)


ROWS, HEADS = P(BATCH_AXES, None), P(BATCH_AXES, None, "tensor", None)


class Seen(NamedTuple):
    """Keys that the queries of packed rows see in layers of one window, worked out once for all."""

    segment_ids: Int[Array, "B L"]
    bounds: Bounds
    visits: interval.Visits | None
    """Blocks that the interval kernel visits; None for other implementations."""


def attention(
    q: Float[Array, "..."],
    k: Float[Array, "..."],
    v: Float[Array, "..."],
    *,
    segment_ids: Int[ArrayLike, "..."],
    window: int | None,
    implementation: str | None = None,
) -> Float[Array, "B L H K"]:
    """Compute softmax attention inside segments, optionally inside a two-sided inclusive window.

    Args:
      q, k, v: `[B, L, H, K]`, float32 or bfloat16; scores are scaled by `K ** -0.5`.
      segment_ids: `[B, L]` int32, 1, 2, … in contiguous runs, 0 = padding (output 0, gradient 0).
      window: keys seen on each side, inclusive (64 for ModernBERT's `local_attention` of 128);
        None for a global layer.
      implementation: "reference" (dense, float32), "xla" (banded or chunked, everywhere),
        "interval" (our kernel for NVIDIA GPUs; interpreted on a CPU), a library's ("fa4", "dew"),
        or None to choose by device and dtype. A name never falls back.

    Returns:
      The attended values, in the dtype of `q`.

    Raises:
      InputError: an unknown implementation, or one that cannot run here.
      ValueError: shapes that do not agree.
    """
    segment_ids = jnp.asarray(segment_ids)
    if not q.shape == k.shape == v.shape or segment_ids.shape != q.shape[:2]:
        raise ValueError(
            f"q, k, v must be [B, L, H, D] and segment_ids [B, L], not {q.shape}, {k.shape}, "
            f"{v.shape} and {segment_ids.shape}"
        )
    seen = see(segment_ids, window, q.dtype, q.shape[-1], implementation)
    unrotated = jnp.ones((*q.shape[:2], 1, q.shape[-1] // 2), jnp.float32)
    rope = unrotated, jnp.zeros_like(unrotated)
    return self_attention(jnp.stack([q, k, v], 2), rope, seen, window, implementation)


def see(
    segment_ids: Int[ArrayLike, "B L"],
    window: int | None,
    dtype: jnp.dtype,
    head_size: int,
    implementation: str | None = None,
) -> Seen:
    """Return what `self_attention` with the same `window` and `implementation` asks for.

    Raises:
      InputError: an unknown implementation.
    """
    segment_ids, name = jnp.asarray(segment_ids), _name(implementation, dtype, head_size)

    def run(segment_ids: Array) -> tuple[Bounds, interval.Visits | None]:
        bounds = key_intervals(segment_ids, window)
        if name != "interval":
            return bounds, None
        return bounds, interval.visits(bounds, dtype, unmasked=window is None)

    return Seen(segment_ids, *on_each_device(run, (ROWS,), ROWS)(segment_ids))


def self_attention(
    qkv: Float[Array, "B L 3 H K"],
    rope: Table,
    seen: Seen,
    window: int | None,
    implementation: str | None = None,
) -> Float[Array, "B L H K"]:
    """Compute the attention of rotated queries to rotated keys, as the layer's product gave them.

    Raises:
      InputError: an implementation that is unknown or cannot run here.
    """
    name = _name(implementation, qkv.dtype, qkv.shape[-1])
    if name == "interval":
        joined, table = P(BATCH_AXES, None, None, "tensor", None), P(BATCH_AXES, None, None, None)
        run = on_each_device(interval.attend, (joined, table, ROWS, ROWS), HEADS)
        return run(qkv, rope, seen.bounds, seen.visits)

    def attend_to(q: Array, k: Array, v: Array, seen: Seen) -> Array:
        q, k, v = (checkpoint_name(x, QKV) for x in (q, k, v))
        if name in LIBRARIES:
            libraries.check_dtype(name, q)
            return LIBRARIES[name](q, k, v, seen.segment_ids, window)
        if name == "reference":
            return reference_attention(q, k, v, *seen.bounds)
        return attend(_kernel(window, q.shape[1]), (q, k, v), seen.bounds)

    q, k, v = attention_operands(qkv, rope, qkv.dtype)
    return on_each_device(attend_to, (HEADS, HEADS, HEADS, ROWS), HEADS)(q, k, v, seen)


def _kernel(window: int | None, length: int) -> Kernel:
    if window is not None and window <= MAX_BAND:
        return Banded(window)
    return Chunked.for_rows(length)


def _name(implementation: str | None, dtype: jnp.dtype, head_size: int) -> str:
    if implementation not in (None, *IMPLEMENTATIONS):
        raise InputError(f"implementation {implementation!r} is not one of {IMPLEMENTATIONS}")
    return implementation or choose(target(), dtype, head_size)


@functools.cache
def choose(device: Target, dtype: jnp.dtype, head_size: int) -> str:
    """Return the implementation for `implementation=None`; logged once a device and dtype."""
    name, reason = "xla", "banded local layers, chunked global ones"
    if device.platform == "gpu":
        if not runs_triton(device):
            reason = "the interval kernel needs an NVIDIA GPU from Ampere on"
        elif dtype != jnp.bfloat16:
            reason = "the interval kernel is made for bfloat16"
        elif head_size not in (16, 32, 64, 128):
            reason = f"the interval kernel takes no heads of {head_size}"
        else:
            name, reason = "interval", "Pallas kernels that skip unseen blocks in both passes"
    log.info("attention on %s in %s: %s (%s)", device.kind, jnp.dtype(dtype).name, name, reason)
    return name
