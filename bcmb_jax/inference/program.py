# SPDX-License-Identifier: Apache-2.0
"""The compiled part: packed windows to what is read of each of them."""

import collections
import functools
import time
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bcmb_jax.device import products_in, target
from bcmb_jax.inference.packing import PackedBatch, Place, pack, slots_in
from bcmb_jax.inference.windows import Window
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import MODELS, Head, pool
from bcmb_jax.model.parameters import Parameters, merge, split
from bcmb_jax.ops.linear import linear
from bcmb_jax.programs import keep_programs
from bcmb_jax.sharding import batch_sharding, mesh_for_rows, replicated
from bcmb_jax.terminal import Display

Output: TypeAlias = Literal["mean", "cls", "classes", "tags", "masks"]
"""Results of a window: the mean of its owned hidden states or that of its `[CLS]`, `[D]`;
logits of classes, `[labels]`; probabilities of tags at its owned tokens, `[N, labels]`; tokens for
its owned masks with their probabilities, two arrays `[masks, top]`."""
Result: TypeAlias = tuple[np.ndarray, ...]

BATCHES_AHEAD = 2
"""Batches that the device has before it while the results of another are fetched."""


class Meter:
    """The progress line of a method: tokens so far, how many a second, and the share of all texts.

    Args:
      texts: their number is known only if they have a length.
      shown: whether there is a line.
    """

    def __init__(self, texts: Iterable[str], shown: bool):
        self._display = Display(silent=not shown)
        self._texts = len(texts) if isinstance(texts, Sized) else 0
        self._begun = time.monotonic()
        self._finished = self._of_chunk = 0
        self._tokens = self._before = self._in_chunk = 0

    def begin(self, texts: int, tokens: int) -> None:
        """Take up a chunk of texts with so many tokens; the one before is finished."""
        self._finished, self._of_chunk = self._finished + self._of_chunk, texts
        self._before, self._in_chunk = self._tokens, tokens

    def done(self, tokens: int) -> None:
        """Count tokens of the chunk as done."""
        self._tokens += tokens
        share = (self._tokens - self._before) / self._in_chunk
        finished = self._finished + share * self._of_chunk
        rate = self._tokens / (time.monotonic() - self._begun)
        self._display.progress(
            finished / self._texts if self._texts else None,
            f"{self._tokens:,} tokens, {rate:,.0f} a second",
        )

    def close(self) -> None:
        """Take the line away."""
        self._display.close()


class Program:
    """A model on all devices of this process, over which the rows of a batch are split.

    Args:
      mask: the id of the mask token.
    """

    def __init__(
        self,
        config: ModelConfig,
        head: Head,
        params: Parameters,
        dtype: jnp.dtype,
        precision: str,
        mask: int,
    ):
        self._config, self._head, self._mask = config, head, mask
        self._dtype, self._precision, self._platform = dtype, precision, target().platform
        keep_programs()
        # Small models compile in less than JAX takes to be worth a file, again and again.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        self._mesh = mesh_for_rows()
        self._params: Parameters = jax.device_put(params, replicated(self._mesh))

    def __call__(
        self,
        windows: Sequence[Window],
        output: Output,
        *,
        top: int = 0,
        done: Callable[[int], None] = lambda tokens: None,
    ) -> list[Result]:
        """Return the results of windows, in their order.

        Args:
          top: how many tokens for a mask.
          done: called with the number of tokens in each batch that is finished.
        """
        results: list[Result] = [()] * len(windows)
        waiting: collections.deque[tuple[PackedBatch, Any]] = collections.deque()

        def fetch() -> None:
            packed, outputs = waiting.popleft()
            arrays = jax.device_get(outputs)
            for place in packed.places:
                owned = self._owned(place, windows[place.window], output)
                # Copies: views would keep the results of the whole batch.
                results[place.window] = tuple(x[owned].copy() for x in arrays)
            done(int((packed.batch.segment_ids > 0).sum()))

        slots = [self._slots(window, output) for window in windows]
        longest = self._config.max_position_embeddings
        for packed in pack(windows, slots, self._platform, self._mesh.size, longest):
            waiting.append((packed, self._start(packed, windows, output, top)))
            if len(waiting) > BATCHES_AHEAD:
                fetch()
        while waiting:
            fetch()
        return results

    def _slots(self, window: Window, output: Output) -> int:
        if output == "masks":
            return len(self._masks(window))
        return 0 if output == "tags" else 1

    def _masks(self, window: Window) -> np.ndarray:
        """Return the owned positions `[masks]` of the mask token."""
        owned = window.tokens[window.first : window.stop]
        return np.flatnonzero(owned == self._mask) + window.first

    @staticmethod
    def _owned(place: Place, window: Window, output: Output) -> tuple[int, int | slice]:
        """Return the row and the place in it of a window's results."""
        if output == "tags":
            return place.row, slice(place.start + window.first, place.start + window.stop)
        return place.row, place.slots if output == "masks" else place.slots.start

    def _start(
        self, packed: PackedBatch, windows: Sequence[Window], output: Output, top: int
    ) -> tuple[jax.Array, ...]:
        """Give a batch to the devices, and return their results before they are computed."""
        batch, slots = packed.batch[:3], slots_in(packed.batch.tokens.shape[1])
        rows = len(batch[0])
        read = batch[1].copy()  # which of the slots a token is pooled in, from 1 on; 0: in none
        if output == "masks":
            read = np.zeros((rows, slots), np.int32)  # positions of masks
        for window, row, start, place in packed.places:
            tokens, first, stop = windows[window]
            if output == "masks":
                read[row, place] = start + self._masks(windows[window])
            elif output == "mean":
                read[row, start : start + first] = read[row, start + stop : start + len(tokens)] = 0
        head, params = self._head, self._params
        if output in ("mean", "cls"):
            head = Head("encoder")
            params = {name: x for name, x in params.items() if name.startswith("model.")}
        arrays = jax.device_put((*batch, read), batch_sharding(self._mesh, 0))
        with jax.set_mesh(self._mesh), products_in(self._precision):
            size = top if output == "masks" else slots
            outputs: tuple[jax.Array, ...] = _run(
                self._config, head, self._dtype, output, size, params, *arrays
            )
        return outputs


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _run(
    config: ModelConfig,
    head: Head,
    dtype: jnp.dtype,
    output: Output,
    size: int,
    params: Parameters,
    tokens: jax.Array,
    segment_ids: jax.Array,
    positions: jax.Array,
    read: jax.Array,
) -> tuple[jax.Array, ...]:
    graph, _ = split(lambda: MODELS[head.kind](config, head, dtype=dtype, rngs=nnx.Rngs(0)))
    model = merge(graph, params)
    batch = tokens, segment_ids, positions
    if output == "masks":
        hidden = model.hidden_at_positions(*batch, read)
        logits = linear("bpd,vd->bpv", hidden, model.decoder_weight, dtype)
        logits += model.decoder.bias[...].reshape(1, 1, -1)
        probabilities, best = jax.lax.top_k(jax.nn.softmax(logits), size)
        return best, probabilities
    if output == "tags":
        return (jax.nn.softmax(model(*batch)),)
    if output == "classes":
        return (model(*batch, size),)
    return (pool(model(*batch), read, size, output),)
