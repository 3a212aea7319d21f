# SPDX-License-Identifier: Apache-2.0
"""StableAdamW against a float64 transcription of upstream's formulas (RECIPE §3)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bcmb_jax.optimizer import stable_adamw, weight_decay_mask

pytestmark = pytest.mark.usefixtures("strict_dtypes")

RATES = [1e-3, 8e-4, 3e-3, 3e-3, 1e-4, 0.0, 2e-3, 1e-3, 5e-4, 1e-3]
MAX_LR, WEIGHT_DECAY = 2e-3, 0.05


def transcription(params, gradients, *, b1=0.9, b2=0.98, eps=1e-6):
    """Upstream's loop over one tensor at a time, in float64."""
    moments = {name: (np.zeros_like(p), np.zeros_like(p)) for name, p in params.items()}
    params = dict(params)
    for t, (grads, lr) in enumerate(zip(gradients, RATES, strict=True), 1):
        beta1, beta2 = ((b**t - b) / (b**t - 1) for b in (b1, b2))
        for name, g in grads.items():
            m, v = moments[name]
            m = m + (1 - beta1) * (g - m)
            v = beta2 * v + (1 - beta2) * g**2
            rms = np.sqrt(np.mean(g**2 / np.maximum(v, eps**2)))
            eta = lr / max(1.0, rms)
            if params[name].ndim > 1:
                params[name] = params[name] * (1 - eta / MAX_LR * WEIGHT_DECAY)
            params[name] = params[name] - eta * m / (np.sqrt(v) + eps)
            moments[name] = m, v
    return params, moments


@pytest.fixture
def problem():
    random = np.random.default_rng(0)
    params = {"matrix": random.normal(size=(4, 6)), "norm": random.normal(size=6)}
    # Growing gradients clip (rms > 1); the tiny ones meet the floor of ε².
    scales = [1, 1, 10, 0.1, 100, 1, 1e-7, 1, 3, 1]
    gradients = [
        {name: s * random.normal(size=p.shape) for name, p in params.items()} for s in scales
    ]
    return params, gradients


def run(params, gradients):
    optimizer = stable_adamw(weight_decay=WEIGHT_DECAY, max_lr=MAX_LR, decay_mask=weight_decay_mask)
    state = optimizer.init(params)
    step = jax.jit(lambda g, s, p, lr: optimizer.update(g, s, p, learning_rate=lr))
    clipped = []
    for grads, lr in zip(gradients, RATES, strict=True):
        updates, state = step(grads, state, params, lr)
        params = optax.apply_updates(params, updates)
        clipped.append(float(state.clipped_fraction))
    return params, state, clipped


def test_equals_the_transcription_in_float64(problem):
    expected, moments = transcription(*problem)
    with jax.enable_x64(True):
        params, state, clipped = run(jax.tree.map(jnp.asarray, problem[0]), problem[1])
    for name in expected:
        np.testing.assert_allclose(params[name], expected[name], rtol=0, atol=1e-12)
        np.testing.assert_allclose(state.exp_avg[name], moments[name][0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(state.exp_avg_sq[name], moments[name][1], rtol=1e-12)
    assert state.step == 10
    assert 0 < np.mean(clipped) < 1  # both branches of the clipping were taken


def test_fp32_stays_close(problem):
    expected, _ = transcription(*problem)
    as32 = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), problem[0])
    params, _, _ = run(as32, problem[1])
    for name in expected:
        np.testing.assert_allclose(params[name], expected[name], atol=1e-6)


def test_vectors_do_not_decay_and_a_state_brings_its_own_max_lr():
    params = {"matrix": jnp.ones((2, 2)), "norm": jnp.ones(2)}
    optimizer = stable_adamw(weight_decay=0.1, max_lr=1.0, decay_mask=weight_decay_mask)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params, learning_rate=0.5)
    np.testing.assert_allclose(updates["matrix"], -0.05)
    np.testing.assert_array_equal(updates["norm"], 0.0)
    carried = optimizer.init(params)._replace(max_lr=jnp.asarray(2.0))
    updates, _ = optimizer.update(zero, carried, params, learning_rate=0.5)
    np.testing.assert_allclose(updates["matrix"], -0.025)


def test_a_dropped_step_counter_throws_the_moments_away(problem):
    params, gradients = problem
    _, state, _ = run(params, gradients)
    optimizer = stable_adamw(weight_decay=WEIGHT_DECAY, max_lr=MAX_LR, decay_mask=weight_decay_mask)

    def next_update(state):
        return optimizer.update(gradients[0], state, params, learning_rate=1e-3)[0]["matrix"]

    zeroed = jax.tree.map(jnp.zeros_like, state)._replace(max_lr=state.max_lr)
    fresh = next_update(zeroed)
    np.testing.assert_array_equal(next_update(state._replace(step=state.step * 0)), fresh)
    assert np.abs(next_update(state) - fresh).max() > 1e-5
