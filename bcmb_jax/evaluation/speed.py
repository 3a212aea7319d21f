# SPDX-License-Identifier: Apache-2.0
"""Measure encoders as in the paper's Table 3: documents with six distributions of length.

The protocol `published` is that of the paper's code (RECIPE §8): rows padded to the longest length,
throughput in nominal tokens (documents × the mean length aimed at), the mean of ten iterations
after no warm-up, copies to the device included. The protocol `honest` counts true tokens after a
warm-up, and also packs if the model can.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bcmb_jax.batch import Batch
from bcmb_jax.data.rows import in_batches, packed, padded
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.modernbert import ModernBert
from bcmb_jax.model.parameters import Parameters, merge, split
from conversion import torch_models

PROTOCOLS = ("published", "honest")
KINDS = ("fixed", "variable")
# Fidelity: 4,096 documents are upstream's code; its paper says 8,192.
DOCUMENTS = 4096
# Fidelity: upstream searches the largest batch that fits, and does not wait for the GPU before it
# reads the clock; here a batch is so many positions, and everything is done when time stops.
POSITIONS_AT_ONCE = {"cpu": 4096, "gpu": 131_072, "tpu": 131_072}
FIRST_TOKEN, LAST_TOKEN = 100, 15_999


class LengthSet(NamedTuple):
    """One of the paper's six distributions of document length."""

    name: str
    longest: int
    kind: str

    @property
    def nominal(self) -> int:
        """Return the number of tokens that upstream counts for a document."""
        return self.longest // 2 if self.kind == "variable" else self.longest


SETS = tuple(
    LengthSet(f"{name} {kind}", longest, kind)
    for name, longest in (("short", 512), ("medium", 4096), ("long", 8192))
    for kind in KINDS
)


def lengths_of(kind: str, longest: int, count: int, seed: int = 42) -> np.ndarray:
    """Return the lengths of documents, `[count]`, in tokens.

    Documents of the kind "fixed" have `longest` tokens. Those of the kind "variable" are normally
    distributed around half of it with a standard deviation of an eighth, cut to 16 … `longest`
    (RECIPE §8).
    """
    if kind == "fixed":
        return np.full(count, longest)
    drawn = np.random.default_rng(seed).normal(longest / 2, longest / 8, count)
    return np.clip(drawn.astype(int), 16, longest)


def random_documents(
    lengths: np.ndarray, seed: int = 0, last: int = LAST_TOKEN
) -> list[np.ndarray]:
    """Draw documents of the given lengths; token ids are from `FIRST_TOKEN` to `last`."""
    rng = np.random.default_rng(seed)
    return [rng.integers(FIRST_TOKEN, last + 1, n).astype(np.int32) for n in lengths]


class Encoder(Protocol):
    """An encoder on any backend.

    Attributes:
      longest: tokens of the longest document that it reads.
      packs: whether a row may hold several documents.
      compiles: whether the first batch of a shape takes longer, as it is compiled.
    """

    vocab_size: int
    longest: int
    packs: bool
    compiles: bool

    def __call__(self, batch: Batch) -> None:
        """Copy a batch to the device and encode it; return as soon as the next may follow."""

    def wait(self) -> None:
        """Wait until all batches are encoded."""


def measure(
    encoder: Encoder,
    protocol: str,
    *,
    sets: Sequence[LengthSet] = SETS,
    documents: int,
    iterations: int,
    positions_at_once: int,
    progress: Callable[[float, str], None] = lambda done, text: None,
) -> Iterator[dict[str, Any]]:
    """Yield the result of each set that the model can read, in each layout, for `results.json`.

    Args:
      protocol: one of `PROTOCOLS`.
      positions_at_once: tokens and padding of a batch.

    Raises:
      InputError: the model reads no set.
    """
    chosen = [s for s in sets if s.longest <= encoder.longest]
    if not chosen:
        raise InputError(f"the model reads {encoder.longest} tokens, the shortest set has 512")
    for number, length_set in enumerate(chosen):
        drawn = random_documents(
            lengths_of(length_set.kind, length_set.longest, documents),
            last=min(LAST_TOKEN, encoder.vocab_size - 1),
        )
        true = sum(map(len, drawn))
        layouts = {"padded": padded(drawn, length_set.longest)}
        if protocol == "honest" and encoder.packs and length_set.kind == "variable":
            layouts["packed"] = packed(drawn, max(length_set.longest, encoder.longest // 4))
        for layout, rows in layouts.items():
            batches = in_batches(rows, positions_at_once)
            if protocol == "honest":
                _seconds(encoder, batches)
            elif encoder.compiles:
                # Fidelity: upstream has no warm-up at all; but compiling is not encoding.
                _seconds(encoder, batches[:1])
            seconds = []
            for i in range(iterations):
                progress((number + i / iterations) / len(chosen), f"{length_set.name} {layout}")
                seconds.append(_seconds(encoder, batches))
            mean = statistics.mean(seconds)
            yield {
                "set": length_set.name,
                "length": length_set.longest,
                "documents": documents,
                "nominal_tokens_per_second": documents * length_set.nominal / mean,
                "tokens_per_second": true / mean,
                "seconds": mean,
                "seconds_least": min(seconds),
                "seconds_most": max(seconds),
                "iterations": iterations,
                "batch_size": len(batches[0].tokens),
                "padded": layout == "padded",
            }


def _seconds(encoder: Encoder, batches: Sequence[Batch]) -> float:
    start = time.perf_counter()
    for batch in batches:
        encoder(batch)
    encoder.wait()
    return time.perf_counter() - start


class JaxEncoder:
    """This package's encoder; `params` are by checkpoint name."""

    packs = compiles = True

    def __init__(self, config: ModelConfig, params: Parameters, dtype: jnp.dtype):
        graph, shapes = split(lambda: ModernBert(config, dtype=dtype, rngs=nnx.Rngs(0)))
        self.vocab_size, self.longest = config.vocab_size, config.max_position_embeddings
        self._params = {name: jnp.asarray(params[f"model.{name}"]) for name in shapes}
        self._apply = jax.jit(lambda params, *inputs: merge(graph, params)(*inputs))
        self._last: jax.Array | None = None

    def __call__(self, batch: Batch) -> None:
        """Encode a batch."""
        inputs = jax.device_put((batch.tokens, batch.segment_ids, batch.positions))
        self._last = self._apply(self._params, *inputs)

    def wait(self) -> None:
        """Wait until all batches are encoded."""
        jax.block_until_ready(self._last)


class TorchEncoder:
    """Any encoder of transformers from a folder or hub id, in float32 as in the paper."""

    packs = compiles = False

    def __init__(self, path_or_id: str):
        self.longest = torch_models.max_length(path_or_id)
        model = torch_models.load_model(path_or_id, "encoder")
        self._model = model.to(torch_models.device()).eval()
        self.vocab_size = self._model.config.vocab_size

    def __call__(self, batch: Batch) -> None:
        """Encode a batch."""
        torch = torch_models.import_torch()
        pad = self._model.config.pad_token_id or 0
        ids = np.where(batch.segment_ids > 0, batch.tokens, pad)
        arrays = {"input_ids": ids, "attention_mask": batch.segment_ids}
        with torch.no_grad():
            torch_models.run_model(self._model, arrays)

    def wait(self) -> None:
        """Wait until all batches are encoded."""
        if torch_models.device() == "cuda":
            torch_models.import_torch().cuda.synchronize()
