# SPDX-License-Identifier: Apache-2.0
"""Masked-language-model corruption on the device, keyed by the seed and the global row number.

A row is masked the same way on any number of devices, processes and microbatches, and again after
a restart.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from bcmb_jax.batch import Batch


class MaskedBatch(NamedTuple):
    """A corrupted batch; the last three fields have a fixed number `P` of positions a row."""

    inputs: Int[Array | np.ndarray, "B L"]
    """Corrupted tokens."""
    segment_ids: Int[Array | np.ndarray, "B L"]
    positions: Int[Array | np.ndarray, "B L"]
    masked_positions: Int[Array | np.ndarray, "B P"]
    """0 where unused."""
    targets: Int[Array | np.ndarray, "B P"]
    """The original tokens there."""
    loss_weights: Float[Array | np.ndarray, "B P"]
    """1 at predicted positions, 0 where unused."""


@dataclasses.dataclass(frozen=True)
class MaskingRule:
    """80 % `[MASK]`, 10 % a random ordinary token, 10 % unchanged, of a `rate` of the tokens.

    Attributes:
      rate: the probability that a token is predicted.
      mask_token: id of `[MASK]`.
      special_tokens: ids that are never predicted.
      random_tokens: the ids a random replacement is drawn from.
    """

    # Fidelity: upstream also masks and predicts [CLS] and [SEP], whose identity their position
    # gives away, and draws random ids up to [MASK]'s own, special tokens included (RECIPE §6).
    # Here special tokens are neither predicted nor drawn, as in the evaluation upstream uses.
    rate: float
    mask_token: int
    special_tokens: tuple[int, ...]
    random_tokens: np.ndarray


def masked_positions_per_row(row_length: int, rate: float) -> int:
    """Return the static number of masked positions: four standard deviations above the mean.

    A row that draws more (3 in 100,000 full rows) leaves its last draws unmasked; nothing
    overflows.
    """
    spread = 4 * math.sqrt(row_length * rate * (1 - rate))
    wanted = math.ceil(row_length * rate + spread)
    return min(row_length, -(-wanted // 16) * 16)


@jax.named_scope("masking")
def mask_tokens(batch: Batch, rule: MaskingRule, key: Key[Array, ""]) -> MaskedBatch:
    """Corrupt every row of `batch` (its `row_ids` `[B]` choose the draws) for prediction."""
    length = batch.tokens.shape[1]
    count = masked_positions_per_row(length, rule.rate)

    def row(tokens: Array, segment_ids: Array, row_id: Array) -> tuple[Array, ...]:
        draw, random = jax.random.split(jax.random.fold_in(key, row_id))
        r = jax.random.uniform(draw, (length,))
        chosen = (r < rule.rate) & (segment_ids > 0)
        for special in rule.special_tokens:
            chosen &= tokens != special
        chosen &= jnp.cumsum(chosen) <= count
        drawn = jax.random.randint(random, (length,), 0, len(rule.random_tokens))
        noise = jnp.asarray(rule.random_tokens, jnp.int32)[drawn]
        inputs = jnp.where(chosen & (r < 0.9 * rule.rate), noise, tokens)
        inputs = jnp.where(chosen & (r < 0.8 * rule.rate), rule.mask_token, inputs)
        (where,) = jnp.nonzero(chosen, size=count, fill_value=0)
        used = jnp.arange(count) < chosen.sum()
        return inputs, where.astype(jnp.int32), tokens[where], used.astype(jnp.float32)

    rows = map(jnp.asarray, (batch.tokens, batch.segment_ids, batch.row_ids))
    inputs, where, targets, weights = jax.vmap(row)(*rows)
    return MaskedBatch(inputs, batch.segment_ids, batch.positions, where, targets, weights)
