# SPDX-License-Identifier: Apache-2.0
"""Training from top to bottom: mesh, data, model, start, loop. One step is in `step`."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from bcmb_jax.agreements import describe
from bcmb_jax.config import RunConfig
from bcmb_jax.data.corpus import Corpus
from bcmb_jax.data.loader import Position, StepBatch, Steps
from bcmb_jax.device import products_in
from bcmb_jax.errors import DONE, PREEMPTED
from bcmb_jax.files import storage_errors
from bcmb_jax.locks import locked
from bcmb_jax.masking import MaskedBatch
from bcmb_jax.model.cost import forward_flops_per_token
from bcmb_jax.peers import ALONE, Peers
from bcmb_jax.private import make_directory
from bcmb_jax.sharding import rows_held_here, to_mesh
from bcmb_jax.signals import stop_signals
from bcmb_jax.terminal import Display
from bcmb_jax.training.checkpoint import RunProgress
from bcmb_jax.training.clock import RunClock
from bcmb_jax.training.initial import Initial
from bcmb_jax.training.kept import Checkpoints
from bcmb_jax.training.metrics import Reporter
from bcmb_jax.training.opening import opening
from bcmb_jax.training.profiling import Profiled
from bcmb_jax.training.start import (
    Prepared,
    StopTogether,
    begin,
    check_room,
    fingerprints,
    prepare,
    run_metadata,
    with_precision,
    write_run_files,
)
from bcmb_jax.training.step import make_optimizer, make_step
from bcmb_jax.training.validation import Evaluator, Unigram, evaluation_rows
from bcmb_jax.training.watchdog import Watchdog


def train(
    config: RunConfig,
    workdir: Path,
    load_initial: Callable[[], Initial] | None = None,
    *,
    profile: bool = False,
    peers: Peers = ALONE,
    began: float | None = None,
    license: str = "",
) -> int:
    """Train in `workdir`, from its newest checkpoint if it has one.

    Args:
      load_initial: loads the weights that `config.init_from` names; called only where `workdir`
        has no checkpoint yet.
      profile: trace one step into `workdir/profile`, and print where its time went.
      peers: the processes of the run.
      began: seconds since 1970 at which the process began, for the ledger of time; None is now.
      license: as in `begin`.

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
    step_fn = make_step(config, corpus, graph, mesh)
    if profile:
        step_fn = Profiled(step_fn, workdir / "profile")

    with contextlib.ExitStack() as stack:
        stack.enter_context(storage_errors(workdir))
        stop = stack.enter_context(stop_signals())
        make_directory(workdir)
        begun = workdir.stat()
        check_room(prepared.shapes, workdir, begun)
        if jax.process_index() == 0:
            stack.enter_context(locked(workdir / ".lock", workdir))
        clock = stack.enter_context(RunClock(workdir / "goodput.jsonl", began))
        if jax.process_index() == 0:
            corpus.verify(workdir / "verified.json", Display().say)
        # --- start: resume this workdir, else the given weights, else from scratch --------------
        metadata = run_metadata(config, corpus)
        checkpoints = stack.enter_context(
            contextlib.closing(Checkpoints(workdir / "checkpoints", config.keep_checkpoints, peers))
        )
        optimizer = make_optimizer(config)
        state, progress = begin(
            config, prepared, optimizer, checkpoints, metadata, load_initial, license=license
        )
        if jax.process_index() == 0:
            Display().say(describe(progress.agreements))
            for line in opening(config, prepared, progress):
                Display().say(line)
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

        watchdog = stack.enter_context(Watchdog(config.hang_seconds, peers))

        def begin_phase(phase: str, step: int) -> float:
            watchdog.switch(phase, step)
            return clock.switch(phase, step)

        def due(every: int) -> bool:
            return bool(every and progress.step % every == 0)

        def evaluated() -> bool:
            """Evaluate this step, if it is due; return False if a signal came first."""
            if not (done or due(config.eval_every)):
                return True
            reporter.flush()  # waits for the step, whose time is not the evaluation's
            begin_phase("evaluation", progress.step)
            stop.when = "in this evaluation, which the next start makes again"
            scores = evaluate.until(stop_now, state.params)
            stop.when = "after this step"
            if scores is None:
                return False
            reporter.evaluation(progress, scores)
            return True

        # --- loop -------------------------------------------------------------------------------
        done = progress.tokens_seen >= config.max_tokens
        stopping = any(peers.gather("first step", stop.requested))
        interrupted = progress.step > 0 and any(
            peers.gather("evaluation", reporter.lacks_evaluation())
        )
        stop.when = "after this step"
        if interrupted and not stopping:
            stopping = interrupted = not evaluated()
        if jax.process_index() == 0 and not done and not stopping:
            Display().say("compiling…")  # of the first step, which is silent for long
        while not done and not stopping:
            begin_phase("data", progress.step + 1)
            item = next(batches)
            seconds_waiting = begin_phase("step", progress.step + 1)
            # The rate comes from the tokens before this step, on the host: 160e9 is no int32.
            rate = config.learning_rate_after(progress.tokens_seen)
            batch = to_mesh(item.batch, mesh, prepared.microbatches, config.train_rows_per_step)
            state, metrics = step_fn(state, batch, rate)
            clock.dispatched(metrics.loss)
            progress = next_progress(progress, item)
            done = progress.tokens_seen >= config.max_tokens
            # While the device is busy with this step, the one before it is written.
            reporter.step(progress, metrics, rate, item, seconds_waiting)
            interrupted = not evaluated()
            stopping = interrupted or stop_now()
            if done or stopping or due(config.save_every):
                # First the metrics: a checkpoint never lacks a line.
                reporter.flush()
                begin_phase("save", progress.step)
                check_room(prepared.shapes, workdir, begun)
                checkpoints.save(state, progress, metadata)
        stop.when = "once the last checkpoint is written"
        clock.switch("end", progress.step)
    if done and not interrupted:
        return DONE
    if jax.process_index() == 0:
        reached = f"saved at step {progress.step}" if progress.step else "nothing to save yet"
        Display().say(f"{reached}; the same command resumes")
    return PREEMPTED


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
    return dataclasses.replace(
        progress,
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
