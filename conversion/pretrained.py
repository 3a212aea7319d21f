# SPDX-License-Identifier: Apache-2.0
"""Models to call: weights from anywhere, strings or tokens in."""

import functools
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from bcmb_jax import hub
from bcmb_jax.agreements import describe, state
from bcmb_jax.attention.mask import segment_positions
from bcmb_jax.device import compute_dtype, products_in, resolve_precision, target
from bcmb_jax.errors import InputError, reason
from bcmb_jax.inference.text_model import TextModel
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import MODELS, Head
from bcmb_jax.model.parameters import Parameters, merge, split
from bcmb_jax.ops.linear import accumulation_dtype
from bcmb_jax.training.initial import Initial
from conversion.export import new_model_folder, write_huggingface
from conversion.flexbert import check_resumable
from conversion.mapping import Weights
from conversion.weights import read, with_head

log = logging.getLogger(__name__)

HISTORY = ("progress", "tokenizer_reviewed")
"""Parts of a checkpoint's meta that stay true of its parameters."""


class PretrainedModel(TextModel):
    """A model on the device; its methods take strings, and calling it computes outputs of tokens.

    Attributes:
      token_ids: of special tokens by role, as far as they are known.
      agreements: those of all data that it was trained on.
    """

    def __init__(self, weights: Weights, dtype: jnp.dtype, precision: str = "fp32"):
        kept = accumulation_dtype(dtype)
        super().__init__(
            weights.config,
            {name: jnp.asarray(x, kept) for name, x in weights.params.items()},
            weights.head,
            origin=weights.origin,
            tokenizer_directory=weights.tokenizer,
            dtype=dtype,
            precision=precision,
        )
        self.token_ids, self.agreements = weights.token_ids, weights.agreements
        self._history = {key: weights.meta[key] for key in HISTORY if key in weights.meta}

    def __call__(
        self,
        tokens: ArrayLike,
        segment_ids: ArrayLike | None = None,
        positions: ArrayLike | None = None,
        num_segments: int = 1,
    ) -> jax.Array:
        """Return the outputs of the head, float32.

        These are logits `[B, L, vocab_size]` of a masked LM, hidden states `[B, L, hidden]` of an
        encoder, logits `[B, L, labels]` of a token classifier or `[B, S, labels]` of a sequence
        classifier.

        Args:
          tokens: `[B, L]` int32.
          segment_ids: `[B, L]`, 1, 2, … in contiguous runs, 0 = padding; None: all one segment.
          positions: `[B, L]`; None: from 0 in each segment.
          num_segments: S, the documents a row may hold, for a sequence classifier.

        Raises:
          InputError: the arrays are not of one shape `[B, L]`, or tokens are not whole numbers or
            not in the vocabulary.
        """
        self._check_tokens(tokens)
        given = [x for x in (tokens, segment_ids, positions) if x is not None]
        shapes = [np.shape(x) for x in given]
        if len(shapes[0]) != 2 or len(set(shapes)) > 1:
            raise InputError(
                "tokens, segment_ids and positions must have one shape [rows, length], not "
                + ", ".join(map(str, shapes))
            )
        ids = jnp.asarray(tokens, jnp.int32)
        segments = jnp.asarray(1 if segment_ids is None else segment_ids, jnp.int32)
        segments = jnp.broadcast_to(segments, ids.shape)
        places = segment_positions(segments) if positions is None else positions
        batch = (ids, segments, jnp.asarray(places, jnp.int32))
        with products_in(self.precision):
            outputs: jax.Array = compute(
                self.config, self.head, self.dtype, num_segments, self.params, *batch
            )
        return outputs

    def _check_tokens(self, tokens: ArrayLike) -> None:
        """Refuse ids outside the vocabulary, which XLA would clip, whatever holds them."""
        if isinstance(tokens, jax.core.Tracer):  # inside somebody's jit there are no values yet
            return
        try:
            ids = np.asarray(tokens)
        except ValueError as error:  # lists of different lengths
            raise InputError(f"rows of tokens must have one length ({reason(error)})") from error
        if ids.dtype.kind not in "iu":
            raise InputError(f"tokens are {ids.dtype}; they must be whole numbers")
        if ids.size and not 0 <= ids.min() <= ids.max() < self.config.vocab_size:
            raise InputError(
                f"tokens reach from {ids.min()} to {ids.max()}; the model has "
                f"{self.config.vocab_size}"
            )

    @property
    def weights(self) -> Weights:
        """Weights copied to the host."""
        return Weights(
            self.config,
            jax.device_get(self.params),
            self.token_ids,
            tokenizer=self.tokenizer_directory,
            origin=self.origin,
            head=self.head,
            meta=self._history,
            agreements=self.agreements,
        )


def from_pretrained(
    path_or_id: str | Path,
    head: str | None = "masked_lm",
    *,
    num_labels: int | None = None,
    precision: str = "",
    online: bool = False,
    hub_token_file: str | Path | None = None,
) -> PretrainedModel:
    """Load a model from anything that `conversion.convert` reads.

    The network is used for `hub:OWNER/NAME`, and with `online` for a start by name.

    Args:
      head: "masked_lm", "encoder", "sequence_classification" or "token_classification"; None for
        the source's own; a classifier that it does not have is new, with `num_labels` outputs.
      precision: of the matrix products: "fp32" (also if empty), as in transformers and on every
        device; "bf16", faster on a GPU; or "tf32", for GPUs.
      online: fetch a start by name.
      hub_token_file: holds the token to send to the hub; else none is sent.

    Raises:
      InputError: there is no such model, or the head cannot be had from it; or an unknown
        precision.
    """
    if head is not None and head not in MODELS:
        raise InputError(f"head {head!r} is not one of {', '.join(MODELS)}")
    if not precision and target().platform != "cpu":
        _suggest_bf16()
    precision = resolve_precision(precision or "fp32")
    hub.fetch(path_or_id, online=online, token_file=hub_token_file)
    weights = read(path_or_id)
    if head is not None:
        weights = with_head(weights, head, num_labels)
    return PretrainedModel(weights, compute_dtype(precision), precision)


@functools.cache
def _suggest_bf16() -> None:
    """Say once in a process that a faster precision is there to be asked for."""
    log.warning('models compute in fp32; precision="bf16" is faster on a %s', target().kind)


def save_pretrained(
    model: PretrainedModel,
    directory: str | Path,
    tokenizer: str | Path | None = None,
    *,
    license: str = "",
    overwrite: bool = False,
) -> None:
    """Write a folder that transformers 4.48 … 5.x and `from_pretrained` load; all or nothing.

    Args:
      tokenizer: a folder with tokenizer.json; None takes the model's own, if it has one.
      license: the agreement of training data for which none is on record; "none needed" is one.

    Raises:
      InputError: the folder exists (`overwrite` replaces an earlier export), or the tokenizer does
        not fit.
    """
    weights = model.weights
    weights = weights._replace(agreements=state(weights.agreements, license))
    if tokenizer is not None:
        weights = weights._replace(tokenizer=Path(tokenizer).expanduser())
    with new_model_folder(Path(directory), overwrite=overwrite) as folder:
        write_huggingface(weights, folder, Path(directory).name)
    log.warning("%s: %s", directory, describe(weights.agreements))


def load_initial(name: str | Path) -> Initial:
    """Load what a training run can start from, with moments if the checkpoint has them.

    The network is not used: `hub.fetch` comes before.

    Raises:
      InputError: it is no masked LM, or its optimizer was another than ours.
    """
    weights = with_head(read(name), "masked_lm")
    before = weights.meta.get("composer", {}).get("state", {})
    check_resumable(before.get("optimizers", {}), weights.origin)
    return Initial(
        weights.params, weights.opt_state, weights.tokenizer, weights.config, weights.agreements
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def compute(
    config: ModelConfig,
    head: Head,
    dtype: jnp.dtype,
    num_segments: int,
    params: Parameters,
    *batch: jax.Array,
) -> jax.Array:
    """Return the outputs of a model for tokens, segments and positions, each `[B, L]`."""
    graph, _ = split(lambda: MODELS[head.kind](config, head, dtype=dtype, rngs=nnx.Rngs(0)))
    model = merge(graph, params)
    pools = head.kind == "sequence_classification"
    outputs: jax.Array = model(*batch, num_segments) if pools else model(*batch)
    return outputs
