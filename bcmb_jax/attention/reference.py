# SPDX-License-Identifier: Apache-2.0
"""Dense float32 attention: the definition that every other implementation is tested against."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bcmb_jax.attention.mask import visible


def reference_attention(
    q: Float[Array, "B L H K"],
    k: Float[Array, "B L H K"],
    v: Float[Array, "B L H K"],
    start: Int[Array, "B L"],
    end: Int[Array, "B L"],
) -> Float[Array, "B L H K"]:
    """Return the attention of scaled queries to the keys `start <= j < end`.

    Builds `[B, H, L, L]`: for tests and short rows only.
    """
    f32 = [x.astype(jnp.float32) for x in (q, k, v)]
    high = lax.Precision.HIGHEST
    scores = jnp.einsum("bqhd,bkhd->bhqk", f32[0], f32[1], precision=high)
    keys = jnp.arange(k.shape[1])[None, None, None, :]
    seen = visible(start[:, None, :, None], end[:, None, :, None], keys)
    # An empty interval must give 0 and a finite gradient, so both sides of the division are kept
    # away from 0/0 and from -inf - -inf.
    top = jnp.max(jnp.where(seen, scores, -jnp.inf), axis=-1, keepdims=True)
    top = lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0))
    weights = jnp.where(seen, jnp.exp(jnp.where(seen, scores - top, 0.0)), 0.0)
    total = weights.sum(-1, keepdims=True)
    weights = weights / jnp.where(total > 0, total, 1.0)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, f32[2], precision=high).astype(q.dtype)
