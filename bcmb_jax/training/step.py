# SPDX-License-Identifier: Apache-2.0
"""One training step: masks, forward and backward pass, the loss of the whole batch, the update."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from bcmb_jax.batch import Batch
from bcmb_jax.config import RunConfig
from bcmb_jax.data.corpus import Corpus
from bcmb_jax.device import compiler_options
from bcmb_jax.losses import LossSums, masked_lm_sums
from bcmb_jax.masking import MaskingRule, mask_tokens
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import Parameters, merge
from bcmb_jax.optimizer import stable_adamw, weight_decay_mask
from bcmb_jax.sharding import sum_over_rows
from bcmb_jax.training.checkpoint import TrainState
from bcmb_jax.training.faults import choose, good_health, judge
from bcmb_jax.training.metrics import StepMetrics


def make_optimizer(config: RunConfig) -> optax.GradientTransformationExtraArgs:
    """Return the run's optimizer."""
    return stable_adamw(
        weight_decay=config.weight_decay,
        max_lr=config.learning_rate,
        decay_mask=weight_decay_mask,
    )


def make_rule(config: RunConfig, corpus: Corpus) -> MaskingRule:
    """Return the run's way to mask tokens."""
    special = corpus.tokenizer.special
    return MaskingRule(
        rate=config.mask_rate,
        mask_token=special.mask,
        special_tokens=dataclasses.astuple(special),
        random_tokens=corpus.tokenizer.ordinary_ids,
    )


def make_step(
    config: RunConfig,
    corpus: Corpus,
    graph: nnx.GraphDef[ModernBertForMaskedLM],
    mesh: Mesh,
) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """Return `train_step` compiled for the run; it takes state, batch and learning rate.

    Args:
      mesh: the one that it is called on.
    """
    step = functools.partial(
        train_step,
        graph=graph,
        optimizer=make_optimizer(config),
        rule=make_rule(config, corpus),
        seed=config.seed,
        spike_deviations=config.spike_deviations,
    )
    # The new state takes the memory of the old one.
    return jax.jit(step, donate_argnums=0, compiler_options=compiler_options(mesh))


def train_step(
    state: TrainState,
    batch: Batch,
    learning_rate: float,
    *,
    graph: nnx.GraphDef[ModernBertForMaskedLM],
    optimizer: optax.GradientTransformationExtraArgs,
    rule: MaskingRule,
    seed: int,
    spike_deviations: float = 0.0,
) -> tuple[TrainState, StepMetrics]:
    """Make one optimizer step on the loss of the whole global batch, or refuse its update.

    Args:
      batch: arrays of `[microbatches, rows, …]`; each microbatch is one forward and backward pass.
      spike_deviations: see `bcmb_jax.training.faults.judge`.

    The loss is the sum of the cross-entropies over all masked tokens, divided by their number.
    Only sums are added up over microbatches and devices, so that the result is independent of both.
    """
    grads, sums = sum_over_rows(
        functools.partial(summed_gradients, graph=graph, rule=rule, seed=seed), state.params, batch
    )
    with jax.named_scope("optimizer"):
        predicted = jnp.maximum(sums.weight, 1.0)  # a step may hold nothing that can be masked
        grads = jax.tree.map(lambda g: g / predicted, grads)
        loss, grad_norm = sums.loss / predicted, optax.tree.norm(grads)
        # Before the update, which can then still be made in the memory of the old state.
        accepted, health = judge(
            state.health or good_health(),
            loss,
            grad_norm,
            sums.weight,
            spike_deviations,
        )
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, learning_rate=learning_rate
        )
        params, opt_state = choose(
            accepted,
            (optax.apply_updates(state.params, updates), opt_state),
            (state.params, state.opt_state),
        )
        metrics = StepMetrics(
            loss=loss,
            masked_accuracy=sums.correct / predicted,
            grad_norm=grad_norm,
            clipped_fraction=opt_state.clipped_fraction,
            skipped_updates=health.skipped,
            skipped_in_a_row=health.in_a_row,
        )
    return TrainState(params, opt_state, health), metrics


def summed_gradients(
    params: Parameters,
    batch: Batch,
    *,
    graph: nnx.GraphDef[ModernBertForMaskedLM],
    rule: MaskingRule,
    seed: int,
) -> tuple[Parameters, LossSums]:
    """Return the gradients of the loss summed over all rows of all microbatches, and the sums."""
    microbatch = functools.partial(gradients, params, graph=graph, rule=rule, seed=seed)
    if len(batch.tokens) == 1:
        return microbatch(jax.tree.map(lambda x: x[0], batch))
    zeros = jax.tree.map(jnp.zeros_like, params), LossSums(*(jnp.zeros(()),) * 3)
    total, _ = jax.lax.scan(
        lambda total, batch: (jax.tree.map(jnp.add, total, microbatch(batch)), None), zeros, batch
    )
    return total


def gradients(
    params: Parameters,
    batch: Batch,
    *,
    graph: nnx.GraphDef[ModernBertForMaskedLM],
    rule: MaskingRule,
    seed: int,
) -> tuple[Parameters, LossSums]:
    """Return the gradients of the loss summed over one microbatch's rows, and the sums.

    Args:
      params: whole over `fsdp`.
    """
    keys = row_keys(seed, batch)

    def summed_loss(params: Parameters) -> tuple[jax.Array, LossSums]:
        model = merge(graph, params)
        masked = mask_tokens(batch, rule, keys.mask)
        hidden = model.hidden_at_positions(
            masked.inputs,
            masked.segment_ids,
            masked.positions,
            masked.masked_positions,
            keys.dropout,
        )
        sums = masked_lm_sums(
            hidden,
            model.decoder_weight,
            model.decoder.bias[...],
            masked.targets,
            masked.loss_weights,
            model.dtype,
        )
        return sums.loss, sums

    (_, sums), grads = jax.value_and_grad(summed_loss, has_aux=True)(params)
    return grads, sums


class RowKeys(NamedTuple):
    """Keys of a batch's random numbers, which depend on the seed and the rows' numbers alone."""

    mask: jax.Array
    """One key, to which `mask_tokens` adds each row's number."""
    dropout: jax.Array
    """`[rows]` keys."""


def row_keys(seed: int, batch: Batch) -> RowKeys:
    """Return the keys of masks and of dropout for the rows of one microbatch."""
    mask, dropout = jax.random.split(jax.random.key(seed))
    return RowKeys(mask, jax.vmap(jax.random.fold_in, in_axes=(None, 0))(dropout, batch.row_ids))
