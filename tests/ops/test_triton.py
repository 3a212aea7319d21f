# SPDX-License-Identifier: Apache-2.0
"""Gradients that are kernels: split over a mesh, and where they run."""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import bcmb_jax.attention
import bcmb_jax.device
import bcmb_jax.ops.triton
from bcmb_jax.attention import see, self_attention
from bcmb_jax.attention.mask import segment_positions
from bcmb_jax.device import Target
from bcmb_jax.model import modernbert
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.parameters import merge, split
from bcmb_jax.ops import geglu, norm
from bcmb_jax.ops.dropout import dropout, row_words
from bcmb_jax.ops.rope import rope_table
from bcmb_jax.sharding import batch_sharding, make_mesh
from tests.fixtures.tiny_batches import packed_segments

SIZES = dict(vocab_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=192)
LAYERS = ModelConfig(hidden_size=128, **SIZES)


def gradients(kernels: bool):
    """The gradients of norm, GeGLU and attention for rows `[4, 24]`, by kernels or by JAX."""
    random = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(random.normal(size=(4, 24, *shape)), jnp.float32)

    positions = jnp.tile(jnp.arange(24), (4, 1))
    table = rope_table(positions, 10_000.0, 32)
    words = row_words(jax.random.split(jax.random.key(0), 4), 1)[0]
    f32, weight = jnp.dtype("float32"), jnp.linspace(-1, 2, 128)

    def plain(x, weight):
        x = x + dropout(2 * x, words, 0.1)
        return x, norm.layer_norm(x, weight, 1e-5)

    def by_kernels(x, weight):
        return norm.with_kernel(1e-5, 0.1, f32, x, 2 * x, words, weight)

    def run(x, weight, inner, qkv, cotangents):
        kind = "interval" if kernels else "xla"
        seen = see(packed_segments(4, 24), None, f32, 32, kind)
        normed = by_kernels if kernels else plain
        gated = geglu.with_kernel if kernels else geglu.geglu
        pulls = [
            jax.vjp(normed, x, weight)[1],
            jax.vjp(lambda x: gated(x, f32), inner)[1],
            jax.vjp(lambda x: self_attention(x, table, seen, None, kind), qkv)[1],
        ]
        return [pull(g) for pull, g in zip(pulls, cotangents, strict=True)]

    cotangents = (draw(128), draw(128)), draw(192), draw(2, 32)
    return run, (draw(128), weight, draw(2, 192), draw(3, 2, 32), cotangents)


def test_a_mesh_splits_rows_and_heads_and_adds_up_what_the_weight_gets():
    run, arrays = gradients(kernels=False)
    expected = jax.jit(run)(*arrays)
    run, arrays = gradients(kernels=True)
    mesh = make_mesh(2, 2, 2)
    rows = batch_sharding(mesh, 0)
    arrays = jax.tree.map(lambda x: jax.device_put(x, rows) if x.ndim > 1 else x, arrays)
    with jax.set_mesh(mesh):
        found = jax.jit(run)(*arrays)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6 * np.abs(theirs).max())


def kernels_of(monkeypatch, kind, config=LAYERS, dtype="bfloat16") -> Counter:
    """How many of each the backward pass of two layers would launch on a GPU of this kind."""
    jax.clear_caches()  # layers traced for another device
    device = Target("gpu", kind)
    for module in (bcmb_jax.device, bcmb_jax.attention, bcmb_jax.ops.triton):
        monkeypatch.setattr(module, "target", lambda: device)
    segment_ids = packed_segments(1, 96)

    def make():
        return modernbert.ModernBert(config, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))

    graph, params = split(make)

    def loss(params):
        model = merge(graph, params)
        return model(segment_ids, segment_ids, segment_positions(segment_ids)).sum()

    traced = str(jax.make_jaxpr(jax.grad(loss))(params))
    jax.clear_caches()
    return Counter(re.findall(r"name=(attention_dq|attention_dkv|\w+_gradient)\b", traced))


def test_each_layer_has_its_kernels_once(monkeypatch):
    # The first layer has no norm before its attention; those outside layers are left to XLA.
    between = dict(norm_gradient=3, geglu_gradient=2)
    attention = dict(attention_dq=2, attention_dkv=2)
    assert kernels_of(monkeypatch, "NVIDIA H200") == attention | between


@pytest.mark.parametrize("kind", ["AMD MI250X", "NVIDIA Tesla V100-SXM2-32GB"])
def test_other_gpus_have_none(monkeypatch, kind):
    assert not kernels_of(monkeypatch, kind)


def test_sizes_without_a_power_of_two_and_fp32_are_left_to_xla(monkeypatch):
    odd = ModelConfig(hidden_size=2 * 38, **SIZES | dict(intermediate_size=146))
    assert not kernels_of(monkeypatch, "NVIDIA H200", odd)
    assert not kernels_of(monkeypatch, "NVIDIA H200", dtype="float32")
