# SPDX-License-Identifier: Apache-2.0
"""Verification passes trained models, which feel every angle, and refuses each kind of mistake."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bcmb_jax.model.heads
import bcmb_jax.ops.geglu
from bcmb_jax.errors import InputError
from conversion import verify
from conversion.mapping import MASKED_LM, Weights
from tests.fixtures.tiny_weights import IDS
from tests.fixtures.trained import REPEATER, trained_parameters

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def weights() -> Weights:
    return Weights(REPEATER, trained_parameters(), IDS, origin="trained", head=MASKED_LM)


@pytest.fixture
def model(weights):
    """The right model in transformers, whatever `weights` a test compares it with."""
    return verify._torch_model(weights, None)


@pytest.fixture
def against(model, monkeypatch):
    """`against(weights)` verifies `weights` against the right model, on rows of `length` tokens."""
    monkeypatch.setattr(verify, "_torch_model", lambda *_: model)

    def against(weights, length=160):
        monkeypatch.setattr(verify, "LONG", length)
        return verify.compare_with_transformers(weights, None)

    return against


@pytest.mark.parametrize("length", [64, 640, 8192])
def test_a_trained_model_passes(length, weights, against):
    found = against(weights, length)
    # The verdict allows twice their rounding; ours in float64 is far below it.
    assert found.error < 0.5 * found.their_error


@pytest.mark.parametrize("ulps", [-2, -1, 1, 2])
def test_frequencies_rounded_otherwise_pass_and_are_reported_apart(ulps, weights, model, against):
    """As on machines whose powers are rounded otherwise; 640 tokens are enough to feel it."""
    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq"):
            buffer.view(torch.int32).add_(ulps)
    found = against(weights, 640)
    assert found.error < 0.5 * found.their_error
    assert found.frequencies > 5 * found.error


def test_a_frequency_further_off_than_rounding_is_refused(weights, model, against):
    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq"):
            buffer.mul_(1 + 2e-5)
    with pytest.raises(InputError, match="verification failed: logits on"):
        against(weights)


SIZES = {
    "window one wider": {"local_attention": REPEATER.local_attention + 2},
    "window one narrower": {"local_attention": REPEATER.local_attention - 2},
    "global theta": {"global_rope_theta": REPEATER.global_rope_theta * 1.01},
    "local theta": {"local_rope_theta": REPEATER.local_rope_theta * 0.99},
    "thetas exchanged": {
        "global_rope_theta": REPEATER.local_rope_theta,
        "local_rope_theta": REPEATER.global_rope_theta,
    },
    "layers exchanged": {"global_attn_every_n_layers": 3},
    "epsilon of norms": {"norm_eps": 1e-4},
}


@pytest.mark.parametrize("wrong", SIZES)
def test_a_wrong_size_is_refused(wrong, weights, against):
    other = dataclasses.replace(REPEATER, **SIZES[wrong])
    with pytest.raises(InputError, match="verification failed: logits on"):
        against(weights._replace(config=other))


def exchange_heads(wqkv, parts):
    wqkv[parts] = wqkv[parts, ::-1]


TENSORS = {
    "heads of queries": ("attn.Wqkv", lambda x: exchange_heads(x, [0])),
    "heads of keys and values": ("attn.Wqkv", lambda x: exchange_heads(x, [1, 2])),
    "queries for keys": ("attn.Wqkv", lambda x: np.copyto(x, x[[1, 0, 2]])),
    "halves of heads": ("attn.Wqkv", lambda x: np.copyto(x, np.roll(x, x.shape[2] // 2, axis=2))),
    "heads of the output": ("attn.Wo", lambda x: np.copyto(x, x[:, ::-1].copy())),
    "gate for activation": ("mlp.Wi", lambda x: np.copyto(x, x[::-1].copy())),
}


@pytest.mark.parametrize("wrong", TENSORS)
def test_a_wrong_order_is_refused(wrong, weights, against):
    """In one layer alone."""
    layer, change = TENSORS[wrong]
    name = f"model.layers.1.{layer}.weight"
    changed = weights.params[name].copy()
    change(changed)
    with pytest.raises(InputError, match="verification failed: logits on"):
        against(weights._replace(params=weights.params | {name: changed}))


def by_tanh(x):
    return jax.nn.gelu(x, approximate=True)


def by_sigmoid(x):
    return x * jax.nn.sigmoid(1.702 * x)


@pytest.mark.parametrize(
    ("module", "wrong"),
    [
        (bcmb_jax.ops.geglu, by_tanh),
        (bcmb_jax.ops.geglu, by_sigmoid),
        (bcmb_jax.ops.geglu, jax.nn.silu),
        (bcmb_jax.model.heads, by_tanh),
    ],
)
def test_a_wrong_activation_is_refused(module, wrong, weights, against, monkeypatch):
    jax.clear_caches()  # layers traced with the right one
    monkeypatch.setattr(module, "gelu", wrong)
    with pytest.raises(InputError, match="verification failed: logits on"):
        against(weights)
    jax.clear_caches()


def test_the_halves_of_a_head_are_the_pairs_that_are_rotated(weights, against, monkeypatch):
    """Neighbours instead, as in other models, are refused."""

    def neighbours(x, cos, sin):
        first, second = x[..., ::2], x[..., 1::2]
        pairs = first * cos - second * sin, second * cos + first * sin
        return jnp.stack(pairs, axis=-1).reshape(x.shape)

    jax.clear_caches()
    monkeypatch.setattr("bcmb_jax.ops.rope.rotate", neighbours)
    with pytest.raises(InputError, match="verification failed: logits on"):
        against(weights)
    jax.clear_caches()
