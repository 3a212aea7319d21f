# SPDX-License-Identifier: Apache-2.0
"""The whole training step, compiled without a parameter in memory."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from bcmb_jax.batch import Batch
from bcmb_jax.masking import MaskingRule
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import split
from bcmb_jax.optimizer import decays, stable_adamw
from bcmb_jax.sharding import batch_sharding
from bcmb_jax.training.start import abstract_state
from bcmb_jax.training.train import train_step


def compile_step(
    mesh: Mesh, config: ModelConfig, rows: int, length: int, *, remat: bool = False
) -> tuple[jax.stages.Compiled, dict[str, jax.ShapeDtypeStruct]]:
    """The step in bf16 over `rows` rows of `length` a device, and the shapes of its parameters."""
    with jax.set_mesh(mesh):
        make = functools.partial(
            ModernBertForMaskedLM, config, dtype=jnp.dtype(jnp.bfloat16), remat=remat
        )
        graph, shapes = split(lambda: make(rngs=nnx.Rngs(0)))
        optimizer = stable_adamw(max_lr=1e-4, decay_mask=decays)
        rows *= mesh.shape["data"] * mesh.shape["fsdp"]
        sharding = batch_sharding(mesh, row_axis=1)
        each = jax.ShapeDtypeStruct((1, rows, length), jnp.int32, sharding=sharding)
        row_ids = jax.ShapeDtypeStruct((1, rows), jnp.int32, sharding=sharding)
        mask, words = config.vocab_size - 1, np.arange(config.vocab_size - 1)
        step = jax.jit(
            functools.partial(
                train_step,
                graph=graph,
                optimizer=optimizer,
                rule=MaskingRule(0.3, mask, (mask,), words),
                seed=0,
            ),
            donate_argnums=0,
        )
        state = abstract_state(shapes, optimizer, mesh)
        return step.lower(state, Batch(each, each, each, row_ids), 1e-4).compile(), shapes


def collectives(text: str, kind: str) -> list[str]:
    """The shapes that each collective of a compiled program gives."""
    return re.findall(rf"= (\S+|\(.*?\)) {kind}(?:-start)?\(", text)
