# SPDX-License-Identifier: Apache-2.0
"""Gradients, loss and optimizer steps equal PyTorch's autograd on transformers' model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax.attention.mask import segment_positions
from bcmb_jax.batch import Batch
from bcmb_jax.masking import MaskingRule, mask_tokens
from bcmb_jax.model.parameters import merge
from bcmb_jax.optimizer import stable_adamw, weight_decay_mask
from bcmb_jax.training.checkpoint import TrainState
from bcmb_jax.training.step import train_step
from conversion.mapping import table
from tests.fixtures.torch_models import (
    NARROW,
    our_graph,
    our_parameters,
    random_rows,
    torch,
    torch_model,
)

pytestmark = pytest.mark.torch

# Of the norm of a tensor's gradient: two orders of fp32 sums over 8,192 tokens; 4e-6 measured. A
# wrong term leaves 1e-2.
GRADIENT_TOLERANCE = 2e-5
# Losses near 10 in fp32.
LOSS_TOLERANCE = 1e-5
# Of the norm of a tensor's change over three steps, against float64. m / (sqrt(v) + eps) magnifies
# the rounding of gradients near eps (1e-6).
STEP_TOLERANCE = 1e-4


def relative(ours, theirs) -> dict[str, float]:
    """By tensor, the norm of the difference relative to the norm of theirs."""
    assert ours.keys() == theirs.keys()
    norm = np.linalg.norm
    return {
        name: float(norm(np.ravel(ours[name] - x)) / norm(np.ravel(x)))
        for name, x in theirs.items()
    }


def by_our_shapes(tensors, config=NARROW) -> dict[str, np.ndarray]:
    """Torch tensors by name, in the shapes of our parameters."""
    named = dict(tensors)
    return {row.name: named[row.name].numpy().reshape(row.shape) for row in table(config)}


@pytest.mark.parametrize("local_attention", [16, 128])
def test_gradients_over_8192_tokens(local_attention: int) -> None:
    config = dataclasses.replace(NARROW, local_attention=local_attention)
    tokens, segment_ids = random_rows([8192], length=8192)
    rng = np.random.default_rng(2)
    weights = (rng.normal(size=(1, 8192, config.vocab_size)) / 8192).astype(np.float32)

    model = torch_model(config)
    logits = model(torch.from_numpy(tokens.astype(np.int64))).logits
    (logits * torch.from_numpy(weights)).sum().backward()
    theirs = by_our_shapes((name, x.grad) for name, x in model.named_parameters())

    graph, positions = our_graph(config), segment_positions(jnp.asarray(segment_ids))

    def scalar(params):
        logits = merge(graph, params)(tokens, segment_ids, positions)
        return (logits * weights).sum()

    ours = jax.jit(jax.grad(scalar))(our_parameters(model, config))
    errors = relative(jax.device_get(ours), theirs)
    print("worst gradient", max(errors.items(), key=lambda item: item[1]))
    assert max(errors.values()) <= GRADIENT_TOLERANCE, errors


def test_training_steps_equal_torch() -> None:
    """Loss, gradients' scale and three StableAdamW steps, with packed rows in two microbatches."""
    rule = MaskingRule(0.3, 4, (0, 1, 2, 3, 4), np.arange(5, NARROW.vocab_size))
    tokens, whole = random_rows([60, 30], [100], [11, 80], [96], length=100, seed=3)
    rates, seed, decay, max_lr = (1e-3, 7e-4, 5e-4), 5, 1e-2, 1e-3

    optimizer = stable_adamw(weight_decay=decay, max_lr=max_lr, decay_mask=weight_decay_mask)
    model = torch_model().double()
    start = params = our_parameters(torch_model())
    state = TrainState(params, optimizer.init(params))
    step = jax.jit(
        functools.partial(train_step, graph=our_graph(), optimizer=optimizer, rule=rule, seed=seed)
    )
    key = jax.random.split(jax.random.key(seed))[0]  # as train_step derives it
    moments: dict = {}
    for number, (rate, length) in enumerate(zip(rates, (100, 100, 15), strict=True), 1):
        # Other masks in each step; few tokens in the last, for larger gradients, which are clipped.
        row_ids = np.arange(4, dtype=np.int32) + 4 * number
        segment_ids = np.where(np.arange(100)[None] < length, whole, 0)
        positions = np.asarray(segment_positions(jnp.asarray(segment_ids)))
        flat = Batch(tokens, segment_ids, positions, row_ids)
        batch = Batch(*(x.reshape(2, 2, *x.shape[1:]) for x in flat))
        masked = jax.tree.map(np.asarray, mask_tokens(flat, rule, key))
        state, metrics = step(state, batch, rate)
        loss = torch_loss(model, masked)
        loss.backward()
        assert abs(metrics.loss - loss.item()) <= LOSS_TOLERANCE
        torch_step(model, moments, number, rate, max_lr, decay)
    assert metrics.clipped_fraction > 0.5  # or clipping would go untested
    change = {name: np.asarray(x) - start[name] for name, x in state.params.items()}
    after = by_our_shapes((name, x.detach()) for name, x in model.named_parameters())
    theirs = {name: x - start[name] for name, x in after.items()}
    errors = relative(change, theirs)
    print("worst change", max(errors.items(), key=lambda item: item[1]))
    assert max(errors.values()) <= STEP_TOLERANCE, errors


def torch_loss(model, masked):
    """The mean over masked tokens of the cross-entropy, each document alone."""
    losses = []
    for row, segments in enumerate(masked.segment_ids):
        labels = np.full(segments.shape, -100)
        used = masked.loss_weights[row] > 0
        labels[masked.masked_positions[row][used]] = masked.targets[row][used]
        for segment in range(1, segments.max() + 1):
            of = segments == segment
            ids = torch.from_numpy(masked.inputs[row][of].astype(np.int64))[None]
            logits = model(ids).logits[0]
            losses.append(
                torch.nn.functional.cross_entropy(
                    logits, torch.from_numpy(labels[of]), reduction="sum"
                )
            )
    return sum(losses) / masked.loss_weights.sum()


@torch.no_grad()
def torch_step(model, moments, t, rate, max_lr, weight_decay, b1=0.9, b2=0.98, eps=1e-6) -> None:
    """StableAdamW as upstream writes it (RECIPE §3)."""
    b1, b2 = ((b**t - b) / (b**t - 1) for b in (b1, b2))
    for name, p in model.named_parameters():
        g = p.grad
        m, v = moments.get(name, (torch.zeros_like(p), torch.zeros_like(p)))
        m = m + (1 - b1) * (g - m)
        v = b2 * v + (1 - b2) * g**2
        moments[name] = m, v
        rms = torch.sqrt(torch.mean(g**2 / torch.clamp(v, min=eps**2)))
        eta = rate / max(1.0, rms.item())
        if p.ndim > 1:
            p *= 1 - eta / max_lr * weight_decay
        p -= eta * m / (v.sqrt() + eps)
        p.grad = None
