# SPDX-License-Identifier: Apache-2.0
"""Small models and packed rows that several tests use."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bcmb_jax.attention.mask import segment_positions
from bcmb_jax.batch import Batch
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import ModernBertForMaskedLM

CONFIG = ModelConfig(
    vocab_size=128,
    hidden_size=32,
    num_hidden_layers=4,
    num_attention_heads=2,
    intermediate_size=48,
    local_attention=16,
)


def masked_lm(config: ModelConfig = CONFIG, **options) -> ModernBertForMaskedLM:
    return ModernBertForMaskedLM(config, rngs=nnx.Rngs(0), **options)


def assert_within(tolerance: float, found: jax.Array, expected: jax.Array) -> None:
    """No element of `found` differs by more than `tolerance` of the largest of `expected`."""
    error = jnp.abs(found.astype(jnp.float32) - expected).max()
    assert error <= tolerance * jnp.abs(expected).max()


def packed_segments(rows: int, length: int, seed: int = 0) -> np.ndarray:
    """`[rows, length]` segments of random lengths, some padding; the last row is all padding."""
    random = np.random.default_rng(seed)
    segment_ids = np.zeros((rows, length), np.int32)
    for row in segment_ids[:-1]:
        start, segment = 0, 1
        while start < 0.9 * length:
            stop = start + int(random.integers(1, length // 2))
            row[start:stop] = segment
            start, segment = stop, segment + 1
    return segment_ids


def packed_batch(rows: int, length: int, vocab_size: int = 128, seed: int = 0) -> Batch:
    """Random tokens (ids from 5) in `packed_segments`."""
    random = np.random.default_rng(seed)
    segment_ids = packed_segments(rows, length, seed)
    tokens = random.integers(5, vocab_size, (rows, length)).astype(np.int32)
    tokens[segment_ids == 0] = 0
    positions = np.asarray(segment_positions(segment_ids))
    return Batch(tokens, segment_ids, positions, np.arange(rows, dtype=np.int32))
