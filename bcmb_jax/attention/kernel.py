# SPDX-License-Identifier: Apache-2.0
"""The contract of kernels, the gradient they share, and running one that is written for a head.

Outputs and log-sum-exps are saved for the backward pass, scores are not.
"""

import functools
from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from bcmb_jax.ops.cpu import bf16_to_bits, bits_to_bf16, row_sums, runs_heads_in_turn
from bcmb_jax.ops.linear import accumulation_dtype
from bcmb_jax.ops.remat import ATTENTION_OUTPUT
from bcmb_jax.ops.triton import pad_to_multiple

Arrays: TypeAlias = tuple[Array, ...]
Heads: TypeAlias = tuple[Float[Array, "B L H K"], ...]
Queries: TypeAlias = tuple[Float[Array, "B H L"], ...]
Bounds: TypeAlias = tuple[Int[Array, "B L"], Int[Array, "B L"]]
"""Start and end of the interval of keys that each query sees."""
HeadKernel: TypeAlias = Callable[..., Arrays]
RowKernel: TypeAlias = Callable[[Array, Array], HeadKernel]


@runtime_checkable
class Kernel(Protocol):
    """One way to compute attention, forward and backward; hashable.

    Queries are scaled already; query `i` sees the keys `start[i] <= j < end[i]`, and an empty
    interval gives zeros.
    """

    def forward(self, heads: Heads, bounds: Bounds) -> Arrays:
        """Return output and log-sum-exps, `[B, L, H, K]` and `[B, H, L]`, for `(q, k, v)`."""

    def backward(self, heads: Heads, bounds: Bounds, queries: Queries) -> Arrays:
        """Return `(dq, dk, dv)` for `(q, k, v, dout)` and `(lse, delta)`.

        `delta` is the sum of `out · dout` over the head.
        """


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(kernel: Kernel, heads: Heads, bounds: Bounds) -> Float[Array, "B L H K"]:
    """Return the output of `kernel` for `(q, k, v)`; its gradient is the kernel's own."""
    return kernel.forward(heads, bounds)[0]


def _forward(
    kernel: Kernel, heads: Heads, bounds: Bounds
) -> tuple[Array, tuple[Heads, Bounds, Array, Array]]:
    out, lse = (checkpoint_name(x, ATTENTION_OUTPUT) for x in kernel.forward(heads, bounds))
    return out, (heads, bounds, out, lse)


def _backward(
    kernel: Kernel, residuals: tuple[Heads, Bounds, Array, Array], dout: Array
) -> tuple[Arrays, None]:
    heads, bounds, out, lse = residuals
    wide = accumulation_dtype(out.dtype)
    delta = row_sums(out.astype(wide) * dout.astype(wide)).swapaxes(1, 2)
    return kernel.backward((*heads, dout.astype(out.dtype)), bounds, (lse, delta)), None


attend.defvjp(_forward, _backward)


def for_each_head(
    row_kernel: RowKernel, heads: Heads, bounds: Bounds, queries: Queries, block: int
) -> Arrays:
    """Return the results of `row_kernel(start, end)(*heads, *queries)` for every row and head.

    Args:
      row_kernel: takes a row's `[L]` bounds and returns a function of one head, so that masks are
        computed once for all heads: of its `[L, K]` and then its `[L]`, to a tuple of either.
      block: the kernel sees an `L` that is a multiple of it, padded with zeros.

    Returns:
      The kernel's results as `[B, L, H, K]` or `[B, H, L]`.
    """
    length = heads[0].shape[1]
    run = _in_turn if runs_heads_in_turn() else _at_once
    results = run(
        row_kernel,
        tuple(pad_to_multiple(x, 1, block) for x in heads),
        tuple(pad_to_multiple(x, 1, block) for x in bounds),
        tuple(pad_to_multiple(x, 2, block) for x in queries),
    )
    return tuple(lax.slice_in_dim(x, 0, length, axis=1 if x.ndim == 4 else 2) for x in results)


def _at_once(row_kernel: RowKernel, heads: Arrays, bounds: Arrays, queries: Arrays) -> Arrays:
    def one_row(heads: Arrays, bounds: Arrays, queries: Arrays) -> Arrays:
        axes = (1,) * len(heads) + (0,) * len(queries)
        return jax.vmap(row_kernel(*bounds), in_axes=axes)(*heads, *queries)

    results = jax.vmap(one_row)(heads, bounds, queries)
    return tuple(x.swapaxes(1, 2) if x.ndim == 4 else x for x in results)


def _in_turn(row_kernel: RowKernel, heads: Arrays, bounds: Arrays, queries: Arrays) -> Arrays:
    """Run one head after the other; loops carry bf16 that they slice and write as bits."""
    batch, _, count, _ = heads[0].shape
    sliced = tuple(map(bf16_to_bits, (*heads, *queries)))

    def one_row(row: Array, results: Arrays) -> Arrays:
        start, end = (lax.dynamic_index_in_dim(x, row, keepdims=False) for x in bounds)
        kernel = row_kernel(start, end)

        def one_head(head: Array, results: Arrays) -> Arrays:
            new = map(bf16_to_bits, kernel(*(bits_to_bf16(_read(x, row, head)) for x in sliced)))
            return tuple(_write(*both, row, head) for both in zip(results, new, strict=True))

        written: Arrays = lax.fori_loop(0, count, one_head, results)
        return written

    shapes = jax.eval_shape(functools.partial(_at_once, row_kernel), heads, bounds, queries)
    results = tuple(bf16_to_bits(jnp.zeros(x.shape, x.dtype)) for x in shapes)
    return tuple(map(bits_to_bf16, lax.fori_loop(0, batch, one_row, results)))


def _read(x: Array, row: Array, head: Array) -> Array:
    """Return a head's `[L, K]` of `[B, L, H, K]`, or its `[L]` of `[B, H, L]`."""
    x = lax.dynamic_index_in_dim(x, row, keepdims=False)
    x = lax.dynamic_index_in_dim(x, head, axis=x.ndim - 2, keepdims=False)
    return x


def _write(result: Array, x: Array, row: Array, head: Array) -> Array:
    """Return `result` with a head's `x` written where `_read` would read it."""
    start = (row, 0, head, 0) if result.ndim == 4 else (row, head, 0)
    x = x[None, :, None] if result.ndim == 4 else x[None, None]
    return lax.dynamic_update_slice(result, x, start)
