# SPDX-License-Identifier: Apache-2.0
"""Chunked cross-entropy against the dense formula, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax import losses
from bcmb_jax.ops import cpu
from bcmb_jax.ops.cross_entropy import position_chunks

pytestmark = pytest.mark.usefixtures("strict_dtypes")


@pytest.fixture(params=[10**9, 600])  # one chunk, several
def problem(request, monkeypatch):
    monkeypatch.setattr(cpu, "LOGITS_AT_ONCE", request.param)
    random = np.random.default_rng(0)
    hidden, weight = random.normal(size=(2, 12, 8)), random.normal(size=(50, 8))
    bias, targets = random.normal(size=50), random.integers(0, 50, (2, 12))
    targets[0] = (hidden[0] @ weight.T + bias).argmax(-1)  # a row of hits
    weights = (random.random((2, 12)) < 0.7).astype(np.float32)
    as32 = [jnp.asarray(x, jnp.float32) for x in (hidden, weight, bias)]
    return as32, targets, weights


def dense(hidden, weight, bias, targets, weights):
    logits = jnp.einsum("bkd,vd->bkv", hidden, weight) + bias.reshape(1, 1, -1)
    log_probabilities = jax.nn.log_softmax(logits)
    loss = -jnp.take_along_axis(log_probabilities, targets[..., None], -1)[..., 0]
    return (loss * weights).sum(), jnp.where(logits.argmax(-1) == targets, weights, 0).sum()


def test_loss_accuracy_and_gradients(problem):
    arrays, targets, weights = problem
    pieces = position_chunks(arrays[0].shape, 50)
    assert (pieces > 1) == (cpu.LOGITS_AT_ONCE == 600)

    def ours(*arrays):
        sums = losses.masked_lm_sums(*arrays, targets, weights, jnp.dtype(jnp.float32))
        return 3.0 * sums.loss, sums

    (_, sums), grads = jax.value_and_grad(ours, argnums=(0, 1, 2), has_aux=True)(*arrays)
    plain = losses.masked_lm_sums(*arrays, targets, weights, jnp.dtype(jnp.float32))
    loss, correct = dense(*arrays, targets, weights)
    for found in (sums, plain):  # with and without differentiation
        np.testing.assert_allclose(found.loss, loss, rtol=1e-6)
        assert found.correct == correct > 5
        assert found.weight == weights.sum()
    expected = jax.grad(lambda *a: 3.0 * dense(*a, targets, weights)[0], argnums=(0, 1, 2))(*arrays)
    for ours_, theirs in zip(grads, expected, strict=True):
        np.testing.assert_allclose(ours_, theirs, rtol=1e-6, atol=2e-6)
