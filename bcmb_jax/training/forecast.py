# SPDX-License-Identifier: Apache-2.0
"""The forecast of a run: steps, tokens, packing, memory, disk and learning rates."""

import math
from collections.abc import Iterator

import jax
from flax import nnx

from bcmb_jax.config import RunConfig
from bcmb_jax.data.corpus import open_corpus
from bcmb_jax.device import compute_dtype
from bcmb_jax.model.cost import activation_bytes
from bcmb_jax.model.parameters import split
from bcmb_jax.ops.cross_entropy import LOGITS_ON_ACCELERATORS
from bcmb_jax.sharding import batch_shards, gathered_shardings, make_mesh, parameter_shardings
from bcmb_jax.training.start import model_maker

CARDS = (40, 80, 141)  # GB: A100-40, A100-80 or H100, H200
FP32 = 4
STATE_COPIES = 3  # parameters, two moments
USABLE = 0.9  # of a card's memory


def forecast(config: RunConfig) -> str:
    """Describe what a run would do; reads lengths and index files, trains nothing.

    Raises:
      InputError: whatever training would refuse.
    """
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    model = config.model
    corpus = open_corpus(
        config.data, tokenizer=config.tokenizer, vocab_size=model.vocab_size, seed=config.seed
    )
    microbatches = config.microbatches(batch_shards(mesh))
    make_model = model_maker(config)
    _, shapes = split(lambda: make_model(rngs=nnx.Rngs(0)))
    parameters = sum(x.size for x in shapes.values())
    sizes = parameter_shardings(mesh, shapes)
    gathered = gathered_shardings(mesh, shapes)
    on_device = sum(math.prod(sizes[n].shard_shape(x.shape)) for n, x in shapes.items())
    dtype = compute_dtype(config.precision)
    epoch = corpus.plan.epoch(0)
    per_step = config.train_rows_per_step * epoch.tokens / epoch.rows
    steps = math.ceil(config.max_tokens / per_step)

    def lines() -> Iterator[str]:
        yield f"model        {parameters:,} parameters, products in {dtype}"
        yield (
            f"length       {config.max_tokens:,} tokens, about {steps:,} steps of "
            f"{config.train_rows_per_step:,} rows of {config.data.row_length:,} "
            f"({per_step:,.0f} tokens a step), {config.max_tokens / epoch.tokens:.2f} epochs"
        )
        yield (
            f"devices      {jax.device_count()} x {jax.devices()[0].device_kind}: "
            f"{dict(mesh.shape)}, {microbatches} microbatches of "
            f"{config.train_rows_per_step // batch_shards(mesh) // microbatches} rows a device"
        )
        share = config.max_tokens / epoch.tokens
        for shards, tokens in zip(corpus.train, epoch.tokens_by_source, strict=True):
            yield (
                f"source       {shards.name}: {len(shards):,} documents, {int(tokens):,} tokens an "
                f"epoch, about {tokens * share:,.0f} in the run ({tokens / epoch.tokens:.1%})"
            )
        yield (
            f"packing      {epoch.efficiency:.2%} of {epoch.rows:,} rows filled; whole-epoch "
            f"best-fit decreasing {epoch.best_fit_decreasing_efficiency:.2%}"
        )
        # A pass gathers parameters over fsdp, and their gradients are whole until the optimizer.
        in_a_pass = sum(math.prod(gathered[n].shard_shape(x.shape)) for n, x in shapes.items())
        copies = 1 + (mesh.shape["fsdp"] > 1) + (microbatches > 1)
        state = state_bytes(on_device, copies * in_a_pass)
        row = activation_bytes(model, config.data.row_length, dtype, config.remat)
        recomputed = activation_bytes(model, config.data.row_length, dtype, True)
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
        size = 3 * FP32 * parameters / 1e9
        yield (
            f"checkpoints  {size:.2f} GB each, {min(saves, config.keep_checkpoints)} kept of "
            f"{saves:,}: {size * min(saves, config.keep_checkpoints):.2f} GB"
        )
        for tokens in config.schedule.milestones(config.max_tokens):
            rate = config.learning_rate_after(tokens)
            yield f"rate         {rate:.3e} after {tokens:,} tokens"

    return "\n".join(lines())


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
