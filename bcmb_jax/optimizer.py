# SPDX-License-Identifier: Apache-2.0
"""StableAdamW as upstream trains with it (`decoupled_stableadamw`, RECIPE §3).

For a tensor `p` with gradient `g` at step `t` (from 1):

    b1 = (β1^t - β1) / (β1^t - 1)            likewise b2: debiased betas, both 0 at t = 1
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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class StableAdamWState(NamedTuple):
    """Arrays, or in their places whatever is said of them (shapes, shardings)."""

    step: Any
    """int32: updates made; with the moments it must be carried (at step 1 they are ignored)."""
    max_lr: Any
    exp_avg: Any
    """`m`, shaped like the parameters."""
    exp_avg_sq: Any
    """`v`, shaped like the parameters."""
    clipped_fraction: Any
    """Of tensors whose last update was clipped (`rms > 1`); for the metrics only."""


def stable_adamw(
    *,
    b1: float = 0.9,
    b2: float = 0.98,
    eps: float = 1e-6,
    weight_decay: float = 1e-5,
    max_lr: float,
    decay_mask: Any | Callable[[Any], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The transformation; `update(grads, state, params, learning_rate=lr)` takes `lr` each step.

    Args:
      max_lr: the constructor's learning rate; `max_lr` in the state wins once there is one.
      decay_mask: tree of bools, or a function of the parameters giving one; None decays all.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return StableAdamWState(
            step=jnp.zeros((), jnp.int32),
            max_lr=jnp.asarray(max_lr, dtype=float),
            exp_avg=zeros,
            exp_avg_sq=jax.tree.map(jnp.zeros_like, params),
            clipped_fraction=jnp.zeros(()),
        )

    def update(grads, state, params, *, learning_rate, **_):
        step = state.step + 1
        gain1, gain2 = (_debiased_gain(b, step) for b in (b1, b2))
        mask = decay_mask(params) if callable(decay_mask) else decay_mask
        if mask is None:
            mask = jax.tree.map(lambda _: True, params)

        def tensor(g, m, v, p, decays):
            m = (1 - gain1) * m + gain1 * g
            v = (1 - gain2) * v + gain2 * jnp.square(g)
            rms = jnp.sqrt(jnp.mean(jnp.square(g) / jnp.maximum(v, eps**2)))
            eta = learning_rate / jnp.maximum(1.0, rms)
            decayed = eta / state.max_lr * weight_decay if decays else 0.0
            step_of = eta * m / (jnp.sqrt(v) + eps)
            return -decayed * p - step_of, m, v, rms > 1.0

        results = jax.tree.map(tensor, grads, state.exp_avg, state.exp_avg_sq, params, mask)
        updates, m, v, clipped = jax.tree.transpose(
            jax.tree.structure(grads), jax.tree.structure((0,) * 4), results
        )
        fraction = jnp.mean(jnp.stack(jax.tree.leaves(clipped)).astype(jnp.float32))
        return updates, StableAdamWState(step, state.max_lr, m, v, fraction)

    return optax.GradientTransformationExtraArgs(init, update)


def _debiased_gain(beta: float, step: jax.Array) -> jax.Array:
    # 1 - (β^t - β)/(β^t - 1) = (1 - β)/(1 - β^t), without the cancellation; exactly 1 at t = 1,
    # where a moment is replaced.
    gain = (1 - beta) / -jnp.expm1(step * math.log(beta))
    return jnp.where(step == 1, 1.0, gain)


def decays(params: Any) -> Any:
    """Upstream's decay groups: every matrix, the token table included; no vector (norms, bias)."""
    return jax.tree.map(lambda p: p.ndim > 1, params)
