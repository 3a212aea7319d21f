# SPDX-License-Identifier: Apache-2.0
"""Attention over packed rows: the only entry, and the choice of implementation.

Dimension key of shapes in signatures: `B` rows, `L` row length, `H` heads, `K` head size.
"""

import functools
import logging

import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from bcmb_jax.attention import libraries
from bcmb_jax.attention.banded import Banded
from bcmb_jax.attention.chunked import Chunked
from bcmb_jax.attention.interval import Interval
from bcmb_jax.attention.kernel import Kernel, attend
from bcmb_jax.attention.mask import key_intervals
from bcmb_jax.attention.reference import reference_attention
from bcmb_jax.device import BATCH_AXES, Target, target
from bcmb_jax.errors import InputError
from bcmb_jax.ops.linear import accumulation_dtype
from bcmb_jax.ops.remat import QKV
from bcmb_jax.ops.triton import on_each_device, runs_triton

LIBRARIES = {"fa4": libraries.fa4, "dew": libraries.dew}
IMPLEMENTATIONS = ("reference", "xla", "interval", *LIBRARIES)
MAX_BAND = 128  # windows up to this run as bands, wider ones and global layers in chunks

log = logging.getLogger(__name__)


def attention(
    q: Float[Array, "..."],
    k: Float[Array, "..."],
    v: Float[Array, "..."],
    *,
    segment_ids: Int[ArrayLike, "..."],
    window: int | None,
    scale: float | None = None,
    implementation: str | None = None,
) -> Float[Array, "B L H K"]:
    """Compute softmax attention inside segments, optionally inside a two-sided inclusive window.

    Args:
      q, k, v: `[B, L, H, K]`, float32 or bfloat16.
      segment_ids: `[B, L]` int32, 1, 2, … in contiguous runs, 0 = padding (output 0, gradient 0).
      window: keys seen on each side, inclusive (64 for ModernBERT's `local_attention` of 128);
        None for a global layer.
      scale: factor of the scores; None for `K ** -0.5`.
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
    if implementation not in (None, *IMPLEMENTATIONS):
        raise InputError(f"implementation {implementation!r} is not one of {IMPLEMENTATIONS}")
    name = implementation or choose(target(), q.dtype, q.shape[-1])

    def run(q: Array, k: Array, v: Array, segment_ids: Array) -> Array:
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        if factor != 1:
            q = (q.astype(accumulation_dtype(q.dtype)) * factor).astype(q.dtype)
        q, k, v = (checkpoint_name(x, QKV) for x in (q, k, v))
        if name in LIBRARIES:
            libraries.check_dtype(name, q)
            return LIBRARIES[name](q, k, v, segment_ids, window)
        start, end = key_intervals(segment_ids, window)
        if name == "reference":
            return reference_attention(q, k, v, start, end)
        return attend(_kernel(name, window, q.shape[1]), (q, k, v), (start, end))

    heads = P(BATCH_AXES, None, "tensor", None)
    specs = (heads, heads, heads, P(BATCH_AXES, None))
    return on_each_device(run, specs, heads)(q, k, v, segment_ids)


def _kernel(name: str, window: int | None, length: int) -> Kernel:
    if name == "interval":
        return Interval(unmasked=window is None)
    if window is not None and window <= MAX_BAND:
        return Banded(window)
    return Chunked.for_rows(length)


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
