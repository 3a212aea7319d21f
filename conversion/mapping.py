# SPDX-License-Identifier: Apache-2.0
"""The table of tensors, read in both directions.

Names and bytes are those of Hugging Face's checkpoints; three kinds of tensors are viewed with more
axes here (heads, and the two halves of the MLP's input), so that conversion never moves a number.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bcmb_jax.agreements import Agreements
from bcmb_jax.errors import InputError, NumericsError, reason
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import Head
from bcmb_jax.optimizer import StableAdamWState

LISTED = 8  # names an error shows of each kind
MASKED_LM = Head()
DECODER, TOKEN_TABLE = "decoder.weight", "model.embeddings.tok_embeddings.weight"
READABLE = ("float32", "float16", "bfloat16")


class Weights(NamedTuple):
    """A model as host arrays by checkpoint name, float32.

    Attributes:
      token_ids: of special tokens by role (cls, sep, pad, …), as far as they are known.
      tokenizer: the folder of its tokenizer, if it has one.
      origin: where it was read from, for messages and manifests.
      dtype: of the stored tensors, whose values these are; written again as that.
      opt_state: the optimizer's state, in checkpoints from training.
      meta: what else a checkpoint says (JSON): `progress`, `config` of its run, `data` it has
        seen, `tokenizer_reviewed` (the fingerprint of a tokenizer that was looked at for names),
        and the rest of a `composer` file.
      folder: the Hugging Face folder it was read from, which transformers can read too.
      agreements: those of all data it was trained on; empty where there is no record of them.
    """

    config: ModelConfig
    params: dict[str, np.ndarray]
    token_ids: dict[str, int | None]
    tokenizer: Path | None = None
    origin: str = ""
    head: Head = MASKED_LM
    dtype: str = "float32"
    opt_state: StableAdamWState | None = None
    meta: Mapping[str, Any] = {}
    folder: Path | None = None
    agreements: Agreements = ()


class Row(NamedTuple):
    """A tensor of the model.

    Attributes:
      name: the same on both sides.
      shape: here.
      stored: there, PyTorch's `[out, in]`.
    """

    name: str
    shape: tuple[int, ...]
    stored: tuple[int, ...]


def table(config: ModelConfig, head: Head = MASKED_LM) -> tuple[Row, ...]:
    """List every tensor of a model; the decoder's weight is the token table and has no row."""
    hidden, inner = config.hidden_size, config.intermediate_size
    heads = (config.num_attention_heads, config.head_size)

    def same(name: str, *shape: int) -> Row:
        return Row(name, shape, shape)

    rows = [
        same(TOKEN_TABLE, config.vocab_size, hidden),
        same("model.embeddings.norm.weight", hidden),
    ]
    for index in range(config.num_hidden_layers):
        layer = f"model.layers.{index}"
        if index:
            rows.append(same(f"{layer}.attn_norm.weight", hidden))
        rows += [
            Row(f"{layer}.attn.Wqkv.weight", (3, *heads, hidden), (3 * hidden, hidden)),
            Row(f"{layer}.attn.Wo.weight", (hidden, *heads), (hidden, hidden)),
            same(f"{layer}.mlp_norm.weight", hidden),
            Row(f"{layer}.mlp.Wi.weight", (2, inner, hidden), (2 * inner, hidden)),
            same(f"{layer}.mlp.Wo.weight", hidden, inner),
        ]
    rows.append(same("model.final_norm.weight", hidden))
    if head.kind != "encoder":
        rows += [same("head.dense.weight", hidden, hidden), same("head.norm.weight", hidden)]
    if head.kind == "masked_lm":
        rows.append(same("decoder.bias", config.vocab_size))
    if head.classifies:
        labels = len(head.labels)
        rows += [same("classifier.weight", labels, hidden), same("classifier.bias", labels)]
    return tuple(rows)


def decay_groups(rows: Iterable[Row]) -> tuple[list[str], list[str]]:
    """Return names by upstream's parameter groups: vectors, which are not decayed, and matrices."""
    groups: tuple[list[str], list[str]] = [], []
    for row in rows:
        groups[len(row.stored) > 1].append(row.name)
    return groups


def untied(stored: Mapping[str, np.ndarray], origin: str) -> dict[str, np.ndarray]:
    """Return the tensors without the decoder's weight, which is the token table.

    A file may hold the table under either name (safetensors' `save_model` keeps the first), or
    under both.

    Raises:
      InputError: the two are not equal.
    """
    tensors = dict(stored)
    if DECODER in tensors:
        decoder = tensors.pop(DECODER)
        tokens = tensors.setdefault(TOKEN_TABLE, decoder)
        if tokens is not decoder and not np.array_equal(tokens, decoder):
            raise InputError(
                f"{origin}: decoder.weight is not the token table; only tied decoders exist here"
            )
    return tensors


def to_ours(
    stored: Mapping[str, np.ndarray], rows: Iterable[Row], origin: str
) -> dict[str, np.ndarray]:
    """Convert tensors as stored to parameters, float32; every tensor is used exactly once.

    Raises:
      InputError: tensors are missing, unexpected, of another shape or not floating point.
      NumericsError: tensors hold NaN or infinity.
    """
    rows = tuple(rows)
    check_complete(stored, {row.name: row.stored for row in rows}, origin)
    wrong = [f"{n} {x.dtype}" for n, x in stored.items() if x.dtype.name not in READABLE]
    if wrong:
        raise InputError(f"{origin}: {some(wrong)} not in {', '.join(READABLE)}; save as float32")
    params = {row.name: _float32(stored[row.name]).reshape(row.shape) for row in rows}
    check_finite(params, origin)
    return params


def to_stored(params: Mapping[str, Any], rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """Convert parameters to tensors as stored, float32.

    Raises:
      InputError: they are not those of the table.
    """
    rows = tuple(rows)
    check_complete(params, {row.name: row.shape for row in rows}, "the model")
    return {row.name: _float32(params[row.name]).reshape(row.stored) for row in rows}


def check_complete(
    tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], origin: str
) -> None:
    """Compare names and shapes of the tensors in `origin` with those expected, both ways.

    Raises:
      InputError: one line with everything that differs.
    """
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    misshapen = [
        f"{name} is {list(tensors[name].shape)} and should be {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    problems = [f"{len(names)} {kind}: {some(names)}" for kind, names in kinds if names]
    if problems:
        raise InputError(
            f"{origin} does not have the {len(expected)} tensors that its config asks for; "
            + "; ".join(problems)
        )


def check_finite(params: Mapping[str, np.ndarray], origin: str) -> None:
    """Raise `NumericsError` where a tensor holds NaN or infinity."""
    wrong = [name for name, x in params.items() if not np.isfinite(x).all()]
    if wrong:
        raise NumericsError(
            f"{origin} holds NaN or infinity in {len(wrong)} of {len(params)} tensors: "
            f"{some(wrong)}; take an earlier checkpoint"
        )


def weights_fingerprint(params: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of tensors and their names, in the order of `params`."""
    digest = hashlib.sha256()
    for name, x in params.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(x).data)
    return digest.hexdigest()


@contextlib.contextmanager
def laid_out_as(kind: str, origin: Path) -> Iterator[None]:
    """Raise `InputError` for anything that a file with any value in any place makes readers raise.

    Args:
      kind: what `origin` turns out not to be.
    """
    try:
        yield
    except (InputError, NumericsError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"{origin} is not laid out as {kind} ({type(error).__name__}: {reason(error)})"
        ) from error


def some(names: list[str]) -> str:
    """Return the first names, as an error lists them, and how many more there are."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _float32(x: ArrayLike) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(x), dtype=np.float32)
