# SPDX-License-Identifier: Apache-2.0
"""Heads on the encoder: masked LM, sequence classification, token classification."""

import dataclasses
from collections.abc import Callable
from typing import Required, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int, Key

from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.modernbert import (
    INIT_STD,
    Ids,
    LayerNorm,
    Linear,
    ModernBert,
    truncated_normal,
)
from bcmb_jax.ops.geglu import gelu
from bcmb_jax.ops.linear import accumulation_dtype, linear
from bcmb_jax.sharing import LONGEST_LABEL

POOLINGS = ("cls", "mean")


@dataclasses.dataclass(frozen=True)
class Head:
    """Kind and options of a head.

    Attributes:
      kind: a key of `MODELS`.
      labels: names of a classifier's outputs, in their order; empty for the others.
      pooling: how a sequence classifier makes one vector of a document, the "mean" of its tokens or
        the first ("cls"); for other heads, their config's value for later fine-tuning.
      problem_type: transformers' word for a classifier's loss, or empty; exported, not used here.
      thresholds: the probability from which each label holds, where several may; empty for 0.5.

    Raises:
      InputError: there is no such head, no label for a classifier, or one that is a text; or
        thresholds are not one for each label.
    """

    kind: str = "masked_lm"
    labels: tuple[str, ...] = ()
    pooling: str = "mean"
    problem_type: str = ""
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in MODELS:
            raise InputError(f"head {self.kind!r} is not one of {', '.join(MODELS)}")
        if self.pooling not in POOLINGS:
            raise InputError(f"pooling {self.pooling!r} is not one of {', '.join(POOLINGS)}")
        if self.classifies != bool(self.labels):
            raise InputError(f"a {self.kind} head cannot have {len(self.labels)} labels")
        longest = max(map(len, self.labels), default=0)
        if longest > LONGEST_LABEL:
            raise InputError(f"a label has {longest:,} characters, at most {LONGEST_LABEL} are one")
        if self.thresholds and len(self.thresholds) != len(self.labels):
            raise InputError(f"{len(self.thresholds)} thresholds for {len(self.labels)} labels")

    @property
    def classifies(self) -> bool:
        """Whether the head has labels."""
        return self.kind.endswith("_classification")


class Options(TypedDict, total=False):
    """Arguments of `ModernBert` that models with a head pass on."""

    rngs: Required[nnx.Rngs]
    dtype: jnp.dtype
    implementation: str | None
    remat: bool


class PredictionHead(nnx.Module):
    """A dense layer, GELU and a norm, in this order."""

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        shape = (config.hidden_size, config.hidden_size)
        self.dense = Linear("bld,ed->ble", shape, INIT_STD, dtype, rngs)
        self.norm = LayerNorm(config.hidden_size, config.norm_eps)

    @jax.named_scope("head")
    def __call__(self, x: Float[Array, "B P D"]) -> Float[Array, "B P D"]:
        """Return the features, fp32, that a decoder or classifier takes."""
        return self.norm(gelu(self.dense(x).astype(accumulation_dtype(self.dense.dtype))))


class DecoderBias(nnx.Module):
    """The decoder's own parameter; its weight is the token table."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        # Not zeros: upstream leaves PyTorch's default for a Linear's bias (RECIPE §2).
        bound = config.hidden_size**-0.5
        self.bias = nnx.Param(
            jax.random.uniform(rngs.params(), (config.vocab_size,), minval=-bound, maxval=bound)
        )


class ModernBertForMaskedLM(nnx.Module):
    """Encoder, prediction head and tied decoder; arguments are those of `ModernBert`."""

    def __init__(self, config: ModelConfig, head: Head | None = None, **options: Unpack[Options]):
        self.model = ModernBert(config, **options)
        self.dtype = self.model.dtype
        self.head = PredictionHead(config, self.dtype, options["rngs"])
        self.decoder = DecoderBias(config, options["rngs"])

    def __call__(self, tokens: Ids, segment_ids: Ids, positions: Ids) -> Float[Array, "B L V"]:
        """Return fp32 logits at every position (training uses `hidden_at_positions`)."""
        x = self.head(self.model(tokens, segment_ids, positions))
        logits = linear("bld,vd->blv", x, self.decoder_weight, self.dtype)
        return logits + self.decoder.bias[...].reshape(1, 1, -1)

    def hidden_at_positions(
        self,
        tokens: Ids,
        segment_ids: Ids,
        positions: Ids,
        masked_positions: Int[Array | np.ndarray, "B P"],
        dropout_keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B P D"]:
        """Return the head's output at `masked_positions`, ready for the decoder."""
        x = self.model(tokens, segment_ids, positions, dropout_keys)
        return self.head(jnp.take_along_axis(x, masked_positions[..., None], axis=1))

    @property
    def decoder_weight(self) -> Float[Array, "V D"]:
        """The token table."""
        return self.model.embeddings.tok_embeddings.weight[...]


class Encoder(nnx.Module):
    """The encoder alone, its parameters named as in the models with a head."""

    def __init__(self, config: ModelConfig, head: Head, **options: Unpack[Options]):
        self.model = ModernBert(config, **options)

    def __call__(self, tokens: Ids, segment_ids: Ids, positions: Ids) -> Float[Array, "B L D"]:
        """Return the fp32 hidden states."""
        return self.model(tokens, segment_ids, positions)


class Classifier(nnx.Module):
    """A linear classifier with a bias."""

    def __init__(self, config: ModelConfig, labels: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        # As transformers starts a new one.
        std = config.hidden_size**-0.5
        self.weight = truncated_normal(rngs, (labels, config.hidden_size), std)
        self.bias = nnx.Param(jnp.zeros(labels))
        self.dtype = dtype

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N labels"]:
        """Return fp32 logits for each vector of each row."""
        logits = linear("bnd,cd->bnc", x, self.weight[...], self.dtype)
        return logits + self.bias[...].reshape(1, 1, -1)


class ModernBertForTokenClassification(Encoder):
    """Encoder, prediction head and classifier on every token."""

    def __init__(self, config: ModelConfig, head: Head, **options: Unpack[Options]):
        super().__init__(config, head, **options)
        dtype, rngs = self.model.dtype, options["rngs"]
        self.head = PredictionHead(config, dtype, rngs)
        self.classifier = Classifier(config, len(head.labels), dtype, rngs)
        self.pooling = head.pooling

    def __call__(self, tokens: Ids, segment_ids: Ids, positions: Ids) -> Float[Array, "B L labels"]:
        """Return the fp32 logits of every token."""
        return self.classifier(self.head(super().__call__(tokens, segment_ids, positions)))


class ModernBertForSequenceClassification(ModernBertForTokenClassification):
    """Encoder, pooling of each document, prediction head and classifier, in this order."""

    def __call__(
        self, tokens: Ids, segment_ids: Ids, positions: Ids, num_segments: int = 1
    ) -> Float[Array, "B {num_segments} labels"]:
        """Return the fp32 logits of segments 1 … `num_segments` of each row."""
        x = self.model(tokens, segment_ids, positions)
        return self.classifier(self.head(pool(x, segment_ids, num_segments, self.pooling)))


def pool(
    x: Float[Array, "B L D"], segment_ids: Ids, num_segments: int, pooling: str
) -> Float[Array, "B {num_segments} D"]:
    """Return one vector for each of the segments 1 … `num_segments`; zeros where there is none."""
    numbers = jnp.arange(1, num_segments + 1).reshape(1, -1, 1)
    inside = (segment_ids[:, None] == numbers).astype(x.dtype)
    if pooling == "cls":
        inside = jnp.where(jnp.cumsum(inside, axis=-1) == 1, inside, 0)
    sums = jnp.einsum("bsl,bld->bsd", inside, x, precision=lax.Precision.HIGHEST)
    return sums / jnp.maximum(inside.sum(-1, keepdims=True), 1)


MODELS: dict[str, Callable[..., nnx.Module]] = {
    "masked_lm": ModernBertForMaskedLM,
    "encoder": Encoder,
    "sequence_classification": ModernBertForSequenceClassification,
    "token_classification": ModernBertForTokenClassification,
}
"""The module of each kind of head: `MODELS[kind](config, head, dtype=…, rngs=…)`."""
