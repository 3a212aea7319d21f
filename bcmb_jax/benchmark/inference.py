# SPDX-License-Identifier: Apache-2.0
"""Time the encoding of documents: hidden states of all tokens, fixed and variable lengths."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from bcmb_jax.batch import Batch
from bcmb_jax.benchmark.report import OURS, Setting, result
from bcmb_jax.benchmark.timing import matmul_ceiling, time_interleaved
from bcmb_jax.benchmark.torch_baselines import fastest_baseline
from bcmb_jax.data.rows import in_batches, packed, padded, trimmed
from bcmb_jax.device import target
from bcmb_jax.evaluation.speed import POSITIONS_AT_ONCE, lengths_of, random_documents
from bcmb_jax.model.cost import forward_flops_per_token
from bcmb_jax.model.heads import Head
from bcmb_jax.model.modernbert import ModernBert
from bcmb_jax.model.parameters import init_parameters, merge, split
from bcmb_jax.sharding import batch_sharding, mesh_for_rows, replicated
from bcmb_jax.training.profiling import Profiled

ROW_STEP = 256
"""Packed rows, as many on each device, share the tokens evenly, in a multiple of this."""


def cases(
    setting: Setting,
    *,
    lengths: list[int],
    kinds: Sequence[str],
    documents: int,
    profile: Path | None,
) -> Iterator[dict[str, Any]]:
    """Yield a result for each length and kind of lengths, padded and (variable) packed.

    Padded batches, PyTorch's and ours, are as long as the longest document in each.

    Args:
      kinds: some of `speed.KINDS`.
      documents: how many of each length; 0: as many as make a batch.
      profile: a folder for a trace of one batch more, of which a table is printed.
    """
    at_once = POSITIONS_AT_ONCE[target().platform]
    ceiling = matmul_ceiling(setting.dtype)
    for length in lengths:
        for kind in kinds:
            count = documents or max(1, at_once // length) * (2 if kind == "variable" else 1)
            drawn = random_documents(lengths_of(kind, length, count))
            rectangles = [trimmed(batch) for batch in in_batches(padded(drawn, length), at_once)]
            tokens = sum(map(len, drawn))
            per_token = forward_flops_per_token(setting.config, np.array([*map(len, drawn)]), 0.0)
            baseline = fastest_baseline(
                setting, Head("encoder"), [(batch, None) for batch in rectangles], train=False
            )
            ours = {"padded": rectangles}
            if kind == "variable":
                devices = jax.local_device_count()
                most = min(at_once, setting.config.max_position_embeddings) * devices
                rows = -(-tokens // most) * devices
                ours["packed"] = in_batches(pack(drawn, length, rows), at_once, devices)
            for layout, of_layout in ours.items():
                encode = Encoder(setting, of_layout)
                times = time_interleaved(
                    {OURS: encode, **baseline.run}, setting.rounds, setting.repeats
                )
                if profile:
                    encode.profile(profile)
                ceiling = matmul_ceiling(setting.dtype, before=ceiling)
                yield result(
                    f"inference {setting.size} {setting.precision} {kind} {length} {layout}, "
                    f"{count} documents",
                    tokens,
                    times,
                    flops=tokens * per_token,
                    ceiling=ceiling,
                    peers=baseline.competed,
                    lengths=kind,
                    length=length,
                    layout=layout,
                    documents=count,
                    filled=tokens / sum(batch.tokens.size for batch in of_layout),
                    peer_filled=tokens / sum(batch.tokens.size for batch in rectangles),
                    devices=encode.devices,
                    temporary_bytes=encode.temporary_bytes(),
                    **setting.metadata(),
                )


def pack(documents: Sequence[np.ndarray], shortest: int, rows: int) -> Batch:
    """Pack into at most `rows` rows, as short as best-fit packing allows in steps of `ROW_STEP`."""
    share = -(-sum(map(len, documents)) // rows)
    length = max(shortest, -(-share // ROW_STEP) * ROW_STEP)
    while len((batch := packed(documents, length)).tokens) > rows:
        length += ROW_STEP
    return batch


class Encoder:
    """Our encoder over a few batches; a call returns when all hidden states are computed."""

    def __init__(self, setting: Setting, batches: list[Batch]):
        def make() -> ModernBert:
            return ModernBert(
                setting.config,
                dtype=setting.dtype,
                implementation=setting.implementation,
                rngs=nnx.Rngs(0),
            )

        graph, _ = split(make)
        self._mesh = mesh = mesh_for_rows(*(len(batch.tokens) for batch in batches))
        self.devices = mesh.size
        self._params = jax.jit(lambda: init_parameters(make), out_shardings=replicated(mesh))()
        self._inputs = jax.device_put(
            [(b.tokens, b.segment_ids, b.positions) for b in batches], batch_sharding(mesh, 0)
        )
        self._apply = jax.jit(lambda params, *inputs: merge(graph, params)(*inputs))
        self._programs: dict[tuple[int, ...], Any] = {}
        with jax.set_mesh(mesh):
            for x in self._inputs:
                if x[0].shape not in self._programs:
                    self._programs[x[0].shape] = self._apply.lower(self._params, *x).compile()

    def __call__(self) -> None:
        """Encode all batches."""
        jax.block_until_ready(self.states())

    def states(self) -> list[jax.Array]:
        """Compute the hidden states `[B, L, hidden]` of each batch."""
        return [self._programs[x[0].shape](self._params, *x) for x in self._inputs]

    def profile(self, directory: Path) -> None:
        """Trace the first batch alone, and print where its time goes."""
        first = self._inputs[0]
        program = self._programs[first[0].shape]
        apply = Profiled(self._apply, directory, traced=2, program=program)
        with jax.set_mesh(self._mesh):
            for _ in range(2):
                apply(self._params, *first)

    def temporary_bytes(self) -> int:
        """Return the bytes that the largest program needs beside weights and inputs."""
        return max(x.memory_analysis().temp_size_in_bytes for x in self._programs.values())
