# SPDX-License-Identifier: Apache-2.0
"""StableAdamW as upstream trains with it (`decoupled_stableadamw`, RECIPE §3).

For a tensor `p` with gradient `g` at step `t` (from 1):

    b1 = (β1^t - β1) / (β1^t - 1)            debiased betas, b2 from β2; both are 0 at t = 1
    m  = b1 m + (1 - b1) g                   v = b2 v + (1 - b2) g²
    η  = lr / max(1, rms)                    rms = sqrt(mean(g² / max(v, ε²))), one a tensor
    p  = p (1 - η / max_lr · weight_decay)   only where the decay mask is true
    p  = p - η m / (√v + ε)

Unlike PyTorch's AdamW the decay is relative to `max_lr`, and both decay and step use the clipped η,
which replaces gradient clipping. `max_lr` and the step are state: a run continued from a Composer
checkpoint keeps those it was created with.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

Scalar: TypeAlias = jax.Array | np.int32 | np.float32


class StableAdamWState(NamedTuple):
    """State of the optimizer: arrays, or shapes or shardings in their places.

    Attributes:
      step: int32, the updates made. The moments are ignored at step 1, so it travels with them.
      max_lr: the learning rate that weight decay is relative to.
      exp_avg: `m`, shaped like the parameters.
      exp_avg_sq: `v`, shaped like the parameters.
      clipped_fraction: the share of tensors whose last update was clipped (`rms > 1`); a metric.
    """

    step: Scalar
    max_lr: Scalar
    exp_avg: optax.Params
    exp_avg_sq: optax.Params
    clipped_fraction: Scalar


def stable_adamw(
    *,
    b1: float = 0.9,
    b2: float = 0.98,
    eps: float = 1e-6,
    weight_decay: float = 1e-5,
    max_lr: float,
    decay_mask: optax.Params | Callable[[optax.Params], optax.Params] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Make the transformation; `update(grads, state, params, learning_rate=lr)` takes the rate.

    Args:
      max_lr: the highest learning rate of the run; a state that is carried over keeps its own.
      decay_mask: a tree of bools, or a function of the parameters that gives one; None decays all.
    """

    def init(params: optax.Params) -> StableAdamWState:
        return StableAdamWState(
            step=jnp.zeros((), jnp.int32),
            max_lr=jnp.asarray(max_lr, dtype=float),
            exp_avg=jax.tree.map(jnp.zeros_like, params),
            exp_avg_sq=jax.tree.map(jnp.zeros_like, params),
            clipped_fraction=jnp.zeros(()),
        )

    def update(
        grads: optax.Updates,
        state: StableAdamWState,
        params: optax.Params,
        *,
        learning_rate: jax.Array | float,
        **_: object,
    ) -> tuple[optax.Updates, StableAdamWState]:
        step = state.step + 1
        gain1, gain2 = (_debiased_gain(b, step) for b in (b1, b2))
        mask = decay_mask(params) if callable(decay_mask) else decay_mask
        if mask is None:
            mask = jax.tree.map(lambda _: True, params)

        def update_tensor(
            g: jax.Array, m: jax.Array, v: jax.Array, p: jax.Array, decays: bool
        ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
            m = (1 - gain1) * m + gain1 * g
            v = (1 - gain2) * v + gain2 * jnp.square(g)
            rms = jnp.sqrt(jnp.mean(jnp.square(g) / jnp.maximum(v, eps**2)))
            eta = learning_rate / jnp.maximum(1.0, rms)
            decay = eta / state.max_lr * weight_decay if decays else 0.0
            return -decay * p - eta * m / (jnp.sqrt(v) + eps), m, v, rms > 1.0

        results = jax.tree.map(update_tensor, grads, state.exp_avg, state.exp_avg_sq, params, mask)
        updates, m, v, clipped = jax.tree.transpose(
            jax.tree.structure(grads), jax.tree.structure((0,) * 4), results
        )
        fraction = jnp.mean(jnp.stack(jax.tree.leaves(clipped)).astype(jnp.float32))
        return updates, StableAdamWState(step, state.max_lr, m, v, fraction)

    return optax.GradientTransformationExtraArgs(init, update)


def weight_decay_mask(params: optax.Params) -> optax.Params:
    """Choose what decays, as upstream does: every matrix, the token table too; no norm, no bias."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _debiased_gain(beta: float, step: Scalar) -> jax.Array:
    # 1 - (β^t - β)/(β^t - 1) = (1 - β)/(1 - β^t), without the cancellation; exactly 1 at t = 1,
    # where a moment is replaced.
    gain = (1 - beta) / -jnp.expm1(jnp.asarray(step, float) * math.log(beta))
    return jnp.where(step == 1, 1.0, gain)
