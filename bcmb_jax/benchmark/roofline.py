# SPDX-License-Identifier: Apache-2.0
"""How fast this machine can multiply, and what that makes of a measurement."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from bcmb_jax.linear import linear

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
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(rows, inputs)), dtype)
    weight = jnp.asarray(rng.normal(size=(outputs, inputs)), jnp.float32)
    run = jax.jit(lambda x, weight: linear(x, weight, dtype))
    run(x, weight).block_until_ready()
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        run(x, weight).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * rows * inputs * outputs / min(seconds)
