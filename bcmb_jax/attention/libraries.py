# SPDX-License-Identifier: Apache-2.0
"""Other people's kernels for NVIDIA GPUs under our contract, each an optional install.

They take scaled queries and return `[B, L, H, K]`, zeros in padding. Instead of intervals they need
the documents' offsets, in an array of fixed size: at most `DOCUMENTS_PER_TOKEN` times the number of
tokens. If a batch has more documents the result is NaN, so training stops; documents never mix.

Their outputs carry no name for `jax.checkpoint`, so the backward pass of a layer runs their forward
again. On a CPU "fa4" runs its own plain JAX code, by which the shared test checks what we ask of
it. docs/performance/h200.md has what ran on a GPU, and how fast.
"""

import functools
import importlib
from collections.abc import Callable
from types import ModuleType

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from bcmb_jax.device import target
from bcmb_jax.errors import InputError

DOCUMENTS_PER_TOKEN = 1 / 16

Heads = Float[Array, "B L H K"]


def fa4(q: Heads, k: Heads, v: Heads, segment_ids: Int[Array, "B L"], window: int | None) -> Heads:
    """Compute attention by FlashAttention-4 in CuTe (fa4-jax): Ampere to Blackwell."""
    library = _library("fa4_jax", "fa4-jax, on Python 3.12 or later")

    sides = None if window is None else (window, window)
    backend = "cute" if target().platform == "gpu" else "reference"

    def run(q: Array, k: Array, v: Array, starts: Array) -> Array:
        out: Array = library.flash_attn_varlen(
            q, k, v, starts, starts, window_size=sides, scale=1.0, backend=backend
        )
        return out

    return _packed(run, (q, k, v), segment_ids)


def dew(q: Heads, k: Heads, v: Heads, segment_ids: Int[Array, "B L"], window: int | None) -> Heads:
    """Compute attention by FlashAttention-2 and -3 as compiled by Dao-AILab (dew-flash-attn).

    Ampere, Ada and Hopper.

    Raises:
      InputError: not on a GPU.
    """
    if target().platform != "gpu":
        raise InputError(f"implementation 'dew' runs on NVIDIA GPUs only, not {target().kind}")
    library = _library("dew_flash_attn", "dew-flash-attn-cu12 (or -cu13), on JAX 0.11.2 or later")
    sides = (-1, -1) if window is None else (window, window)

    def run(q: Array, k: Array, v: Array, starts: Array) -> Array:
        out: Array = library.flash_mha_varlen(
            q, k, v, starts, segment_ids.shape[1], softmax_scale=1.0, window_size=sides
        )
        return out

    return _packed(run, (q, k, v), segment_ids)


def check_dtype(name: str, q: Float[Array, "..."]) -> None:
    """Refuse a dtype that a library's kernels do not take.

    Raises:
      InputError: not bfloat16 on a GPU.
    """
    if target().platform == "gpu" and q.dtype != jnp.bfloat16:
        raise InputError(
            f"implementation {name!r} takes bfloat16 on a GPU, not {q.dtype}; 'xla' takes both"
        )


def _packed(
    run: Callable[[Array, Array, Array, Array], Array],
    qkv: tuple[Heads, Heads, Heads],
    segment_ids: Int[Array, "B L"],
) -> Heads:
    """Call `run(q, k, v, starts)` on all rows as one, `[B·L, H, K]`.

    Padding is one more document of a row.
    """
    starts, fits = _offsets(segment_ids)
    batch, length = segment_ids.shape
    starts = starts[:, :-1] + length * jnp.arange(batch).reshape(-1, 1)
    starts = jnp.append(starts.ravel(), batch * length).astype(jnp.int32)
    q, k, v = (x.reshape(-1, *x.shape[2:]) for x in qkv)
    out = run(q, k, v, starts).reshape(qkv[0].shape)
    out = jnp.where(fits.reshape(-1, 1, 1, 1), out, jnp.nan)
    return jnp.where(segment_ids[..., None, None] > 0, out, 0)


def _offsets(segment_ids: Int[Array, "B L"]) -> tuple[Int[Array, "B N"], Bool[Array, " B"]]:
    """Return where each document of a row starts, then the row's length; whether all had room.

    Padding counts as a document.
    """
    length = segment_ids.shape[1]
    room = int(length * DOCUMENTS_PER_TOKEN) + 2
    before = jnp.concatenate([segment_ids[:, :1] - 1, segment_ids[:, :-1]], axis=1)
    first = segment_ids != before
    find = functools.partial(jnp.nonzero, size=room, fill_value=length)
    starts = jax.vmap(lambda row: find(row)[0])(first)
    end = jnp.full_like(starts[:, :1], length)
    return jnp.concatenate([starts, end], axis=1).astype(jnp.int32), first.sum(1) <= room


def _library(module: str, install: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"needs {module}: pip install {install}") from error
