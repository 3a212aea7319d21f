# SPDX-License-Identifier: Apache-2.0
"""The forecast of a run: steps, tokens, packing, memory, disk and learning rates."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
from jax.sharding import NamedSharding

from bcmb_jax.config import RunConfig
from bcmb_jax.device import compute_dtype, resolve_precision
from bcmb_jax.model.cost import activation_bytes
from bcmb_jax.model.parameters import Parameters
from bcmb_jax.ops.cross_entropy import LOGITS_ON_ACCELERATORS
from bcmb_jax.sharding import batch_shards, gathered_shardings, parameter_shardings
from bcmb_jax.training.checkpoint import newest_meta
from bcmb_jax.training.initial import Initial, check_initial
from bcmb_jax.training.start import (
    check_same_run,
    prepare,
    run_metadata,
)

CARDS = (40, 80, 141)  # GB: A100-40, A100-80 or H100, H200
FP32 = 4
STATE_COPIES = 3  # parameters, two moments
USABLE = 0.9  # of a card's memory


def forecast(
    config: RunConfig, workdir: Path, load_initial: Callable[[], Initial] | None = None
) -> str:
    """Describe what a run would do; reads its data, its weights and its checkpoint, trains nothing.

    Args:
      workdir, load_initial: as in `train`.

    Raises:
      InputError: whatever training would refuse.
    """
    mesh, corpus, microbatches, _, _, shapes = prepare(config)
    if (before := newest_meta(workdir)) is not None:
        check_same_run(before, run_metadata(config, corpus), workdir)
    elif load_initial is not None:
        check_initial(load_initial(), config, shapes, corpus)
    parameters = sum(x.size for x in shapes.values())
    precision = resolve_precision(config.precision)
    dtype = compute_dtype(precision)
    epoch = corpus.plan.epoch(0)
    per_step = config.train_rows_per_step * epoch.tokens / epoch.rows
    epochs = config.max_tokens / epoch.tokens
    steps = math.ceil(config.max_tokens / per_step)

    def lines() -> Iterator[str]:
        yield f"model        {parameters:,} parameters, products in {precision}"
        yield (
            f"length       {config.max_tokens:,} tokens, about {steps:,} steps of "
            f"{config.train_rows_per_step:,} rows of {config.data.row_length:,} "
            f"({per_step:,.0f} tokens a step), {epochs:.2f} epochs"
        )
        yield (
            f"devices      {jax.device_count()} x {jax.devices()[0].device_kind}: "
            f"{dict(mesh.shape)}, {microbatches} microbatches of "
            f"{config.train_rows_per_step // batch_shards(mesh) // microbatches} rows a device"
        )
        for shards, tokens in zip(corpus.train, epoch.tokens_by_source, strict=True):
            yield (
                f"source       {shards.name}: {len(shards):,} documents, {int(tokens):,} tokens an "
                f"epoch, about {tokens * epochs:,.0f} in the run ({tokens / epoch.tokens:.1%})"
            )
        yield (
            f"packing      {epoch.efficiency:.2%} of {epoch.rows:,} rows filled; whole-epoch "
            f"best-fit decreasing {epoch.best_fit_decreasing_efficiency:.2%}"
        )
        # A pass gathers parameters over fsdp, and their gradients are whole until the optimizer.
        on_device = _size_on_device(parameter_shardings(mesh, shapes), shapes)
        in_a_pass = _size_on_device(gathered_shardings(mesh, shapes), shapes)
        copies = 1 + (mesh.shape["fsdp"] > 1) + (microbatches > 1)
        state = state_bytes(on_device, copies * in_a_pass)
        row, recomputed = (
            activation_bytes(config.model, config.data.row_length, dtype, remat)
            for remat in (config.remat, True)
        )
        yield (
            f"memory       {state / 1e9:.2f} GB a device for parameters, moments, gradients and "
            f"logits; {row / 1e9:.2f} GB a row in a pass: {rows_that_fit(state, row)}"
        )
        if not config.remat:
            yield (
                f"             with --config.remat {recomputed / 1e9:.2f} GB a row: "
                f"{rows_that_fit(state, recomputed)}"
            )
        saves = steps // config.save_every + 1 if config.save_every else 1
        size, kept = 3 * FP32 * parameters / 1e9, min(saves, config.keep_checkpoints)
        yield f"checkpoints  {size:.2f} GB each, {kept} kept of {saves:,}: {size * kept:.2f} GB"
        for tokens in config.schedule.milestones(config.max_tokens):
            rate = config.learning_rate_after(tokens)
            yield f"rate         {rate:.3e} after {tokens:,} tokens"

    return "\n".join(lines())


def _size_on_device(shardings: Mapping[str, NamedSharding], shapes: Parameters) -> int:
    return sum(math.prod(shardings[name].shard_shape(x.shape)) for name, x in shapes.items())


def state_bytes(parameters: int, in_a_pass: int) -> int:
    """Return the bytes on one device that do not depend on its number of rows.

    Args:
      parameters: the device's share of the parameters; two moments are added.
      in_a_pass: elements of gathered parameters and gradients during a pass. A chunk of logits
        and its gradient, rounded to bf16, are added.
    """
    logits = (FP32 + FP32 // 2) * LOGITS_ON_ACCELERATORS
    return FP32 * (STATE_COPIES * parameters + in_a_pass) + logits


def rows_that_fit(state: float, row: float) -> str:
    """Return the largest `rows_per_microbatch` for each size of card, as text."""
    fit = {card: max(0, int((USABLE * card * 1e9 - state) // row)) for card in CARDS}
    rows = ", ".join(f"{count} on {card} GB" for card, count in fit.items())
    return f"rows_per_microbatch up to {rows}"
