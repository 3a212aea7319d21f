# SPDX-License-Identifier: Apache-2.0
"""Time the encoding of documents: hidden states of all tokens, fixed and variable lengths."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from bcmb_jax.batch import Batch
from bcmb_jax.benchmark.report import Result, time_model
from bcmb_jax.benchmark.timing import Runner, Setting
from bcmb_jax.benchmark.torch_baselines import fastest_baseline
from bcmb_jax.data.rows import in_batches, packed, padded, trimmed
from bcmb_jax.device import target
from bcmb_jax.evaluation.speed import POSITIONS_AT_ONCE, lengths_of, random_documents
from bcmb_jax.model.heads import Head
from bcmb_jax.model.modernbert import ModernBert
from bcmb_jax.model.parameters import Parameters, init_parameters, merge, split
from bcmb_jax.sharding import batch_sharding, mesh_for_rows, replicated

ROW_STEP = 256
"""Packed rows, as many on each device, share the tokens evenly, in a multiple of this."""


def cases(
    setting: Setting,
    *,
    lengths: list[int],
    kinds: Sequence[str],
    documents: int,
    profile: Path | None,
) -> Iterator[Result]:
    """Yield a result for each length and kind of lengths, padded and (variable) packed.

    Padded batches, PyTorch's and ours, are as long as the longest document in each.

    Args:
      kinds: some of `speed.KINDS`.
      documents: how many of each length; 0: as many as make a batch.
      profile: a folder for a trace of one batch more, of which a table is printed.
    """
    at_once = POSITIONS_AT_ONCE[target().platform]
    for length, kind in ((length, kind) for length in lengths for kind in kinds):
        count = documents or max(1, at_once // length) * (2 if kind == "variable" else 1)
        drawn = random_documents(lengths_of(kind, length, count))
        rectangles = [trimmed(batch) for batch in in_batches(padded(drawn, length), at_once)]
        theirs = [(batch, None) for batch in rectangles]
        baseline = fastest_baseline(setting, Head("encoder"), theirs, train=False)
        layouts = {"padded": rectangles}
        if kind == "variable":
            devices = jax.local_device_count()
            most = min(at_once, setting.config.max_position_embeddings) * devices
            rows = -(-sum(map(len, drawn)) // most) * devices
            layouts["packed"] = in_batches(pack(drawn, length, rows), at_once, devices)
        for layout, batches in layouts.items():
            encode = encoder(setting, batches)
            line = time_model(
                setting,
                f"inference {setting.size} {setting.precision} {kind} {length} {layout}, "
                f"{count} documents",
                encode,
                baseline,
                sum(batch.tokens.size for batch in batches),
                theirs,
                devices=encode.mesh.size,
            )
            if profile:
                encode.profile(profile)
            memory = {"temporary_bytes": encode.memory()["temporary_bytes"]}
            yield line | dict(lengths=kind, length=length, layout=layout, **memory)


def pack(documents: Sequence[np.ndarray], shortest: int, rows: int) -> Batch:
    """Pack into at most `rows` rows, as short as best-fit packing allows in steps of `ROW_STEP`."""
    share = -(-sum(map(len, documents)) // rows)
    length = max(shortest, -(-share // ROW_STEP) * ROW_STEP)
    while len((batch := packed(documents, length)).tokens) > rows:
        length += ROW_STEP
    return batch


def encoder(setting: Setting, batches: list[Batch]) -> Runner[Parameters, jax.Array]:
    """Return our encoder over a few batches; its outputs are their hidden states `[B, L, D]`."""

    def make() -> ModernBert:
        return ModernBert(
            setting.config,
            dtype=setting.dtype,
            implementation=setting.implementation,
            rngs=nnx.Rngs(0),
        )

    def step(params: Parameters, batch: Batch) -> tuple[Parameters, jax.Array]:
        return params, merge(graph, params)(batch.tokens, batch.segment_ids, batch.positions)

    graph, _ = split(make)
    mesh = mesh_for_rows(*(len(batch.tokens) for batch in batches))
    params = jax.jit(lambda: init_parameters(make), out_shardings=replicated(mesh))()
    return Runner(step, params, jax.device_put(batches, batch_sharding(mesh, 0)), mesh)
