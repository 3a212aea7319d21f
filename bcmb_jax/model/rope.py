# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding, rotate-half (not interleaved), over the whole head."""

import jax
import jax.numpy as jnp
import numpy as np


def rope_table(positions: jax.Array, theta: float, head_size: int) -> tuple[jax.Array, jax.Array]:
    """`(cos, sin)`, each `[B, L, 1, head_size / 2]` fp32, for `positions` `[B, L]`."""
    # Fidelity: upstream rounds the tables to bf16 when it trains in bf16; here they stay fp32.
    frequencies = 1.0 / theta ** (np.arange(0, head_size, 2, dtype=np.float32) / head_size)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies.reshape(1, 1, 1, -1)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """`x` `[B, L, H, D]` turned by its positions' angles; fp32. `(x1, x2)` are the two halves."""
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
