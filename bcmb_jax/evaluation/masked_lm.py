# SPDX-License-Identifier: Apache-2.0
"""Score a masked LM on prepared corpora, beside unigram and bigram baselines."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from scipy import sparse

from bcmb_jax.data.plan import SPECIAL_TOKENS
from bcmb_jax.data.rows import padded
from bcmb_jax.data.shards import Shards, open_shards
from bcmb_jax.data.tokenize import Tokenizer
from bcmb_jax.device import products_in
from bcmb_jax.errors import InputError
from bcmb_jax.masking import MaskedBatch
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import split
from bcmb_jax.sharding import make_mesh
from bcmb_jax.training.validation import (
    Evaluator,
    Scores,
    Unigram,
    baseline_scores,
    evaluation_rows,
    joined_documents,
    with_special_tokens,
)
from conversion.pretrained import PretrainedModel


def score_by_source(
    folders: Sequence[Path],
    tokenizer: Tokenizer,
    model: PretrainedModel,
    *,
    row_length: int,
    max_tokens: int,
    pseudo_perplexity_tokens: int = 0,
) -> dict[str, Any]:
    """Score the validation documents of each folder of bcmb prepare, for `results.json`.

    The baselines count words of the training documents. The metric is the mean loss over sources.

    Args:
      max_tokens: tokens scored of each source.
      pseudo_perplexity_tokens: tokens of each source that are also masked one at a time, a row for
        each; their result is the exponential of the mean loss (Salazar et al., 2020).

    Raises:
      InputError: shards are of another tokenizer or a larger vocabulary.
    """
    train, validation = (
        [open_fitting(folder / split, tokenizer, model.config) for folder in folders]
        for split in ("train", "validation")
    )
    rows: dict[str, MaskedBatch] = {}
    for shards in validation:
        if shards.name in rows:
            raise InputError(f"two sources are called {shards.name}: score them one by one")
        rows[shards.name] = evaluation_rows(
            shards,
            tokenizer,
            row_length=row_length,
            max_document_length=row_length,
            max_tokens=max_tokens,
        )
    singly = {
        shards.name: one_at_a_time(shards, tokenizer, row_length, pseudo_perplexity_tokens)
        for shards in (validation if pseudo_perplexity_tokens else ())
    }
    mesh = make_mesh(-1, 1, 1)
    graph, _ = split(
        lambda: ModernBertForMaskedLM(model.config, dtype=model.dtype, rngs=nnx.Rngs(0))
    )
    with jax.set_mesh(mesh), products_in(model.precision):
        scores, single_scores = (Evaluator(graph, x, mesh)(model.params) for x in (rows, singly))
    unigram = Unigram(train, model.config.vocab_size)
    bigram = Bigram(train, unigram)
    loss = sum(x.loss for x in scores.values()) / len(scores)
    return {
        "metric": "loss",
        "per_seed": [loss],
        "median": loss,
        "sources": {
            name: {
                "model": dataclasses.asdict(scores[name]),
                "unigram": dataclasses.asdict(unigram.score(x)),
                "bigram": dataclasses.asdict(bigram.score(x)),
            }
            for name, x in rows.items()
        },
        "pseudo_perplexity": {name: math.exp(x.loss) for name, x in single_scores.items()},
    }


def table(results: Mapping[str, Any]) -> list[str]:
    """Format results as a Markdown table, a line for each source and predictor."""
    columns = [field.name for field in dataclasses.fields(Scores)]
    lines = ["| source | predictor | " + " | ".join(columns) + " |", "|---" * 6 + "|"]
    for source, predictors in results["sources"].items():
        for predictor, values in predictors.items():
            cells = [format(values[c], "," if c.endswith("tokens") else ".4f") for c in columns]
            lines.append(f"| {source} | {predictor} | " + " | ".join(cells) + " |")
    return lines + [
        f"{source}: pseudo-perplexity {value:.2f}"
        for source, value in results["pseudo_perplexity"].items()
    ]


def open_fitting(folder: Path, tokenizer: Tokenizer, config: ModelConfig) -> Shards:
    """Open a split that was made with this tokenizer and has no more entries than the model.

    Raises:
      InputError: it has not.
    """
    shards = open_shards(folder)
    if shards.tokenizer_fingerprint != tokenizer.fingerprint:
        raise InputError(
            f"{shards.directory} was not made with the tokenizer {tokenizer.directory}"
        )
    if shards.vocab_size > config.vocab_size:
        raise InputError(
            f"{shards.directory} has a vocabulary of {shards.vocab_size:,}, the model "
            f"only {config.vocab_size:,}"
        )
    return shards


def one_at_a_time(
    shards: Shards, tokenizer: Tokenizer, row_length: int, max_tokens: int
) -> MaskedBatch:
    """Return rows that mask one token each, for pseudo-perplexity.

    Args:
      row_length: longer documents are cut.
      max_tokens: every token of the first documents gets a row, up to this many.
    """
    texts: list[np.ndarray] = []
    masked: list[int] = []
    for document in range(len(shards)):
        room = min(row_length - SPECIAL_TOKENS, max_tokens - len(masked))
        length = min(int(shards.lengths[document]), room)
        texts += [with_special_tokens(shards.read(document, 0, length), tokenizer)] * length
        masked += range(1, length + 1)
        if len(masked) >= max_tokens:
            break
    rows = padded(texts, row_length)
    at = np.arange(len(masked)), np.array(masked, np.int32)
    inputs = rows.tokens.copy()
    inputs[at] = tokenizer.special.mask
    return MaskedBatch(
        inputs,
        rows.segment_ids,
        rows.positions,
        at[1][:, None],
        rows.tokens[at][:, None],
        np.ones((len(masked), 1), np.float32),
    )


class Bigram:
    """A baseline that predicts by the token before, as the model sees it.

    Interpolated with the unigram (Witten-Bell).
    """

    def __init__(self, sources: Sequence[Shards], unigram: Unigram):
        self._unigram = np.exp(unigram.log_probabilities)
        shape = (len(self._unigram),) * 2
        self._counts = sparse.csr_array(shape, dtype=np.int64)
        for shards in sources:
            for tokens in joined_documents(shards):
                ones = np.ones(len(tokens) - 1, np.int64)
                self._counts += sparse.csr_array((ones, (tokens[:-1], tokens[1:])), shape=shape)

    def score(self, rows: MaskedBatch) -> Scores:
        """Return the baseline's scores on the masked tokens of `rows`."""
        row, column = np.nonzero(rows.loss_weights)
        position = rows.masked_positions[row, column]
        before, targets = rows.inputs[row, position - 1], rows.targets[row, column]
        logs, ranks = np.empty(len(targets)), np.empty(len(targets), int)
        order = np.argsort(before, kind="stable")
        for same in np.split(order, np.flatnonzero(np.diff(before[order])) + 1):
            probabilities = self._after(int(before[same[0]]))
            at_target = probabilities[targets[same]]
            logs[same] = np.log(at_target)
            best = -np.sort(-probabilities)[:5]
            ranks[same] = (best[None, :] > at_target[:, None]).sum(1)
        return baseline_scores(logs, ranks)

    def _after(self, token: int) -> np.ndarray:
        counts = self._counts[[token]]
        total, kinds = counts.sum(), counts.nnz
        if not total:
            return self._unigram
        probabilities = self._unigram * (kinds / (total + kinds))
        probabilities[counts.indices] += counts.data / (total + kinds)
        return probabilities
