# SPDX-License-Identifier: Apache-2.0
"""Score a masked LM on prepared corpora, beside unigram and bigram baselines."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bcmb_jax.data.shards import Shards, open_shards
from bcmb_jax.data.tokenize import Tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import Parameters, split
from bcmb_jax.sharding import make_mesh
from bcmb_jax.training.validation import (
    Bigram,
    Evaluator,
    Scores,
    Unigram,
    evaluation_rows,
    one_at_a_time,
)


def score_by_source(
    folders: Sequence[Path],
    tokenizer: Tokenizer,
    config: ModelConfig,
    params: Parameters,
    dtype: jnp.dtype,
    *,
    row_length: int,
    max_tokens: int,
    pseudo_perplexity_tokens: int = 0,
) -> dict[str, Any]:
    """Score the validation documents of each folder of prepare_data.py, for `results.json`.

    The baselines count words of the training documents. The metric is the mean loss over sources.

    Args:
      max_tokens: tokens scored of each source.
      pseudo_perplexity_tokens: tokens of each source that are also masked one at a time, a row for
        each; their result is the exponential of the mean loss (Salazar et al., 2020).

    Raises:
      InputError: shards are of another tokenizer or a larger vocabulary.
    """
    train = [_checked(open_shards(folder / "train"), tokenizer, config) for folder in folders]
    validation: dict[str, Shards] = {}
    for folder in folders:
        shards = _checked(open_shards(folder / "validation"), tokenizer, config)
        if shards.name in validation:
            raise InputError(f"two sources are called {shards.name}: score them one by one")
        validation[shards.name] = shards
    rows = {
        name: evaluation_rows(
            shards,
            tokenizer,
            row_length=row_length,
            max_document_length=row_length,
            max_tokens=max_tokens,
        )
        for name, shards in validation.items()
    }

    def make() -> ModernBertForMaskedLM:
        return ModernBertForMaskedLM(config, dtype=dtype, rngs=nnx.Rngs(0))

    mesh, graph = make_mesh(-1, 1, 1), split(make)[0]
    with jax.set_mesh(mesh):
        scores = Evaluator(graph, rows, mesh)(params)
        singly = {}
        if pseudo_perplexity_tokens:
            single = {
                name: one_at_a_time(shards, tokenizer, row_length, pseudo_perplexity_tokens)
                for name, shards in validation.items()
            }
            singly = Evaluator(graph, single, mesh)(params)
    unigram = Unigram(train, config.vocab_size)
    bigram = Bigram(train, unigram)
    sources = {
        name: {"model": scores[name], "unigram": unigram.score(x), "bigram": bigram.score(x)}
        for name, x in rows.items()
    }
    loss = sum(x["model"].loss for x in sources.values()) / len(sources)
    return {
        "metric": "loss",
        "per_seed": [loss],
        "median": loss,
        "sources": {
            n: {k: dataclasses.asdict(s) for k, s in x.items()} for n, x in sources.items()
        },
        "pseudo_perplexity": {name: math.exp(x.loss) for name, x in singly.items()},
    }


def table(results: Mapping[str, Any]) -> list[str]:
    """Format results as a Markdown table, a line for each source and predictor."""
    columns = [field.name for field in dataclasses.fields(Scores)]
    lines = ["| source | predictor | " + " | ".join(columns) + " |", "|---" * 6 + "|"]
    for source, predictors in results["sources"].items():
        for predictor, values in predictors.items():
            cells = [
                f"{values[c]:,}" if c.endswith("tokens") else f"{values[c]:.4f}" for c in columns
            ]
            lines.append(f"| {source} | {predictor} | " + " | ".join(cells) + " |")
    lines += [
        f"{source}: pseudo-perplexity {value:.2f}"
        for source, value in results["pseudo_perplexity"].items()
    ]
    return lines


def _checked(shards: Shards, tokenizer: Tokenizer, config: ModelConfig) -> Shards:
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
