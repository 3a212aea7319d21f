# SPDX-License-Identifier: Apache-2.0
"""FLOPs and activation memory of a model, computed from its sizes alone."""

import jax.numpy as jnp
import numpy as np

from bcmb_jax.model.config import ModelConfig

FP32_BYTES = 4


def forward_flops_per_token(config: ModelConfig, lengths: np.ndarray, predicted: float) -> float:
    """Return the model FLOPs of the forward pass for one token of documents of these lengths.

    Counts the layers' matrix products, attention over the keys that a token sees, and head and
    decoder on the `predicted` share of tokens. Forward and backward together take three times as
    many; recomputation is not counted.
    """
    d, f = config.hidden_size, config.intermediate_size
    layers = config.num_hidden_layers * (8 * d * d + 6 * d * f)
    keys = {"global": mean_keys(lengths), "local": mean_keys(lengths, config.window)}
    scores = sum(4 * d * keys[kind] for kind in config.layer_types)
    decoder = predicted * 2 * d * (d + config.vocab_size)
    return layers + scores + decoder


def mean_keys(lengths: np.ndarray, window: int | None = None) -> float:
    """Return how many keys a token sees, averaged over all tokens of documents of these lengths."""
    n = np.asarray(lengths, np.float64)
    pairs = n * n
    if window is not None:
        pairs = np.where(n <= window, pairs, n * (2 * window + 1) - window * (window + 1))
    return float(pairs.sum() / n.sum())


def activation_bytes(config: ModelConfig, row_length: int, dtype: jnp.dtype, remat: bool) -> int:
    """Return the bytes that one row takes on an accelerator at the peak of a training step.

    The sum of what every layer saves for the backward pass
    (`remat.SAVED_ACTIVATIONS_ON_ACCELERATORS`) and of one layer's temporary arrays.
    `make gpu-compile` compares it with XLA's own account of the whole step.
    """
    d, f, wide = config.hidden_size, config.intermediate_size, dtype.itemsize
    attention = wide * d + FP32_BYTES * config.num_attention_heads  # outputs, log-sum-exps
    saved = FP32_BYTES * d + attention
    if not remat:
        saved += FP32_BYTES * d + wide * (5 * d + 3 * f)
    # The residual stream's gradient; GeGLU's input and output, and the gradients of both.
    temporary = FP32_BYTES * d + wide * 6 * f
    return row_length * (config.num_hidden_layers * saved + temporary)
