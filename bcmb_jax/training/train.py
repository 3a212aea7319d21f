# SPDX-License-Identifier: Apache-2.0
"""Training from top to bottom: mesh, data, model, optimizer, start, loop; then the step."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from bcmb_jax.batch import Batch
from bcmb_jax.config import RunConfig
from bcmb_jax.data.corpus import Corpus
from bcmb_jax.data.loader import Position, StepBatch, Steps
from bcmb_jax.device import products_in
from bcmb_jax.errors import DONE, PREEMPTED
from bcmb_jax.files import storage_errors
from bcmb_jax.locks import locked
from bcmb_jax.losses import LossSums, masked_lm_sums
from bcmb_jax.masking import MaskedBatch, MaskingRule, mask_tokens
from bcmb_jax.model.cost import forward_flops_per_token
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import Parameters, merge
from bcmb_jax.optimizer import stable_adamw, weight_decay_mask
from bcmb_jax.peers import ALONE, Peers
from bcmb_jax.sharding import rows_held_here, to_mesh, whole_over_fsdp
from bcmb_jax.signals import stop_signals
from bcmb_jax.terminal import Display
from bcmb_jax.training.checkpoint import Checkpoints, RunProgress, TrainState
from bcmb_jax.training.faults import choose, good_health, judge
from bcmb_jax.training.initial import Initial
from bcmb_jax.training.metrics import Reporter, StepMetrics
from bcmb_jax.training.profiling import Profiled
from bcmb_jax.training.start import (
    Prepared,
    StopTogether,
    begin,
    fingerprints,
    prepare,
    run_metadata,
    with_precision,
    write_run_files,
)
from bcmb_jax.training.validation import Evaluator, Unigram, evaluation_rows
from bcmb_jax.training.watchdog import Watchdog


def train(
    config: RunConfig,
    workdir: Path,
    load_initial: Callable[[], Initial] | None = None,
    *,
    profile: bool = False,
    peers: Peers = ALONE,
) -> int:
    """Train in `workdir`, from its newest checkpoint if it has one.

    Args:
      load_initial: loads the weights that `config.init_from` names; called only where `workdir`
        has no checkpoint yet.
      profile: trace one step into `workdir/profile`, and print where its time went.
      peers: the processes of the run.

    Returns:
      `DONE` or `PREEMPTED`.

    Raises:
      InputError: something in the configuration or the data is wrong.
      NumericsError: several updates in a row were refused.
    """
    # --- mesh, data, model ---------------------------------------------------------------------
    config = with_precision(config, workdir)
    prepared = prepare(config)
    peers.agree("data", fingerprints(prepared.corpus))
    mesh, corpus, graph = prepared.mesh, prepared.corpus, prepared.graph
    step_fn = make_step(config, corpus, graph)
    if profile:
        step_fn = Profiled(step_fn, workdir / "profile")

    with contextlib.ExitStack() as stack:
        stack.enter_context(storage_errors(workdir))
        stop = stack.enter_context(stop_signals())
        workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            stack.enter_context(locked(workdir / ".lock", workdir))
            corpus.verify(workdir / "verified.json", Display().say)
        # --- start: resume this workdir, else the given weights, else from scratch --------------
        metadata = run_metadata(config, corpus)
        checkpoints = stack.enter_context(
            contextlib.closing(Checkpoints(workdir / "checkpoints", config.keep_checkpoints))
        )
        optimizer = make_optimizer(config)
        state, progress = begin(config, prepared, optimizer, checkpoints, metadata, load_initial)
        peers.agree("checkpoint", {"step": progress.step, "tokens": progress.tokens_seen})
        write_run_files(config, corpus, workdir)

        # --- validation, metrics, data from where the run stands --------------------------------
        rows = {
            shards.name: evaluation_rows(
                shards,
                corpus.tokenizer,
                row_length=config.data.row_length,
                max_document_length=config.data.max_document_length,
                max_tokens=config.eval_tokens,
            )
            for shards in corpus.validation
        }
        evaluate = Evaluator(graph, rows, mesh)
        steps = steps_from(config, prepared, progress)
        batches = stack.enter_context(contextlib.closing(steps.read_ahead()))
        skipped = int(state.health.skipped) if state.health else 0
        reporter = stack.enter_context(
            make_reporter(config, corpus, progress, skipped, rows, workdir)
        )
        stop_now = StopTogether(stop, mesh)
        stack.enter_context(jax.set_mesh(mesh))
        stack.enter_context(products_in(config.precision))

        # --- loop -------------------------------------------------------------------------------
        done = progress.tokens_seen >= config.max_tokens
        stopping = any(peers.gather("first step", stop.requested))
        stop.when = "after this step"
        watchdog = stack.enter_context(Watchdog(config.hang_seconds, peers.leave))
        while not done and not stopping:
            watchdog.step(progress.step + 1)
            started = time.perf_counter()
            item = next(batches)
            seconds_waiting = time.perf_counter() - started
            # The rate comes from the tokens before this step, on the host: 160e9 is no int32.
            rate = config.learning_rate_after(progress.tokens_seen)
            batch = to_mesh(item.batch, mesh, prepared.microbatches, config.train_rows_per_step)
            state, metrics = step_fn(state, batch, rate)
            progress = next_progress(progress, item)
            done = progress.tokens_seen >= config.max_tokens
            # While the device is busy with this step, the one before it is written.
            reporter.step(progress, metrics, rate, item, seconds_waiting)
            if done or (config.eval_every and progress.step % config.eval_every == 0):
                watchdog.other(f"the evaluation after step {progress.step}")
                reporter.evaluation(progress, evaluate(state.params))
            stopping = stop_now()
            if done or stopping or (config.save_every and progress.step % config.save_every == 0):
                # First the metrics: a checkpoint never lacks a line.
                reporter.flush()
                watchdog.other(f"the save after step {progress.step}")
                checkpoints.save(state, progress, metadata)
    if stopping and jax.process_index() == 0:
        Display().say(f"stopped at step {progress.step}; the same command resumes")
    return DONE if done else PREEMPTED


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
    config: RunConfig, corpus: Corpus, graph: nnx.GraphDef[ModernBertForMaskedLM]
) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """Return `train_step` compiled for the run; it takes state, batch and learning rate."""
    step = functools.partial(
        train_step,
        graph=graph,
        optimizer=make_optimizer(config),
        rule=make_rule(config, corpus),
        seed=config.seed,
        spike_deviations=config.spike_deviations,
    )
    return jax.jit(step, donate_argnums=0)  # the new state takes the memory of the old one


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
    microbatch = functools.partial(gradients, state.params, graph=graph, rule=rule, seed=seed)
    if len(batch.tokens) == 1:
        grads, sums = microbatch(jax.tree.map(lambda x: x[0], batch))
    else:
        zeros = jax.tree.map(jnp.zeros_like, state.params), LossSums(*(jnp.zeros(()),) * 3)
        (grads, sums), _ = jax.lax.scan(
            lambda total, batch: (jax.tree.map(jnp.add, total, microbatch(batch)), None),
            zeros,
            batch,
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


def gradients(
    params: Parameters,
    batch: Batch,
    *,
    graph: nnx.GraphDef[ModernBertForMaskedLM],
    rule: MaskingRule,
    seed: int,
) -> tuple[Parameters, LossSums]:
    """Return the gradients of the loss summed over one microbatch's rows, and the sums."""
    keys = row_keys(seed, batch)

    def summed_loss(params: Parameters) -> tuple[jax.Array, LossSums]:
        model = merge(graph, whole_over_fsdp(params))
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


def steps_from(config: RunConfig, prepared: Prepared, progress: RunProgress) -> Steps:
    """Return the run's steps from where it stands: this process's rows of each."""
    corpus = prepared.corpus
    return Steps(
        corpus.train,
        corpus.plan,
        Position(*progress.position),
        special=corpus.tokenizer.special,
        rows_per_step=config.train_rows_per_step,
        skip_rows=config.data.skipped_rows(),
        share=rows_held_here(prepared.mesh, prepared.microbatches, config.train_rows_per_step),
    )


def next_progress(progress: RunProgress, item: StepBatch) -> RunProgress:
    """Return the progress after a step on `item`."""
    before = progress.tokens_by_source
    return RunProgress(
        step=progress.step + 1,
        tokens_seen=progress.tokens_seen + item.tokens,
        tokens_by_source={name: before[name] + n for name, n in item.tokens_by_source.items()},
        **item.next_position._asdict(),
    )


def make_reporter(
    config: RunConfig,
    corpus: Corpus,
    progress: RunProgress,
    skipped_updates: int,
    rows: dict[str, MaskedBatch],
    workdir: Path,
) -> Reporter:
    """Make the run's reporter, with the unigram baseline of each validation source."""
    unigram = Unigram(corpus.train, config.model.vocab_size)
    lengths = np.concatenate([shards.lengths for shards in corpus.train])
    lengths = np.minimum(lengths, config.data.max_document_length)
    return Reporter(
        workdir,
        progress,
        max_tokens=config.max_tokens,
        rows_per_step=config.train_rows_per_step,
        skipped_updates=skipped_updates,
        log_every=config.log_every,
        unigram={name: unigram.score(batch).loss for name, batch in rows.items()},
        # The backward pass costs twice the forward pass.
        flops_per_token=3 * forward_flops_per_token(config.model, lengths, config.mask_rate),
    )
