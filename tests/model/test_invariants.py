# SPDX-License-Identifier: Apache-2.0
"""Invariants of the whole model: isolation of documents, padding, and numbers that do not
depend on how the work is split."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType

from bcmb_jax.attention import see
from bcmb_jax.attention.mask import segment_positions
from bcmb_jax.masking import MaskingRule
from bcmb_jax.model.config import BASE, LARGE
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import init_parameters, merge, split
from bcmb_jax.ops.rope import rope_table
from bcmb_jax.optimizer import stable_adamw, weight_decay_mask
from bcmb_jax.sharding import optimizer_shardings, parameter_shardings, to_mesh
from bcmb_jax.training.checkpoint import TrainState
from bcmb_jax.training.step import train_step
from tests.fixtures.tiny_batches import packed_batch
from tests.fixtures.tiny_model import TINY, masked_lm


@pytest.mark.parametrize(("config", "expected"), [(BASE, 149_655_232), (LARGE, 395_881_664)])
def test_parameter_counts(config, expected):
    _, shapes = split(lambda: ModernBertForMaskedLM(config, rngs=nnx.Rngs(0)))
    assert sum(x.size for x in shapes.values()) == expected


@pytest.fixture(scope="module")
def two_documents():
    """A row with a document at 40:300 between two others, and the same with other neighbours."""
    segment_ids = np.zeros((1, 512), np.int32)
    segment_ids[0, :40], segment_ids[0, 40:300], segment_ids[0, 300:500] = 1, 2, 3
    row = packed_batch(2, 512)
    tokens = row.tokens[:1] * 0 + np.random.default_rng(0).integers(5, 128, (1, 512), np.int32)
    other = tokens.copy()
    other[0, :40] += 1
    other[0, 300:] = 7
    other_segments = segment_ids.copy()
    other_segments[0, 20:40], other_segments[0, 350:] = 9, 0  # neighbours of other lengths too
    return tokens, segment_ids, other % 128, other_segments


def encode(tokens, segment_ids):
    return jax.jit(masked_lm())(tokens, segment_ids, segment_positions(segment_ids))


def test_a_document_does_not_depend_on_its_neighbours(two_documents):
    tokens, segment_ids, other, other_segments = two_documents
    ours, theirs = encode(tokens, segment_ids), encode(other, other_segments)
    np.testing.assert_array_equal(ours[0, 40:300], theirs[0, 40:300])
    assert (np.asarray(ours)[0, :40] != np.asarray(theirs)[0, :40]).any()


def test_in_bf16_products_give_bf16_and_the_residual_stream_stays_fp32():
    model, batch = masked_lm(dtype=jnp.dtype(jnp.bfloat16)), packed_batch(2, 64)
    inputs = batch.tokens, batch.segment_ids, batch.positions
    rope = rope_table(batch.positions, 1e4, TINY.head_size)
    layer = model.model.layers[0]
    seen = see(batch.segment_ids, None, model.dtype, TINY.head_size)

    def of_each_kind():
        x = model.model(*inputs)
        products = layer.attn.Wqkv(x), layer.mlp.Wo(layer.mlp.Wi(x)[..., 0, :])
        return products, (x, layer(x, None, seen, rope, None)[0], model.head(x), model(*inputs))

    products, others = jax.eval_shape(of_each_kind)
    assert [y.dtype for y in products] == [jnp.bfloat16] * 2
    assert [y.dtype for y in others] == [jnp.float32] * 4


def test_no_gradient_crosses_documents(two_documents):
    tokens, segment_ids, *_ = two_documents
    model = masked_lm()
    positions = np.arange(512)[None]

    def loss_of_middle(embedded):
        x = model.model.embeddings.norm(embedded)
        for layer, kind in zip(model.model.layers, TINY.layer_types, strict=True):
            theta = TINY.global_rope_theta if kind == "global" else TINY.local_rope_theta
            seen = see(segment_ids, layer.attn.window, model.dtype, TINY.head_size)
            x, _ = layer(x, None, seen, rope_table(positions, theta, TINY.head_size), None)
        return (x[0, 40:300] ** 2).sum()

    table = model.model.embeddings.tok_embeddings.weight[...]
    gradient = np.abs(np.asarray(jax.jit(jax.grad(loss_of_middle))(table[tokens])))[0]
    assert (gradient[40:300].max(-1) > 0).all()
    assert gradient[:40].max() == 0.0
    assert gradient[300:].max() == 0.0


def test_packed_equals_alone(two_documents):
    tokens, segment_ids, *_ = two_documents
    packed = encode(tokens, segment_ids)
    alone = encode(tokens[:, 40:300], np.ones((1, 260), np.int32))
    np.testing.assert_allclose(packed[0, 40:300], alone[0], atol=1e-5)


RULE = MaskingRule(0.3, 4, (0, 1, 2, 3, 4), np.arange(5, 128))
SPLIT = dataclasses.replace(TINY, num_hidden_layers=2, attention_output_dropout=0.3)


def loss_and_update(devices, mesh_shape, microbatches, config=SPLIT, remat=False):
    """The loss of a step on 8 rows, and the parameters after it."""
    names = ("data", "fsdp", "tensor")
    mesh = jax.make_mesh(mesh_shape, names, (AxisType.Auto,) * 3, devices=jax.devices()[:devices])
    make = functools.partial(masked_lm, config, remat=remat)
    graph, shapes = split(make)
    optimizer = stable_adamw(max_lr=1e-3, decay_mask=weight_decay_mask)
    shardings = parameter_shardings(mesh, shapes)
    shardings = TrainState(shardings, optimizer_shardings(mesh, shardings))

    def init():
        # Larger than at initialisation, so that masks and dropout move the loss.
        params = {n: 4 * p if p.ndim > 1 else p for n, p in init_parameters(make).items()}
        return TrainState(params, optimizer.init(params))

    state = jax.jit(init, out_shardings=shardings)()
    step = jax.jit(
        functools.partial(train_step, graph=graph, optimizer=optimizer, rule=RULE, seed=3)
    )
    with jax.set_mesh(mesh):
        state, metrics = step(state, to_mesh(packed_batch(8, 96), mesh, microbatches), 1e-3)
    return float(metrics.loss), jax.device_get(state.params)


@pytest.fixture(scope="module")
def one_device():
    return loss_and_update(1, (1, 1, 1), 1)


SPLITS = [
    pytest.param(1, (1, 1, 1), 8, marks=pytest.mark.slow),
    pytest.param(8, (1, 8, 1), 1, marks=pytest.mark.slow),
    (8, (2, 2, 2), 2),
    pytest.param(2, (2, 1, 1), 2, marks=pytest.mark.slow),
    pytest.param(8, (8, 1, 1), 1, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("devices", "mesh", "microbatches"), SPLITS)
def test_the_same_loss_however_the_work_is_split(one_device, devices, mesh, microbatches):
    loss, params = loss_and_update(devices, mesh, microbatches)
    assert loss == pytest.approx(one_device[0], rel=1e-6)
    for name, value in params.items():
        # An update is at most about the learning rate, 1e-3.
        np.testing.assert_allclose(value, one_device[1][name], atol=2e-5, err_msg=name)


@pytest.mark.slow
def test_remat_changes_nothing_but_memory(one_device):
    loss, _ = loss_and_update(1, (1, 1, 1), 1, remat=True)
    assert loss == pytest.approx(one_device[0], rel=1e-6)


def test_dropout_is_on_in_training(one_device):
    without = dataclasses.replace(SPLIT, attention_output_dropout=0.0)
    loss, _ = loss_and_update(1, (1, 1, 1), 1, config=without)
    assert abs(loss - one_device[0]) > 1e-4


def test_every_parameter_has_a_gradient():
    graph, _ = split(masked_lm)
    batch = jax.tree.map(jnp.asarray, packed_batch(3, 64))
    params = init_parameters(masked_lm)

    def loss(params):
        return (merge(graph, params)(batch.tokens, batch.segment_ids, batch.positions) ** 2).sum()

    grads = jax.jit(jax.grad(loss))(params)
    assert not [name for name, g in grads.items() if not np.abs(g).max() > 0]


def test_a_batch_that_is_all_padding_gives_no_nan():
    tokens = np.zeros((2, 64), np.int32)
    logits = masked_lm()(tokens, tokens, tokens)
    assert np.isfinite(logits).all()
