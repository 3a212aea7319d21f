# SPDX-License-Identifier: Apache-2.0
"""Time candidates in turns on a machine that may not be quiet, and measure its speed limit."""

import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from bcmb_jax.ops.linear import linear
from bcmb_jax.terminal import Display

Times = list[float]

SHAPES = ((2048, 768, 2304), (4096, 1152, 768), (2048, 2048, 2048))  # rows, inputs, outputs
ON_ACCELERATORS = ((16_384, 4096, 4096), (8192, 8192, 8192))


def time_interleaved(
    candidates: Mapping[str, Callable[[], object]], rounds: int, repeats: int
) -> dict[str, Times]:
    """Return the seconds of every timed call, by candidate.

    Candidates take turns: one call that is not counted (caches, threads and memory come back to
    this candidate), then `repeats` counted ones; `rounds` times. A drift of the machine's speed
    then affects all candidates alike.

    Args:
      candidates: functions that return only when their work is done.
      repeats: 0 for calls of minutes: one call a turn, and that one counts.
    """
    times: dict[str, Times] = {name: [] for name in candidates}
    display = Display()
    for turn in range(rounds):
        for number, (name, run) in enumerate(candidates.items()):
            done = (turn + number / len(candidates)) / rounds
            display.progress(done, f"round {turn + 1} of {rounds}: {name}")
            if repeats:
                run()
            for _ in range(repeats or 1):
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    display.close()
    return times


def matmul_ceiling(dtype: jnp.dtype, before: float = 0.0) -> float:
    """Return the FLOP/s of the fastest of a few large products in `dtype`.

    The model computes its products in the same way. A machine that others use too is only at times
    as fast as it can be: measured before and after the candidates, with the first result as
    `before`, the ceiling is the faster of both.
    """
    shapes = SHAPES if jax.default_backend() == "cpu" else ON_ACCELERATORS
    return max(before, *(_flops_per_second(shape, dtype) for shape in shapes))


def _flops_per_second(shape: tuple[int, int, int], dtype: jnp.dtype) -> float:
    rows, inputs, outputs = shape
    # Made on the device: a hundred million numbers take a host longer than a GPU's whole run.
    x = jax.random.normal(jax.random.key(0), (rows, inputs), dtype)
    weight = jax.random.normal(jax.random.key(1), (outputs, inputs))
    run = jax.jit(lambda x, weight: linear("md,nd->mn", x, weight, dtype, out_dtype=dtype))
    run(x, weight).block_until_ready()
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        run(x, weight).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * rows * inputs * outputs / min(seconds)
