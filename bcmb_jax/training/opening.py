# SPDX-License-Identifier: Apache-2.0
"""The first lines of a run: on what, with what and from where it trains."""

import math
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp

from bcmb_jax.attention import choose
from bcmb_jax.config import RunConfig
from bcmb_jax.device import compute_dtype, describe_device, target
from bcmb_jax.training.checkpoint import RunProgress
from bcmb_jax.training.start import Prepared

GPUS = Path("/proc/driver/nvidia/gpus")
"""A folder of NVIDIA's driver with one entry for each GPU."""


def opening(
    config: RunConfig, prepared: Prepared, progress: RunProgress, gpus: Path = GPUS
) -> Iterator[str]:
    """Return the lines: device, model, sources, steps, and where the run stands.

    Args:
      gpus: where NVIDIA's driver lists the GPUs of this machine.
    """
    device, where = describe_device(), target()
    yield f"device     {device['count']} x {device['kind']}"
    if where.platform == "cpu" and gpus.is_dir() and any(gpus.iterdir()):
        yield "warning    this machine has a GPU, which is not used: bcmb doctor says why"
    dtype = jnp.dtype(compute_dtype(config.precision))
    attention = config.attention or choose(where, dtype, config.model.head_size)
    parameters = sum(x.size for x in prepared.shapes.values())
    yield (
        f"model      {parameters:,} parameters, precision {config.precision}, {attention} attention"
    )
    for shards in prepared.corpus.train:
        tokens = shards.index["tokens"]
        yield f"source     {shards.name}: {len(shards):,} documents, {tokens:,} tokens"
    per_step = config.train_rows_per_step * config.data.row_length
    left = math.ceil(max(config.max_tokens - progress.tokens_seen, 0) / per_step)
    yield f"steps      about {left:,} to go, of {config.train_rows_per_step:,} rows"
    if progress.step:
        yield f"start      resumed at step {progress.step:,}, {progress.tokens_seen:,} tokens"
    else:
        yield f"start      from {config.init_from or 'scratch'}"
