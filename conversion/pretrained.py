# SPDX-License-Identifier: Apache-2.0
"""Models to call: weights from anywhere, tokens in, logits out."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bcmb_jax.attention.mask import segment_positions
from bcmb_jax.errors import InputError
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.modernbert import ModernBert
from bcmb_jax.model.parameters import merge, split
from bcmb_jax.precision import compute_dtype
from bcmb_jax.start import Initial
from conversion import weights as files
from conversion.weights import Weights

HEADS = ("masked_lm", "encoder")


class PretrainedModel:
    """A function of tokens with its weights on the device.

    Attributes:
      config: the model's sizes.
      params: checkpoint name → array.
      token_ids: of special tokens by role, as far as they are known.
      tokenizer_directory: the folder of its tokenizer, or None.
      head: "masked_lm" or "encoder".
    """

    def __init__(self, weights: Weights, *, precision: str = ""):
        self.config, self.token_ids = weights.config, weights.token_ids
        self.tokenizer_directory = weights.tokenizer
        self.head = "encoder" if weights.encoder_only else "masked_lm"
        self.params: dict[str, jax.Array] = jax.device_put(weights.params)
        self.dtype = compute_dtype(precision)

    def __call__(
        self, tokens: Any, segment_ids: Any | None = None, positions: Any | None = None
    ) -> jax.Array:
        """Logits `[B, L, vocab_size]`, or hidden states `[B, L, hidden]` of an encoder; float32.

        Args:
          tokens: `[B, L]` int32.
          segment_ids: `[B, L]`, 1, 2, … in contiguous runs, 0 = padding; None: all one segment.
          positions: `[B, L]`; None: from 0 in each segment.

        Raises:
          InputError: the arrays are not of one shape `[B, L]`, or tokens are not in the vocabulary.
        """
        if isinstance(tokens, np.ndarray) and tokens.size:
            low, high = tokens.min(), tokens.max()
            if low < 0 or high >= self.config.vocab_size:
                raise InputError(
                    f"tokens reach from {low} to {high}; the model has {self.config.vocab_size}"
                )
        tokens = jnp.asarray(tokens, jnp.int32)
        rows = [
            tokens,
            *(jnp.asarray(x, jnp.int32) for x in (segment_ids, positions) if x is not None),
        ]
        if tokens.ndim != 2 or any(x.shape != tokens.shape for x in rows):
            raise InputError(
                "tokens, segment_ids and positions must have one shape [rows, length], not "
                + ", ".join(str(x.shape) for x in rows)
            )
        if segment_ids is None:
            segment_ids = jnp.ones_like(tokens)
        if positions is None:
            positions = segment_positions(jnp.asarray(segment_ids, jnp.int32))
        return _apply(
            self.config,
            self.head,
            self.dtype,
            self.params,
            *(jnp.asarray(x, jnp.int32) for x in (tokens, segment_ids, positions)),
        )

    @property
    def weights(self) -> Weights:
        """The weights on the host."""
        host = jax.device_get(self.params)
        return Weights(self.config, host, self.token_ids, self.tokenizer_directory)


def from_pretrained(
    path_or_id: str | Path, head: str = "masked_lm", *, precision: str = ""
) -> PretrainedModel:
    """A model from a Hugging Face folder or hub id, or from a checkpoint or workdir of ours.

    Args:
      head: "masked_lm" gives logits, "encoder" hidden states.
      precision: "bf16", "fp32", or empty to let the device choose.

    Raises:
      InputError: there is no such model, or it lacks the head.
    """
    if head not in HEADS:
        raise InputError(f"head {head!r} is not one of {', '.join(HEADS)}")
    return PretrainedModel(
        files.read(path_or_id, encoder_only=head == "encoder"), precision=precision
    )


def save_pretrained(
    model: PretrainedModel,
    directory: str | Path,
    tokenizer: str | Path | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a folder that transformers 4.48 … 5.x and `from_pretrained` load; all or nothing.

    Args:
      tokenizer: a folder with tokenizer.json; None takes the model's own, if it has one.

    Raises:
      InputError: the folder exists (`overwrite` replaces an earlier export), or the tokenizer does
        not fit.
    """
    weights = model.weights
    if tokenizer is not None:
        weights = weights._replace(tokenizer=Path(tokenizer).expanduser())
    write = functools.partial(files.write_huggingface, weights)
    files.publish(Path(directory), write, overwrite=overwrite)


def load_initial(path_or_id: str | Path) -> Initial:
    """What `bcmb_jax.train.train` can start from; with moments if the checkpoint has them."""
    weights = files.read(path_or_id)
    return Initial(weights.params, weights.opt_state, weights.tokenizer)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _apply(config, head, dtype, params, tokens, segment_ids, positions) -> jax.Array:
    encoder_only = head == "encoder"
    make = ModernBert if encoder_only else ModernBertForMaskedLM
    graph, _ = split(lambda: make(config, dtype=dtype, rngs=nnx.Rngs(0)))
    if encoder_only:
        params = {name.removeprefix("model."): x for name, x in params.items()}
    return merge(graph, params)(tokens, segment_ids, positions)
