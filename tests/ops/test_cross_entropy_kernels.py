# SPDX-License-Identifier: Apache-2.0
"""The loss kernel, interpreted, against JAX's own cross-entropy and gradient in fp32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bcmb_jax.ops.cross_entropy as module
from bcmb_jax.ops.cross_entropy_kernels import loss_and_gradient
from tests.fixtures.tiny_batches import assert_within


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


def test_the_loss_with_the_kernel_has_the_gradients_of_the_one_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(1)
    hidden = jnp.asarray(random.normal(size=(2, 6, 32)), jnp.bfloat16)
    weight = jnp.asarray(random.normal(size=(192, 32)), jnp.float32)
    bias = jnp.asarray(random.normal(size=192), jnp.float32)
    targets = jnp.asarray(random.integers(0, 192, (2, 6)), jnp.int32)
    weights = jnp.asarray(random.integers(0, 2, (2, 6)), jnp.float32)

    def both(kernel: bool) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        monkeypatch.setattr(module, "is_a_kernel", lambda *_: kernel)

        def loss(*parameters: jax.Array) -> jax.Array:
            return module.cross_entropy(*parameters, targets, weights, 2)[0]

        return jax.value_and_grad(loss, argnums=(0, 1, 2))(hidden, weight, bias)

    (found, gradients), (expected, references) = both(True), both(False)
    np.testing.assert_allclose(found, expected, rtol=5e-3)
    for x, y in zip(gradients, references, strict=True):
        assert x.dtype == y.dtype
        assert_within(3e-2, x, y.astype("float32"))  # logits rounded to bf16
