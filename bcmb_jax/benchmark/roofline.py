# SPDX-License-Identifier: Apache-2.0
"""How fast this machine can multiply, and what that makes of a measurement."""

import time

import jax
import jax.numpy as jnp

from bcmb_jax.ops.linear import linear

SHAPES = ((2048, 768, 2304), (4096, 1152, 768), (2048, 2048, 2048))  # rows, inputs, outputs
ON_ACCELERATORS = ((16_384, 4096, 4096), (8192, 8192, 8192))


def matmul_ceiling(dtype: jnp.dtype, before: float = 0.0) -> float:
    """FLOP/s of the fastest of a few large products in `dtype`, as the model computes them.

    A machine that others use too is only at times as fast as it can be: asked for before and after
    a race, with the first answer as `before`, it is the faster of both.
    """
    shapes = SHAPES if jax.default_backend() == "cpu" else ON_ACCELERATORS
    return max(before, *(_flops_per_second(shape, dtype) for shape in shapes))


def _flops_per_second(shape: tuple[int, int, int], dtype: jnp.dtype) -> float:
    rows, inputs, outputs = shape
    # Made on the device: a hundred million numbers take a host longer than a GPU's whole race.
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
