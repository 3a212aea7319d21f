# SPDX-License-Identifier: Apache-2.0
"""Other people's kernels for NVIDIA GPUs under our contract, each an optional install.

They take scaled queries and give `[B, L, H, D]`, zeros in padding. Those that take offsets of
documents instead of intervals have room for `DOCUMENTS_PER_TOKEN` of them; a batch with more gives
NaN, which stops training, rather than documents that see each other.

Their outputs carry no name for `jax.checkpoint`, so the backward pass of a layer runs their forward
again. On a CPU "fa4" and "tokamax" run their own plain JAX code, by which the shared test checks
what we ask of them. docs/performance/h200.md has what ran on a GPU, and how fast.
"""

import functools
import importlib
from collections.abc import Callable
from types import ModuleType

import jax
import jax.numpy as jnp

from bcmb_jax.attention.interval import Interval
from bcmb_jax.attention.mask import key_intervals
from bcmb_jax.attention.vjp import attend
from bcmb_jax.device import target
from bcmb_jax.errors import InputError

DOCUMENTS_PER_TOKEN = 1 / 16

Arrays = tuple[jax.Array, jax.Array, jax.Array]


def fa4(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, window: int | None):
    """FlashAttention-4 in CuTe (fa4-jax): Ampere to Blackwell."""
    library = _library("fa4_jax", "fa4-jax, on Python 3.12 or later")

    def run(q, k, v, starts, longest):
        return library.flash_attn_varlen(
            q,
            k,
            v,
            starts,
            starts,
            window_size=None if window is None else (window, window),
            scale=1.0,
            backend="cute" if target().platform == "gpu" else "reference",
        )

    return _packed(run, (q, k, v), segment_ids)


def dew(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, window: int | None):
    """FlashAttention-2 and -3 as compiled by Dao-AILab (dew-flash-attn): Ampere, Ada, Hopper."""
    _only_on_gpu("dew")
    library = _library("dew_flash_attn", "dew-flash-attn-cu12 (or -cu13), on JAX 0.11.2 or later")

    def run(q, k, v, starts, longest):
        sides = (-1, -1) if window is None else (window, window)
        return library.flash_mha_varlen(
            q, k, v, starts, longest, softmax_scale=1.0, window_size=sides
        )

    return _packed(run, (q, k, v), segment_ids)


def tokamax(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, window: int | None):
    """tokamax: skips blocks forward on Hopper and Blackwell, visits all of them backward."""
    _library("tokamax", "tokamax, on Python 3.12 and JAX 0.11.1 or later")
    if getattr(jax.devices()[0], "compute_capability", "9.0").split(".")[0] not in ("9", "10"):
        raise InputError(
            "implementation 'tokamax' needs Hopper or Blackwell of compute capability 9 or 10, "
            f"not {target().kind}"
        )
    # Its public function has no intervals; these two modules are what it calls itself.
    api = importlib.import_module("tokamax._src.ops.attention.api")
    base = importlib.import_module("tokamax._src.ops.attention.base")
    start, end = key_intervals(segment_ids, window)
    padding = segment_ids == 0
    # Its kernels assume that no interval is empty.
    mask = base.Mask(k_start=start[:, None], k_end=jnp.where(padding, 1, end)[:, None])
    name = "mosaic_gpu" if target().platform == "gpu" else "xla_chunked"
    with jax.numpy_rank_promotion("allow"):  # it relies on it
        out = api.IMPLEMENTATIONS[name](q, k, v, mask=mask, logits_scale=1.0)
    return _without_padding(out, segment_ids)


def cudnn(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, window: int | None):
    """cuDNN's packed attention (Hopper and later) for global layers; it has no window to the right,
    so local ones are the interval kernel's. Its backward pass takes memory for every document that
    there is room for: 100 GB for 8 rows of 8,192."""
    _only_on_gpu("cudnn")
    if window is not None:
        return attend(Interval(), q, k, v, *key_intervals(segment_ids, window))
    stablehlo = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    lengths, offsets, fits = documents_for_cudnn(segment_ids)
    try:
        out = stablehlo.dot_product_attention(
            q,
            k,
            v,
            q_seqlen=lengths,
            kv_seqlen=lengths,
            q_offsets=offsets,
            kv_offsets=offsets,
            scale=1.0,
            mask_type=stablehlo.MaskType.PADDING,
            qkv_layout="BTNH",
        )
    except (NotImplementedError, RuntimeError) as error:  # before Hopper; without cuDNN
        raise InputError(f"implementation 'cudnn' cannot run here: {error}") from error
    return _without_padding(jnp.where(fits.reshape(-1, 1, 1, 1), out, jnp.nan), segment_ids)


def documents_for_cudnn(segment_ids: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`[B, N]` lengths, `[B, N + 1]` offsets, -1 where there is none, and `[B]` whether all fit.

    JAX joins the rows and drops what is negative, so a row's end must not stand between two rows.
    """
    starts, fits = _offsets(segment_ids)
    used = starts[:, 1:] > starts[:, :-1]
    lengths = jnp.where(used, starts[:, 1:] - starts[:, :-1], -1)
    offsets = jnp.where(used, starts[:, :-1], -1)
    return lengths, jnp.pad(offsets, ((0, 0), (0, 1)), constant_values=-1), fits


def _packed(run: Callable, qkv: Arrays, segment_ids: jax.Array) -> jax.Array:
    """`run(q, k, v, starts, longest)` on all rows as one, `[B·L, H, D]`; padding is a document."""
    starts, fits = _offsets(segment_ids)
    batch, length = segment_ids.shape
    starts = starts[:, :-1] + length * jnp.arange(batch).reshape(-1, 1)
    starts = jnp.append(starts.ravel(), batch * length).astype(jnp.int32)
    out = run(*(x.reshape(-1, *x.shape[2:]) for x in qkv), starts, length).reshape(qkv[0].shape)
    return _without_padding(jnp.where(fits.reshape(-1, 1, 1, 1), out, jnp.nan), segment_ids)


def _offsets(segment_ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`[B, N + 1]` where each document of a row starts, then the row's length; `[B]` whether there
    was room for all. Padding counts as one."""
    length = segment_ids.shape[1]
    room = int(length * DOCUMENTS_PER_TOKEN) + 2
    before = jnp.concatenate([segment_ids[:, :1] - 1, segment_ids[:, :-1]], axis=1)
    first = segment_ids != before
    find = functools.partial(jnp.nonzero, size=room, fill_value=length)
    starts = jax.vmap(lambda row: find(row)[0])(first)
    end = jnp.full_like(starts[:, :1], length)
    return jnp.concatenate([starts, end], axis=1).astype(jnp.int32), first.sum(1) <= room


def _without_padding(out: jax.Array, segment_ids: jax.Array) -> jax.Array:
    return jnp.where(segment_ids[..., None, None] > 0, out, 0)


def _library(module: str, install: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"needs {module}: pip install {install}") from error


def _only_on_gpu(name: str) -> None:
    if target().platform != "gpu":
        raise InputError(f"implementation {name!r} runs on NVIDIA GPUs only, not {target().kind}")


def check_dtype(name: str, q: jax.Array) -> None:
    """Raises `InputError` where a library is given what its kernels do not take."""
    if target().platform == "gpu" and q.dtype != jnp.bfloat16:
        raise InputError(
            f"implementation {name!r} takes bfloat16 on a GPU, not {q.dtype}; 'xla' takes both"
        )
