# SPDX-License-Identifier: Apache-2.0
"""Masked-LM loss and accuracy by source, on documents and masks that never change.

A document's mask is a function of its own tokens: 15 %, special tokens excluded, 80/10/10, the same
at every evaluation, in every run and however the documents are packed.
"""

# Fidelity: upstream draws new masks at every evaluation and averages means of microbatches
# (RECIPE §6), so that two of its evaluations of the same weights differ.

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh

from bcmb_jax.data.plan import SPECIAL_TOKENS, PackingPlan
from bcmb_jax.data.rows import fill_rows, padded
from bcmb_jax.data.shards import Shards
from bcmb_jax.data.tokenize import Tokenizer
from bcmb_jax.losses import position_chunks, split_positions
from bcmb_jax.masking import MaskedBatch
from bcmb_jax.model.parameters import Parameters, merge
from bcmb_jax.ops.linear import linear
from bcmb_jax.sharding import batch_sharding, batch_shards

MASK_RATE = 0.15
ROWS_PER_DEVICE = 4


@dataclass(frozen=True)
class Scores:
    """Over the predicted tokens of one source."""

    loss: float
    masked_accuracy: float
    top5_accuracy: float
    predicted_tokens: int


class _Sums(NamedTuple):
    loss: jax.Array
    top1: jax.Array
    top5: jax.Array
    weight: jax.Array


def evaluation_rows(
    shards: Shards,
    tokenizer: Tokenizer,
    *,
    row_length: int,
    max_document_length: int,
    max_tokens: int,
) -> MaskedBatch:
    """All rows of a source's evaluation (numpy): its first documents up to `max_tokens`."""
    lengths = np.where(np.cumsum(shards.lengths, dtype=np.int64) <= max_tokens, shards.lengths, 0)
    lengths[0] = shards.lengths[0]
    plan = PackingPlan(
        [lengths],
        weights=[1.0],
        row_length=row_length,
        max_document_length=max_document_length,
        seed=0,
    ).epoch(0)
    of_rows = []
    for row in range(plan.rows):
        pieces = []
        for _, document, start, length in plan.pieces(row):
            part = slice(start, start + length)
            whole = shards.read(document, 0, int(shards.lengths[document]))
            masked, predicted = (x[part] for x in mask_document(whole, tokenizer))
            framed = (_framed(x, tokenizer) for x in (whole[part], masked))
            pieces.append((*framed, np.pad(predicted, 1)))
        of_rows.append(pieces)
    targets, inputs, chosen = (
        fill_rows([[piece[i] for piece in pieces] for pieces in of_rows], row_length)
        for i in range(3)
    )
    places = -(-max(1, int(chosen.tokens.sum(1).max())) // 16) * 16
    order = np.argsort(1 - chosen.tokens, axis=1, kind="stable")[:, : min(places, row_length)]
    return MaskedBatch(
        inputs.tokens,
        inputs.segment_ids,
        inputs.positions,
        order.astype(np.int32),
        np.take_along_axis(targets.tokens, order, axis=1),
        np.take_along_axis(chosen.tokens, order, axis=1).astype(np.float32),
    )


def one_at_a_time(
    shards: Shards, tokenizer: Tokenizer, row_length: int, max_tokens: int
) -> MaskedBatch:
    """Rows that mask one token each: every token of a source's first documents (their first
    `row_length` positions), up to `max_tokens`."""
    texts: list[np.ndarray] = []
    places: list[int] = []
    for document in range(len(shards)):
        room = min(row_length - SPECIAL_TOKENS, max_tokens - len(places))
        length = min(int(shards.lengths[document]), room)
        texts += [_framed(shards.read(document, 0, length), tokenizer)] * length
        places += range(1, length + 1)
        if len(places) >= max_tokens:
            break
    rows = padded(texts, row_length)
    at = np.arange(len(places)), np.array(places, np.int32)
    inputs = rows.tokens.copy()
    inputs[at] = tokenizer.special.mask
    return MaskedBatch(
        inputs,
        rows.segment_ids,
        rows.positions,
        at[1][:, None],
        rows.tokens[at][:, None],
        np.ones((len(places), 1), np.float32),
    )


def _framed(tokens: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """`[CLS] tokens [SEP]`."""
    return np.concatenate([[tokenizer.special.cls], tokens, [tokenizer.special.sep]])


def mask_document(tokens: np.ndarray, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """`(inputs, predicted)` of a document `[N]`, from its content alone."""
    digest = hashlib.sha256(np.ascontiguousarray(tokens, "<i4").tobytes()).digest()
    raw = np.random.PCG64(int.from_bytes(digest[:16], "little")).random_raw(2 * len(tokens))
    r = (raw[: len(tokens)] >> 11) * 2.0**-53
    noise = tokenizer.ordinary_ids[raw[len(tokens) :] % len(tokenizer.ordinary_ids)]
    inputs = np.where(r < 0.9 * MASK_RATE, noise, tokens)
    inputs = np.where(r < 0.8 * MASK_RATE, tokenizer.special.mask, inputs)
    return inputs.astype(np.int32), r < MASK_RATE


class Evaluator:
    """Scores parameters on fixed evaluation rows, by source.

    Args:
      graph: of a `ModernBertForMaskedLM`.
      sources: name → rows from `evaluation_rows`.
    """

    def __init__(self, graph: nnx.GraphDef, sources: Mapping[str, MaskedBatch], mesh: Mesh):
        self.sources, self._mesh = sources, mesh
        self._step = jax.jit(functools.partial(_score, graph))

    def __call__(self, params: Parameters) -> dict[str, Scores]:
        scores = {}
        for name, rows in self.sources.items():
            total = np.zeros(4)
            for batch in self._batches(rows):
                total += np.asarray(self._step(params, batch), float)
            predicted = int(total[3])
            # A source may be so small that not a token of it is masked.
            loss, top1, top5 = (total[:3] / max(predicted, 1)).tolist()
            scores[name] = Scores(loss, top1, top5, predicted)
        return scores

    def _batches(self, rows: MaskedBatch) -> Iterator[MaskedBatch]:
        size = ROWS_PER_DEVICE * batch_shards(self._mesh)
        sharding = batch_sharding(self._mesh, row_axis=0)
        for first in range(0, len(rows.inputs), size):
            part = [x[first : first + size] for x in rows]
            padded = [np.pad(x, ((0, size - len(x)), (0, 0))) for x in part]
            yield MaskedBatch(
                *(jax.make_array_from_callback(x.shape, sharding, x.__getitem__) for x in padded)
            )


def _score(graph: nnx.GraphDef, params: Parameters, batch: MaskedBatch) -> _Sums:
    model = merge(graph, params)
    hidden = model.hidden_at_positions(
        batch.inputs, batch.segment_ids, batch.positions, batch.masked_positions
    ).astype(model.dtype)

    def piece(part: tuple) -> _Sums:
        hidden, targets, weights = part
        logits = linear(hidden, model.decoder_weight, model.dtype)
        logits = logits + model.decoder.bias[...].reshape(1, 1, -1)
        at_target = jnp.take_along_axis(logits, targets[..., None], axis=-1)
        loss = jax.nn.logsumexp(logits, axis=-1) - at_target[..., 0]
        better = (logits > at_target).sum(-1)
        return _Sums(*((x * weights).sum() for x in (loss, better < 1, better < 5, weights**0)))

    pieces = position_chunks(hidden.shape, model.decoder_weight.shape[0])
    sums = lax.map(piece, split_positions((hidden, batch.targets, batch.loss_weights), pieces))
    return jax.tree.map(jnp.sum, sums)
