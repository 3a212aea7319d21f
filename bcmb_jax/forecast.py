# SPDX-License-Identifier: Apache-2.0
"""What a run would do: steps, tokens, packing, memory, disk and learning rates."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
from flax import nnx

from bcmb_jax.data.corpus import open_corpus
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import split
from bcmb_jax.precision import compute_dtype
from bcmb_jax.settings import check_keys, count_microbatches, multiplier
from bcmb_jax.sharding import batch_shards, make_mesh, parameter_shardings

CARDS = (40, 80, 141)  # GB: A100-40, A100-80 or H100, H200
FP32 = 4
STATE_COPIES = 4  # parameters, two moments, gradients


def forecast(config: Any) -> str:
    """The plan of `config` as text; reads lengths and index files, trains nothing.

    Raises:
      InputError: whatever training would refuse.
    """
    check_keys(config)
    mesh = make_mesh(**config.mesh)
    model = ModelConfig(**config.model)
    corpus = open_corpus(
        config.data, tokenizer=config.tokenizer, vocab_size=model.vocab_size, seed=config.seed
    )
    microbatches = count_microbatches(config, mesh)
    make = functools.partial(ModernBertForMaskedLM, model)
    _, shapes = split(lambda: make(rngs=nnx.Rngs(0)))
    parameters = sum(x.size for x in shapes.values())
    sizes = parameter_shardings(mesh, shapes)
    on_device = sum(math.prod(sizes[n].shard_shape(x.shape)) for n, x in shapes.items())
    epoch = corpus.plan.epoch(0)
    per_step = config.train_rows_per_step * epoch.tokens / epoch.rows
    steps = math.ceil(config.max_tokens / per_step)

    def lines() -> Iterator[str]:
        yield f"model        {parameters:,} parameters, products in {_dtype(config)}"
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
        state = STATE_COPIES * FP32 * on_device
        row = activation_bytes(model, config)
        rows = ", ".join(
            f"{max(0, int((gigabytes * 0.9e9 - state) // row))} on {gigabytes} GB"
            for gigabytes in CARDS
        )
        yield (
            f"memory       {state / 1e9:.2f} GB a device for parameters, moments and gradients; "
            f"about {row / 1e9:.2f} GB a row in a pass: rows_per_microbatch up to about {rows}"
        )
        saves = steps // config.save_every + 1 if config.save_every else 1
        size = 3 * FP32 * parameters / 1e9
        yield (
            f"checkpoints  {size:.2f} GB each, {min(saves, config.keep_checkpoints)} kept of "
            f"{saves:,}: {size * min(saves, config.keep_checkpoints):.2f} GB"
        )
        for tokens in milestones(config):
            rate = config.learning_rate * multiplier(config, tokens)
            yield f"rate         {rate:.3e} after {tokens:,} tokens"

    return "\n".join(lines())


def milestones(config: Any) -> list[int]:
    """Token counts at which the learning rate changes course, with two inside the decay."""
    end, keys = config.max_tokens, config.schedule
    points = {0, end}
    if keys.name != "one_minus_sqrt":
        points.add(keys.warmup_tokens)
    if keys.name != "constant_with_warmup":
        start = end - keys.decay_tokens
        points |= {start, start + keys.decay_tokens // 4, start + keys.decay_tokens // 2}
    return sorted(points)


def activation_bytes(model: ModelConfig, config: Any) -> int:
    """An estimate of what the backward pass keeps of one row, from the shapes of its tensors."""
    d, f, layers = model.hidden_size, model.intermediate_size, model.num_hidden_layers
    wide = compute_dtype(config.precision).itemsize
    # A layer keeps two fp32 residual streams and their norms, the operands of its four products
    # (d, d, d, f), q, k, v, and the fp32 halves of the GeGLU.
    layer = FP32 * 4 * d + wide * (3 * d + f) + wide * 3 * d + FP32 * 2 * f
    kept = FP32 * d * layers + layer if config.remat else layer * layers
    return config.data.row_length * kept


def _dtype(config: Any) -> str:
    return str(compute_dtype(config.precision))
