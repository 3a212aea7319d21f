# SPDX-License-Identifier: Apache-2.0
"""The loss kernel, interpreted, against JAX's own cross-entropy and gradient in fp32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax.ops.cross_entropy_kernels import loss_and_gradient


@pytest.mark.parametrize(
    ("count", "vocab_size", "dtype"),
    [
        pytest.param(12, 2500, jnp.bfloat16, id="last-block-masked"),
        pytest.param(7, 1027, jnp.bfloat16, id="odd-sizes"),
        pytest.param(1, 3, jnp.bfloat16, id="one-row"),
        pytest.param(6, 2048, jnp.float32, id="whole-blocks-fp32"),
    ],
)
def test_equals_the_reference(count: int, vocab_size: int, dtype: jnp.dtype) -> None:
    random = np.random.default_rng(0)
    logits = jnp.asarray(random.normal(0, 4, (count, vocab_size)), dtype)
    targets = jnp.asarray(random.integers(0, vocab_size, count), jnp.int32)
    targets = targets.at[0].set(logits[0].argmax())  # one hit at least
    targets = targets.at[-1].set(vocab_size - 1 if count > 1 else targets[-1])  # in the last block
    weights = jnp.asarray(random.uniform(0.5, 2, count), jnp.float32)
    if count > 2:
        weights = weights.at[1].set(0)  # padding

    def reference(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        each = -jax.nn.log_softmax(logits)[jnp.arange(count), targets] * weights
        return each.sum(), each

    exact = logits.astype(jnp.float32)
    gradient, expected = jax.grad(reference, has_aux=True)(exact)
    losses, hits, dlogits = jax.jit(loss_and_gradient)(logits, targets, weights)

    np.testing.assert_allclose(losses, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(
        hits, jnp.where(exact[jnp.arange(count), targets] >= exact.max(1), weights, 0)
    )
    assert dlogits.dtype == dtype
    rounding = 2**-8 if dtype == jnp.bfloat16 else 2e-5
    np.testing.assert_allclose(dlogits.astype(jnp.float32), gradient, rtol=rounding, atol=1e-6)
    if count > 2:
        assert not losses[1]
        assert not dlogits[1].any()
