# SPDX-License-Identifier: Apache-2.0
"""Running a kernel written for one head over every row and head of a batch.

Such a kernel comes in two steps: `row_kernel(*arrays_of_the_row)` gives a function of one head, so
that what depends on the row alone (its masks) is made once for all heads.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from bcmb_jax.attention.mask import fill_up
from bcmb_jax.device import target
from bcmb_jax.linear import bits, from_bits

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

    On a CPU one head at a time, which keeps its scores in cache and needs no transposed copies; on
    other devices all heads in one batch.
    """
    length = per_head[0].shape[1]
    run = _in_turn if target().platform == "cpu" else _at_once
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
    """Head-major and as `bits`, so that every turn reads and writes whole pieces of memory."""

    def one_row(row: tuple[Arrays, Arrays]) -> Arrays:
        arrays, rows = row
        kernel = row_kernel(*rows)
        return lax.map(lambda head: tuple(map(bits, kernel(*map(from_bits, head)))), arrays)

    arrays = *(x.swapaxes(1, 2) for x in map(bits, per_head)), *per_query
    results = map(from_bits, lax.map(one_row, (arrays, per_row)))
    return tuple(x.swapaxes(1, 2) if x.ndim == 4 else x for x in results)
