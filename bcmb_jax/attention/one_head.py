# SPDX-License-Identifier: Apache-2.0
"""Running a kernel written for one head over every row and head of a batch.

Such a kernel comes in two steps: `row_kernel(*arrays_of_the_row)` gives a function of one head, so
that what depends on the row alone (its masks) is made once for all heads.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from bcmb_jax.device import on_cpu
from bcmb_jax.ops.cpu import bf16_to_bits, bits_to_bf16
from bcmb_jax.ops.triton import fill_up

Arrays = tuple[jax.Array, ...]


def for_each_head(
    row_kernel: Callable, per_head: Arrays, per_query: Arrays, per_row: Arrays, block: int
) -> Arrays:
    """What `row_kernel(*rows)(*heads, *queries)` gives, for every row and head.

    Args:
      row_kernel: takes a row's `[L]`; what it returns takes a head's `[L, D]` and then its `[L]`,
        and gives a tuple of either.
      per_head: `[B, L, H, D]`; per_query: `[B, H, L]`; per_row: `[B, L]`.
      block: the kernel sees an `L` that is a multiple of it, filled up with zeros.

    Returns:
      Its results as `[B, L, H, D]` or `[B, H, L]`.

    On a CPU one head at a time, which needs no transposed copies; on other devices all heads in one
    batch.
    """
    length = per_head[0].shape[1]
    run = _in_turn if on_cpu() else _at_once
    results = run(
        row_kernel,
        tuple(fill_up(x, 1, block) for x in per_head),
        tuple(fill_up(x, 2, block) for x in per_query),
        tuple(fill_up(x, 1, block) for x in per_row),
    )
    return tuple(lax.slice_in_dim(x, 0, length, axis=1 if x.ndim == 4 else 2) for x in results)


def _at_once(row_kernel: Callable, per_head: Arrays, per_query: Arrays, per_row: Arrays) -> Arrays:
    def one_row(heads: Arrays, queries: Arrays, rows: Arrays) -> Arrays:
        axes = (1,) * len(heads) + (0,) * len(queries)
        return jax.vmap(row_kernel(*rows), in_axes=axes)(*heads, *queries)

    results = jax.vmap(one_row)(per_head, per_query, per_row)
    return tuple(x.swapaxes(1, 2) if x.ndim == 4 else x for x in results)


def _in_turn(row_kernel: Callable, per_head: Arrays, per_query: Arrays, per_row: Arrays) -> Arrays:
    """One head after the other; what the loops slice and write, they carry as `bf16_to_bits`."""
    batch, _, heads, _ = per_head[0].shape
    sliced = tuple(map(bf16_to_bits, (*per_head, *per_query)))

    def one_row(row: jax.Array, results: Arrays) -> Arrays:
        kernel = row_kernel(*(lax.dynamic_index_in_dim(x, row, keepdims=False) for x in per_row))

        def one_head(head: jax.Array, results: Arrays) -> Arrays:
            new = map(bf16_to_bits, kernel(*(bits_to_bf16(_take(x, row, head)) for x in sliced)))
            return tuple(_put(*both, row, head) for both in zip(results, new, strict=True))

        return lax.fori_loop(0, heads, one_head, results)

    shapes = jax.eval_shape(
        lambda *arrays: _at_once(row_kernel, *arrays), per_head, per_query, per_row
    )
    results = tuple(bf16_to_bits(jnp.zeros(x.shape, x.dtype)) for x in shapes)
    return tuple(map(bits_to_bf16, lax.fori_loop(0, batch, one_row, results)))


def _take(x: jax.Array, row: jax.Array, head: jax.Array) -> jax.Array:
    """A head's `[L, D]` of `[B, L, H, D]`, or its `[L]` of `[B, H, L]`."""
    x = lax.dynamic_index_in_dim(x, row, keepdims=False)
    return lax.dynamic_index_in_dim(x, head, axis=x.ndim - 2, keepdims=False)


def _put(result: jax.Array, x: jax.Array, row: jax.Array, head: jax.Array) -> jax.Array:
    """The inverse of `_take`: `result` with `x` written there."""
    where = (row, 0, head, 0) if result.ndim == 4 else (row, head, 0)
    x = x[None, :, None] if result.ndim == 4 else x[None, None]
    return lax.dynamic_update_slice(result, x, where)
