# SPDX-License-Identifier: Apache-2.0
"""Rows of packed documents, as data gives them to the model."""

from typing import Any, NamedTuple


class Batch(NamedTuple):
    """Packed rows; numpy on the host, `jax.Array` on the mesh.

    `B` rows of `L` tokens. A document (or a piece of one) is a *segment*: `[CLS] tokens [SEP]`.
    """

    tokens: Any
    """`[B, L]` int32 token ids; padding holds the tokenizer's pad id."""
    segment_ids: Any
    """`[B, L]` int32: 1, 2, … within the row; 0 is padding."""
    positions: Any
    """`[B, L]` int32: position in the segment, restarting at 0; 0 in padding."""
    row_ids: Any
    """`[B]` int32: the row's number since the start of training, on any number of processes."""
