# SPDX-License-Identifier: Apache-2.0
"""The masked-language-model loss: cross-entropy over the masked tokens, summed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bcmb_jax.ops.cross_entropy import cross_entropy, position_chunks


class LossSums(NamedTuple):
    """Sums over predicted tokens: divide by `weight` for means, add to join batches."""

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    weight: Float[Array, ""]


@jax.named_scope("decoder")
def masked_lm_sums(
    hidden: Float[Array, "B P D"],
    decoder_weight: Float[Array, "V D"],
    decoder_bias: Float[Array, " V"],
    targets: Int[Array | np.ndarray, "B P"],
    loss_weights: Float[Array | np.ndarray, "B P"],
    dtype: jnp.dtype,
) -> LossSums:
    """Return cross-entropy and top-1 hits of the predicted tokens, summed.

    The sum over the whole global batch divided by its number of masked tokens does not depend on
    microbatches or devices.

    Args:
      hidden: the prediction head's output at the `P` predicted positions of each row.
      decoder_weight: fp32, as `decoder_bias`.
      targets: the original tokens there.
      loss_weights: 1, or 0 where a position is unused.
      dtype: of the decoder's operands.
    """
    # Fidelity: upstream averages within each microbatch and weighs microbatches by their number
    # of packed segments (RECIPE §6), so that a masked token's weight depends on its neighbours.
    chunks = position_chunks(hidden.shape, decoder_weight.shape[0])
    predicted = hidden.astype(dtype), decoder_weight, decoder_bias
    scored = jnp.asarray(targets), jnp.asarray(loss_weights)
    loss, correct = cross_entropy(*predicted, *scored, chunks)
    return LossSums(loss, correct, loss_weights.sum())
