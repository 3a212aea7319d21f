# SPDX-License-Identifier: Apache-2.0
"""Ask a masked LM what stands at masks: probabilities, and ranks in the vocabulary.

Shapes: `N` tokens of a text, `M` masked ones that are asked for.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from bcmb_jax.data.rows import assign, fill_rows
from bcmb_jax.device import products_in
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import Parameters, merge, split
from bcmb_jax.ops.linear import linear
from conversion.pretrained import PretrainedModel

ROWS_AT_ONCE = 8
LOGITS_AT_ONCE = 1 << 26  # floats, 256 MiB

Progress = Callable[[float], None]


class Query(NamedTuple):
    """A text with masks, and what stands at some of them."""

    inputs: np.ndarray
    """`[N]` ids with `[CLS]`, `[SEP]` and masks."""
    masked: np.ndarray
    """`[M]` positions that are asked for."""
    truth: np.ndarray
    """`[M]` ids that stand there."""


class Answer(NamedTuple):
    """Probabilities and ranks that a model gives to the truth of a query."""

    log_probabilities: np.ndarray
    """`[M]`"""
    ranks: np.ndarray
    """`[M]`, in the vocabulary, from 1 on; equal ones count as likelier."""


def ask(
    model: PretrainedModel,
    queries: Sequence[Query],
    row_length: int,
    progress: Progress = lambda _: None,
) -> list[Answer]:
    """Answer all queries in packed rows of one shape.

    Args:
      row_length: at least the length of each query.
      progress: called with the share that is done.
    """
    rows = assign([query.inputs for query in queries], row_length)
    batch = fill_rows([[queries[i].inputs for i in row] for row in rows], row_length)
    most = max(sum(len(queries[i].masked) for i in row) for row in rows)
    most = -(-most // 32) * 32  # of few sizes, so that few programs are compiled
    masked = np.zeros((len(rows), most), np.int32)
    for row, positions in zip(rows, masked, strict=True):
        starts = np.cumsum([0, *(len(queries[i].inputs) for i in row)])
        asked = [queries[i].masked + start for i, start in zip(row, starts, strict=False)]
        joined = np.concatenate(asked)
        positions[: len(joined)] = joined
    size = max(1, min(ROWS_AT_ONCE, LOGITS_AT_ONCE // (most * model.config.vocab_size)))
    answers: dict[int, Answer] = {}
    for first in range(0, len(rows), size):
        parts = (batch.tokens, batch.segment_ids, batch.positions, masked)
        part = [np.asarray(x[first : first + size]) for x in parts]
        filled = [np.pad(x, ((0, size - len(x)), (0, 0))) for x in part]
        with products_in(model.precision):
            found = _log_probabilities(model.config, model.dtype, model.params, *filled)
        for row, at_row in zip(rows[first : first + size], np.asarray(found), strict=False):
            stop = 0
            for i in row:
                start, stop = stop, stop + len(queries[i].masked)
                answers[i] = _answer(queries[i], at_row[start:stop])
        progress(min(1.0, (first + size) / len(rows)))
    return [answers[i] for i in range(len(queries))]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _log_probabilities(
    config: ModelConfig, dtype: np.dtype, params: Parameters, *batch: jax.Array
) -> jax.Array:
    """Return `[B, M, V]` for tokens, segment ids and positions `[B, L]` and positions `[B, M]`."""
    graph, _ = split(lambda: ModernBertForMaskedLM(config, dtype=dtype, rngs=nnx.Rngs(0)))
    model = merge(graph, params)
    hidden = model.hidden_at_positions(*batch).astype(model.dtype)
    logits = linear("bpd,vd->bpv", hidden, model.decoder_weight, model.dtype)
    return jax.nn.log_softmax(logits + model.decoder.bias[...].reshape(1, 1, -1))


def _answer(query: Query, log_probabilities: np.ndarray) -> Answer:
    of_truth = np.take_along_axis(log_probabilities, query.truth[:, None], axis=1)
    # NaN is not less, and counts as likelier.
    return Answer(of_truth[:, 0], (~(log_probabilities < of_truth)).sum(1))
