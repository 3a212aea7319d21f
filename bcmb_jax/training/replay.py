# SPDX-License-Identifier: Apache-2.0
"""One step of a run again, to find where its numbers cease to be finite.

Nothing of the run is changed: its steps are made again from the newest checkpoint before the one
that is asked for, and neither saved nor reported.
"""

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from bcmb_jax.batch import Batch
from bcmb_jax.config import RunConfig
from bcmb_jax.device import products_in
from bcmb_jax.errors import InputError
from bcmb_jax.masking import MaskingRule, mask_tokens
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import merge
from bcmb_jax.sharding import to_mesh, whole_over_fsdp
from bcmb_jax.training.initial import Initial
from bcmb_jax.training.kept import Checkpoints
from bcmb_jax.training.start import begin, prepare, run_metadata, with_precision
from bcmb_jax.training.step import gradients, make_optimizer, make_rule, make_step, row_keys
from bcmb_jax.training.train import next_progress, steps_from

Finite = OrderedDict[str, jax.Array]  # JAX sorts the keys of other dictionaries
"""By the name of a tensor: whether all its numbers are finite, for each row or for the tensor."""


def replay(
    config: RunConfig,
    workdir: Path,
    step: int,
    load_initial: Callable[[], Initial] | None = None,
) -> str:
    """Make one step again, and return in words which tensor is the first that is not finite.

    Args:
      step: the number of the step, as metrics and messages count, from 1.
      load_initial: as for `train`.

    Raises:
      InputError: the run has no such step.
    """
    config = with_precision(config, workdir)
    prepared = prepare(config)
    mesh, corpus, graph = prepared.mesh, prepared.corpus, prepared.graph
    with contextlib.closing(Checkpoints(workdir / "checkpoints", config.keep_checkpoints)) as saved:
        state, progress = begin(
            config,
            prepared,
            make_optimizer(config),
            saved,
            run_metadata(config, corpus),
            load_initial,
            before=step,
        )
    step_fn, rule = make_step(config, corpus, graph, mesh), make_rule(config, corpus)
    steps = steps_from(config, prepared, progress)
    look = jax.jit(functools.partial(_look, graph=graph, rule=rule, seed=config.seed))
    with (
        contextlib.closing(steps.read_ahead()) as batches,
        jax.set_mesh(mesh),
        products_in(config.precision),
    ):
        for item in batches:
            if progress.tokens_seen >= config.max_tokens:
                raise InputError(f"the run ends with step {progress.step}: there is no step {step}")
            batch = to_mesh(item.batch, mesh, prepared.microbatches, config.train_rows_per_step)
            rate = config.learning_rate_after(progress.tokens_seen)
            if progress.step + 1 == step:
                break
            state, _ = step_fn(state, batch, rate)
            progress = next_progress(progress, item)
        for number in range(prepared.microbatches):
            part = jax.tree.map(lambda x, number=number: x[number], batch)
            forward, backward = jax.device_get(look(state.params, part))
            place = f"step {step}, microbatch {number + 1} of {prepared.microbatches}"
            if told := _first(forward, backward, np.asarray(part.row_ids)):
                return f"{place}: {told}"
        _, metrics = step_fn(state, batch, rate)
    if not np.isfinite(float(metrics.grad_norm)):
        return f"step {step}: each microbatch is finite; their summed gradient is not"
    return (
        f"step {step}: activations, loss and gradients are finite (loss {float(metrics.loss):.4g}, "
        f"gradient norm {float(metrics.grad_norm):.4g})"
    )


def _look(
    params: dict[str, jax.Array],
    batch: Batch,
    *,
    graph: nnx.GraphDef[ModernBertForMaskedLM],
    rule: MaskingRule,
    seed: int,
) -> tuple[Finite, Finite]:
    """Return what is finite in a microbatch, in the order in which it is computed.

    The first dictionary has activations by row, the second the loss and the gradients.
    """
    keys = row_keys(seed, batch)
    params = whole_over_fsdp(params)
    model = merge(graph, params)
    masked = mask_tokens(batch, rule, keys.mask)
    stages = model.model.stages(masked.inputs, masked.segment_ids, masked.positions, keys.dropout)
    forward = Finite((name, jnp.isfinite(x).all(axis=(1, 2))) for name, x in stages)
    grads, sums = gradients(params, batch, graph=graph, rule=rule, seed=seed)
    backward = Finite({"the loss": jnp.isfinite(sums.loss)})
    for name in reversed(list(params)):  # the last layer's gradient comes first
        backward[f"the gradient of {name}"] = jnp.isfinite(optax.tree.norm(grads[name]))
    return forward, backward


def _first(forward: Finite, backward: Finite, row_ids: np.ndarray) -> str | None:
    for name, rows in forward.items():
        if not rows.all():
            wrong = ", ".join(str(i) for i in row_ids[~np.asarray(rows)][:10])
            return f"{name} is the first tensor that is not finite, in rows {wrong}"
    return next(
        (
            f"{name} is the first number that is not finite; all activations of the encoder are"
            for name, finite in backward.items()
            if not finite
        ),
        None,
    )
