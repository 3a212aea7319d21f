# SPDX-License-Identifier: Apache-2.0
"""Masked-LM loss and accuracy by source, on fixed documents and masks, and their baselines.

A document's mask is a function of its own tokens: 15 %, special tokens excluded, 80/10/10, the same
at every evaluation, in every run and however the documents are packed.
"""

# Fidelity: upstream draws new masks at every evaluation and averages means of microbatches
# (RECIPE §6), so that two of its evaluations of the same weights differ.

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh

from bcmb_jax.data.plan import PackingPlan
from bcmb_jax.data.rows import fill_rows
from bcmb_jax.data.shards import Shards
from bcmb_jax.data.tokenize import Tokenizer
from bcmb_jax.masking import MaskedBatch
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import Parameters, merge
from bcmb_jax.ops.cross_entropy import position_chunks, split_positions
from bcmb_jax.ops.linear import linear
from bcmb_jax.sharding import batch_sharding, batch_shards

MASK_RATE = 0.15
ROWS_PER_DEVICE = 4
DOCUMENTS_COUNTED_AT_ONCE = 2000
MOST_TOKENS_COUNTED = 20_000_000  # of each source: shards are shuffled, so the first are a sample


@dataclass(frozen=True)
class Scores:
    """Means over the predicted tokens of one source."""

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
    """Return the rows that a source is evaluated on, as numpy arrays.

    Args:
      max_tokens: the first documents that together have no more are taken, at least one.
    """
    lengths = np.where(np.cumsum(shards.lengths, dtype=np.int64) <= max_tokens, shards.lengths, 0)
    lengths[0] = shards.lengths[0]
    plan = PackingPlan(
        [lengths],
        weights=[1.0],
        row_length=row_length,
        max_document_length=max_document_length,
        seed=0,
    ).epoch(0)
    documents_by_row = []
    for row in range(plan.rows):
        documents = []
        for _, document, start, length in plan.pieces(row):
            part = slice(start, start + length)
            whole = shards.read(document, 0, int(shards.lengths[document]))
            masked, predicted = (x[part] for x in mask_document(whole, tokenizer))
            framed = (with_special_tokens(x, tokenizer) for x in (whole[part], masked))
            documents.append((*framed, np.pad(predicted, 1)))
        documents_by_row.append(documents)
    targets, inputs, chosen = (
        fill_rows([[x[i] for x in documents] for documents in documents_by_row], row_length)
        for i in range(3)
    )
    # All rows get as many masked positions as the fullest has, rounded up: one compiled program.
    count = -(-max(1, int(chosen.tokens.sum(1).max())) // 16) * 16
    order = np.argsort(1 - chosen.tokens, axis=1, kind="stable")[:, : min(count, row_length)]
    return MaskedBatch(
        inputs.tokens,
        inputs.segment_ids,
        inputs.positions,
        order.astype(np.int32),
        np.take_along_axis(targets.tokens, order, axis=1),
        np.take_along_axis(chosen.tokens, order, axis=1).astype(np.float32),
    )


def with_special_tokens(tokens: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Return `[CLS] tokens [SEP]`."""
    return np.concatenate([[tokenizer.special.cls], tokens, [tokenizer.special.sep]])


def mask_document(tokens: np.ndarray, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Mask a document by its content alone.

    Returns:
      The corrupted tokens `[N]` int32, and which of them are predicted `[N]` bool.
    """
    digest = hashlib.sha256(np.ascontiguousarray(tokens, "<i4").tobytes()).digest()
    raw = np.random.PCG64(int.from_bytes(digest[:16], "little")).random_raw(2 * len(tokens))
    r = (raw[: len(tokens)] >> 11) * 2.0**-53
    noise = tokenizer.ordinary_ids[raw[len(tokens) :] % len(tokenizer.ordinary_ids)]
    inputs = np.where(r < 0.9 * MASK_RATE, noise, tokens)
    inputs = np.where(r < 0.8 * MASK_RATE, tokenizer.special.mask, inputs)
    return inputs.astype(np.int32), r < MASK_RATE


class Evaluator:
    """Score parameters on fixed rows, by source.

    Args:
      graph: the structure of a `ModernBertForMaskedLM`.
      sources: rows from `evaluation_rows` by the name of their source.
    """

    def __init__(
        self,
        graph: nnx.GraphDef[ModernBertForMaskedLM],
        sources: Mapping[str, MaskedBatch],
        mesh: Mesh,
    ):
        self.sources, self._mesh = sources, mesh
        self._step = jax.jit(functools.partial(_score, graph))

    def __call__(self, params: Parameters) -> dict[str, Scores]:
        """Return the scores of every source."""
        scores = self.until(lambda: False, params)
        assert scores is not None
        return scores

    def until(self, stop: Callable[[], bool], params: Parameters) -> dict[str, Scores] | None:
        """Return the scores of every source; None if `stop`, which is asked at each batch, says so.

        Where there are several processes, `stop` gives all of them the same answer.
        """
        scores = {}
        for name, rows in self.sources.items():
            total = np.zeros(4)
            for batch in self._batches(rows):
                if stop():
                    return None
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


def _score(
    graph: nnx.GraphDef[ModernBertForMaskedLM], params: Parameters, batch: MaskedBatch
) -> _Sums:
    model = merge(graph, params)
    hidden = model.hidden_at_positions(
        batch.inputs, batch.segment_ids, batch.positions, batch.masked_positions
    ).astype(model.dtype)

    def chunk(part: tuple[jax.Array, jax.Array, jax.Array]) -> _Sums:
        hidden, targets, weights = part
        logits = linear("bpd,vd->bpv", hidden, model.decoder_weight, model.dtype)
        logits = logits + model.decoder.bias[...].reshape(1, 1, -1)
        at_target = jnp.take_along_axis(logits, targets[..., None], axis=-1)
        loss = jax.nn.logsumexp(logits, axis=-1) - at_target[..., 0]
        better = (~(logits <= at_target)).sum(-1)  # NaN counts as better: it is never a hit
        return _Sums(*((x * weights).sum() for x in (loss, better < 1, better < 5, weights**0)))

    pieces = position_chunks(hidden.shape, model.decoder_weight.shape[0])
    sums = lax.map(chunk, split_positions((hidden, batch.targets, batch.loss_weights), pieces))
    total: _Sums = jax.tree.map(jnp.sum, sums)
    return total


class Unigram:
    """A baseline that predicts by token frequency, every token counted once more (add-one)."""

    def __init__(self, sources: Sequence[Shards], vocab_size: int):
        counts = np.ones(vocab_size)
        for shards in sources:
            for tokens in joined_documents(shards):
                counts += np.bincount(tokens, minlength=vocab_size)
        self.log_probabilities = np.log(counts / counts.sum())
        self._ranks = np.empty(vocab_size, int)
        self._ranks[np.argsort(-counts, kind="stable")] = np.arange(vocab_size)

    def score(self, rows: MaskedBatch) -> Scores:
        """Return the baseline's scores on the masked tokens of `rows`."""
        targets = rows.targets[rows.loss_weights > 0]
        return baseline_scores(self.log_probabilities[targets], self._ranks[targets])


def joined_documents(shards: Shards) -> Iterator[np.ndarray]:
    """Yield the first documents of a source, joined, some thousands at a time."""
    ends = np.cumsum(shards.lengths, dtype=np.int64)
    count = min(len(shards), int(np.searchsorted(ends, MOST_TOKENS_COUNTED)) + 1)
    for first in range(0, count, DOCUMENTS_COUNTED_AT_ONCE):
        last = min(first + DOCUMENTS_COUNTED_AT_ONCE, count)
        parts = [shards.read(d, 0, shards.lengths[d]) for d in range(first, last)]
        yield np.concatenate(parts, dtype=np.int32, casting="unsafe")


def baseline_scores(log_probabilities: np.ndarray, ranks: np.ndarray) -> Scores:
    """Return the scores of a baseline from each target's log-probability and rank (0: best)."""
    return Scores(
        loss=-float(log_probabilities.mean()),
        masked_accuracy=float((ranks < 1).mean()),
        top5_accuracy=float((ranks < 5).mean()),
        predicted_tokens=len(ranks),
    )
