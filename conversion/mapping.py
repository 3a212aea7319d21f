# SPDX-License-Identifier: Apache-2.0
"""The table of tensors, read in both directions.

Names and bytes are those of Hugging Face's checkpoints; three kinds of tensors are viewed with more
axes here (heads, and the two halves of the MLP's input), so that conversion never moves a number.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import Head

LISTED = 8  # names an error shows of each kind
MASKED_LM = Head()
DECODER, TOKEN_TABLE = "decoder.weight", "model.embeddings.tok_embeddings.weight"
READABLE = ("float32", "float16", "bfloat16")


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
    rows = tuple(rows)
    vectors = [row.name for row in rows if len(row.stored) == 1]
    return vectors, [row.name for row in rows if row.name not in vectors]


def untied(stored: Mapping[str, np.ndarray], origin: str) -> dict[str, np.ndarray]:
    """Return the tensors without a decoder weight that was written out beside the token table.

    Raises:
      InputError: it is not the token table.
    """
    rest = {name: x for name, x in stored.items() if name != DECODER}
    tokens = stored.get(TOKEN_TABLE)
    if len(rest) < len(stored) and tokens is not None:
        if not np.array_equal(stored[DECODER], tokens):
            raise InputError(
                f"{origin}: decoder.weight is not the token table; only tied decoders exist here"
            )
        return rest
    return dict(stored)


def to_ours(
    stored: Mapping[str, np.ndarray], rows: Iterable[Row], origin: str
) -> dict[str, np.ndarray]:
    """Convert tensors as stored to parameters, float32; every tensor is used exactly once.

    Raises:
      InputError: tensors are missing, unexpected, of another shape, not floating point, or hold
        NaN or infinity.
    """
    rows = tuple(rows)
    check_complete({name: x.shape for name, x in stored.items()}, rows, origin)
    wrong = [f"{n} {x.dtype}" for n, x in stored.items() if x.dtype.name not in READABLE]
    if wrong:
        raise InputError(f"{origin}: {_some(wrong)} not in {', '.join(READABLE)}; save as float32")
    params = {row.name: _float32(stored[row.name]).reshape(row.shape) for row in rows}
    check_finite(params, origin)
    return params


def to_stored(params: Mapping[str, Any], rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """Convert parameters to tensors as stored, float32.

    Raises:
      InputError: they are not those of the table.
    """
    rows = tuple(rows)
    here = tuple(Row(row.name, row.stored, row.shape) for row in rows)
    check_complete({name: x.shape for name, x in params.items()}, here, "the model")
    return {row.name: _float32(params[row.name]).reshape(row.stored) for row in rows}


def check_complete(shapes: Mapping[str, tuple[int, ...]], rows: Iterable[Row], origin: str) -> None:
    """Compare the names and shapes in `origin` with `stored` of the table, both ways.

    Raises:
      InputError: one line with everything that differs.
    """
    expected = {row.name: row.stored for row in rows}
    missing = [name for name in expected if name not in shapes]
    unexpected = [name for name in shapes if name not in expected]
    misshapen = [
        f"{name} is {list(shapes[name])} and should be {list(shape)}"
        for name, shape in expected.items()
        if name in shapes and tuple(shapes[name]) != shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    problems = [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names]
    if problems:
        raise InputError(
            f"{origin} does not have the {len(expected)} tensors that its config asks for; "
            + "; ".join(problems)
        )


def check_finite(params: Mapping[str, np.ndarray], origin: str) -> None:
    """Raise `InputError` where a tensor holds NaN or infinity."""
    wrong = [name for name, x in params.items() if not np.isfinite(x).all()]
    if wrong:
        raise InputError(
            f"{origin} holds NaN or infinity in {len(wrong)} of {len(params)} tensors: "
            f"{_some(wrong)}; take an earlier checkpoint"
        )


def _some(names: list[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _float32(x: Any) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(x), dtype=np.float32)
