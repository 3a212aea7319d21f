# SPDX-License-Identifier: Apache-2.0
"""Running a kernel that is written for one head over every row and head of a batch.

Such a kernel comes in two steps: `row_kernel(*arrays_of_the_row)` returns a function of one head,
so that what depends on the row alone (its masks) is computed once for all heads.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from bcmb_jax.ops.cpu import bf16_to_bits, bits_to_bf16, runs_heads_in_turn
from bcmb_jax.ops.triton import pad_to_multiple

Arrays = tuple[jax.Array, ...]
HeadKernel = Callable[..., Arrays]
RowKernel = Callable[..., HeadKernel]


def for_each_head(
    row_kernel: RowKernel, per_head: Arrays, per_query: Arrays, per_row: Arrays, block: int
) -> Arrays:
    """Return the results of `row_kernel(*rows)(*heads, *queries)` for every row and head.

    Args:
      row_kernel: takes a row's `[L]`; its result takes a head's `[L, K]` and then its `[L]`, and
        returns a tuple of either.
      per_head: `[B, L, H, K]`.
      per_query: `[B, H, L]`.
      per_row: `[B, L]`.
      block: the kernel sees an `L` that is a multiple of it, padded with zeros.

    Returns:
      The kernel's results as `[B, L, H, K]` or `[B, H, L]`.
    """
    length = per_head[0].shape[1]
    run = _in_turn if runs_heads_in_turn() else _at_once
    results = run(
        row_kernel,
        tuple(pad_to_multiple(x, 1, block) for x in per_head),
        tuple(pad_to_multiple(x, 2, block) for x in per_query),
        tuple(pad_to_multiple(x, 1, block) for x in per_row),
    )
    return tuple(lax.slice_in_dim(x, 0, length, axis=1 if x.ndim == 4 else 2) for x in results)


def _at_once(row_kernel: RowKernel, per_head: Arrays, per_query: Arrays, per_row: Arrays) -> Arrays:
    def one_row(heads: Arrays, queries: Arrays, rows: Arrays) -> Arrays:
        axes = (1,) * len(heads) + (0,) * len(queries)
        return jax.vmap(row_kernel(*rows), in_axes=axes)(*heads, *queries)

    results = jax.vmap(one_row)(per_head, per_query, per_row)
    return tuple(x.swapaxes(1, 2) if x.ndim == 4 else x for x in results)


def _in_turn(row_kernel: RowKernel, per_head: Arrays, per_query: Arrays, per_row: Arrays) -> Arrays:
    """Run one head after the other; loops carry bf16 that they slice and write as bits."""
    batch, _, heads, _ = per_head[0].shape
    sliced = tuple(map(bf16_to_bits, (*per_head, *per_query)))

    def one_row(row: jax.Array, results: Arrays) -> Arrays:
        kernel = row_kernel(*(lax.dynamic_index_in_dim(x, row, keepdims=False) for x in per_row))

        def one_head(head: jax.Array, results: Arrays) -> Arrays:
            new = map(bf16_to_bits, kernel(*(bits_to_bf16(_read(x, row, head)) for x in sliced)))
            return tuple(_write(*both, row, head) for both in zip(results, new, strict=True))

        results = lax.fori_loop(0, heads, one_head, results)
        return results

    shapes = jax.eval_shape(
        lambda *arrays: _at_once(row_kernel, *arrays), per_head, per_query, per_row
    )
    results = tuple(bf16_to_bits(jnp.zeros(x.shape, x.dtype)) for x in shapes)
    return tuple(map(bits_to_bf16, lax.fori_loop(0, batch, one_row, results)))


def _read(x: jax.Array, row: jax.Array, head: jax.Array) -> jax.Array:
    """Return a head's `[L, K]` of `[B, L, H, K]`, or its `[L]` of `[B, H, L]`."""
    x = lax.dynamic_index_in_dim(x, row, keepdims=False)
    x = lax.dynamic_index_in_dim(x, head, axis=x.ndim - 2, keepdims=False)
    return x


def _write(result: jax.Array, x: jax.Array, row: jax.Array, head: jax.Array) -> jax.Array:
    """Return `result` with a head's `x` written where `_read` would read it."""
    start = (row, 0, head, 0) if result.ndim == 4 else (row, head, 0)
    x = x[None, :, None] if result.ndim == 4 else x[None, None]
    return lax.dynamic_update_slice(result, x, start)
