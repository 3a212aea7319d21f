# SPDX-License-Identifier: Apache-2.0
"""What sits on the encoder: masked LM, sequence classification, token classification."""

import jax
import jax.numpy as jnp
from flax import nnx

from bcmb_jax.linear import linear
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.modernbert import INIT_STD, LayerNorm, Linear, ModernBert, gelu


class PredictionHead(nnx.Module):
    """dense, gelu, norm, in this order."""

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        hidden = (config.hidden_size,)
        self.dense = Linear(hidden, hidden, INIT_STD, dtype, rngs)
        self.norm = LayerNorm(config.hidden_size, config.norm_eps)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(gelu(self.dense(x)))


class DecoderBias(nnx.Module):
    """The decoder's own parameter; its weight is the token table."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        # Not zeros: upstream leaves PyTorch's default for a Linear's bias (RECIPE §2).
        bound = config.hidden_size**-0.5
        self.bias = nnx.Param(
            jax.random.uniform(rngs.params(), (config.vocab_size,), minval=-bound, maxval=bound)
        )


class ModernBertForMaskedLM(nnx.Module):
    """Encoder, prediction head and tied decoder; `options` are those of `ModernBert`."""

    def __init__(
        self, config: ModelConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs, **options
    ):
        self.model = ModernBert(config, dtype=dtype, rngs=rngs, **options)
        self.head = PredictionHead(config, dtype, rngs)
        self.decoder = DecoderBias(config, rngs)
        self.dtype = dtype

    def __call__(self, tokens: jax.Array, segment_ids: jax.Array, positions: jax.Array):
        """`[B, L, vocab_size]` fp32 logits at every position (training gathers them first)."""
        x = self.head(self.model(tokens, segment_ids, positions))
        logits = linear(x, self.decoder_weight, self.dtype)
        return logits + self.decoder.bias[...].reshape(1, 1, -1)

    def hidden_at(
        self,
        tokens: jax.Array,
        segment_ids: jax.Array,
        positions: jax.Array,
        places: jax.Array,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """`[B, K, hidden]`: the head's output at `places` `[B, K]` of each row, ready to decode."""
        x = self.model(tokens, segment_ids, positions, dropout_keys)
        return self.head(jnp.take_along_axis(x, places[..., None], axis=1))

    @property
    def decoder_weight(self) -> jax.Array:
        """`[vocab_size, hidden]`: the token table."""
        return self.model.embeddings.tok_embeddings.weight[...]
