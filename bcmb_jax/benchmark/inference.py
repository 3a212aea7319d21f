# SPDX-License-Identifier: Apache-2.0
"""Encoding documents: hidden states of all tokens, fixed and variable lengths."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bcmb_jax.batch import Batch
from bcmb_jax.benchmark.result import OURS, result
from bcmb_jax.benchmark.roofline import matmul_ceiling
from bcmb_jax.benchmark.timing import race
from bcmb_jax.benchmark.torch_peer import fastest_peer
from bcmb_jax.data.rows import in_batches, packed, padded
from bcmb_jax.device import target
from bcmb_jax.evaluation.speed import lengths_of, random_documents
from bcmb_jax.metrics import forward_flops_per_token
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.modernbert import ModernBert
from bcmb_jax.model.parameters import init_parameters, merge, split
from bcmb_jax.precision import DTYPES
from bcmb_jax.profiling import record

ROW_STEP = 256
"""Packed rows are as long as a batch, or the next multiple of this for documents that fill none."""
TOKENS_AT_ONCE = {"cpu": 4096, "gpu": 131_072, "tpu": 131_072}


def cases(
    config: ModelConfig,
    *,
    size: str,
    precision: str,
    lengths: list[int],
    kinds: Sequence[str],
    documents: int,
    ways: list[str],
    rounds: int,
    burst: int,
    implementation: str,
    profile: Path | None,
) -> Iterator[dict[str, Any]]:
    """A result for each length and kind of lengths, padded and (variable) packed.

    Args:
      kinds: of `speed.KINDS`.
      documents: how many of each length; 0: as many as make a batch.
      ways: of the PyTorch peer; none: no comparison.
      profile: a folder for a trace of one call more, of which a table is printed.
    """
    dtype = DTYPES[precision]
    at_once = TOKENS_AT_ONCE[target().platform]
    ceiling = matmul_ceiling(dtype)
    for length in lengths:
        for kind in kinds:
            count = documents or max(1, at_once // length) * (2 if kind == "variable" else 1)
            drawn = random_documents(lengths_of(kind, length, count))
            rectangles = in_batches(padded(drawn, length), at_once)
            tokens = sum(map(len, drawn))
            flops = tokens * forward_flops_per_token(config, np.array([*map(len, drawn)]), 0.0)
            competed: list[str] = []
            peer = {}
            if ways:
                name, run, competed = fastest_peer(
                    config,
                    "encoder",
                    [(batch, None) for batch in rectangles],
                    precision=precision,
                    ways=ways,
                    train=False,
                )
                peer = {name: run}
            ours = {"padded": rectangles}
            if kind == "variable":
                needed = -(-tokens // ROW_STEP) * ROW_STEP
                row_length = max(length, min(needed, at_once, config.max_position_embeddings))
                ours["packed"] = in_batches(packed(drawn, row_length), at_once)
            for layout, of_layout in ours.items():
                encode = Encoder(config, dtype, implementation, of_layout)
                times = race({OURS: encode, **peer}, rounds, burst)
                if profile:
                    print(record(profile, encode, [encode.text()]))
                yield result(
                    f"inference {size} {precision} {kind} {length} {layout}, {count} documents",
                    tokens,
                    times,
                    flops=flops,
                    ceiling=matmul_ceiling(dtype, before=ceiling),
                    size=size,
                    precision=precision,
                    attention=implementation,
                    peers=competed,
                    lengths=kind,
                    length=length,
                    layout=layout,
                    documents=count,
                    filled=tokens / sum(batch.tokens.size for batch in of_layout),
                    temporary_bytes=encode.temporary_bytes(),
                )


class Encoder:
    """Calling it gives hidden states of all batches, and returns when they are there."""

    def __init__(
        self,
        config: ModelConfig,
        dtype: jnp.dtype,
        implementation: str,
        batches: list[Batch],
    ):
        def make() -> ModernBert:
            return ModernBert(config, dtype=dtype, implementation=implementation, rngs=nnx.Rngs(0))

        graph, _ = split(make)
        self._params = jax.jit(lambda: init_parameters(make))()
        self._inputs = jax.device_put([(b.tokens, b.segment_ids, b.positions) for b in batches])
        apply = jax.jit(lambda params, *inputs: merge(graph, params)(*inputs))
        self._program: Any = apply.lower(
            self._params, *self._inputs[0]
        ).compile()  # all of one shape

    def __call__(self) -> None:
        jax.block_until_ready([self._program(self._params, *x) for x in self._inputs])

    def text(self) -> str:
        return self._program.as_text()

    def temporary_bytes(self) -> int:
        """What the program needs beside weights and inputs."""
        return self._program.memory_analysis().temp_size_in_bytes
