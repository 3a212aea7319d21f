# SPDX-License-Identifier: Apache-2.0
"""Attention over packed rows: the only entry, and the choice of implementation.

Dimension key: `B` rows, `L` row length, `H` heads, `D` head size.
"""

import functools
import logging

import jax
from jax.sharding import PartitionSpec as P

from bcmb_jax.attention.banded import Banded
from bcmb_jax.attention.chunked import TILE, Chunked
from bcmb_jax.attention.mask import key_intervals
from bcmb_jax.attention.reference import reference_attention
from bcmb_jax.attention.vjp import attend
from bcmb_jax.linear import accumulator

IMPLEMENTATIONS = ("reference", "xla")
WIDEST_BAND = 128  # windows up to this run as bands, wider ones and global layers in chunks

log = logging.getLogger(__name__)


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    segment_ids: jax.Array,
    window: int | None,
    implementation: str | None = None,
) -> jax.Array:
    """Softmax attention inside segments, optionally inside a two-sided inclusive window.

    Args:
      q, k, v: `[B, L, H, D]`, float32 or bfloat16; `q` unscaled (the scale is `D ** -0.5`).
      segment_ids: `[B, L]` int32, 1, 2, … in contiguous runs, 0 = padding (output 0, gradient 0).
      window: keys seen on each side, inclusive (64 for ModernBERT's `local_attention` of 128);
        None for a global layer.
      implementation: "reference" (dense, float32), "xla" (banded or chunked), or None to choose.
        A name never falls back to another.

    Returns:
      `[B, L, H, D]` in the dtype of `q`.

    Raises:
      ValueError: an unknown implementation, or shapes that do not agree.
    """
    if not q.shape == k.shape == v.shape or segment_ids.shape != q.shape[:2]:
        raise ValueError(
            f"q, k, v must be [B, L, H, D] and segment_ids [B, L], not {q.shape}, {k.shape}, "
            f"{v.shape} and {segment_ids.shape}"
        )
    if implementation not in (None, *IMPLEMENTATIONS):
        raise ValueError(f"implementation {implementation!r} is not one of {IMPLEMENTATIONS}")
    kernel = _kernel(implementation or _choose(), window, q.shape[1])

    def run(q, k, v, segment_ids):
        start, end = key_intervals(segment_ids, window)
        scaled = (q.astype(accumulator(q.dtype)) * q.shape[-1] ** -0.5).astype(q.dtype)
        return kernel(scaled, k, v, start, end)

    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return run(q, k, v, segment_ids)
    # The kernels loop over rows and heads; on a mesh each device loops over its own.
    batch = ("data", "fsdp")
    heads = P(batch, None, "tensor", None)
    return jax.shard_map(
        run, in_specs=(heads, heads, heads, P(batch, None)), out_specs=heads, check_vma=False
    )(q, k, v, segment_ids)


def _kernel(implementation: str, window: int | None, length: int):
    if implementation == "reference":
        return reference_attention
    if window is not None and window <= WIDEST_BAND:
        return functools.partial(attend, Banded(window))
    return functools.partial(attend, Chunked(min(TILE, -(-length // 64) * 64)))


@functools.cache
def _choose() -> str:
    log.info("attention implementation: xla (banded local layers, chunked global layers)")
    return "xla"
