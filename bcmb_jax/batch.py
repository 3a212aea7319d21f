# SPDX-License-Identifier: Apache-2.0
"""Rows of packed documents, as data gives them to the model."""

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:  # preparing data does without jax
    import jax

HostOrDevice: TypeAlias = "np.ndarray | jax.Array"


class Batch(NamedTuple):
    """Packed rows; numpy on the host, `jax.Array` on the mesh.

    `B` rows of `L` tokens. A document (or a piece of one) is a *segment*: `[CLS] tokens [SEP]`.
    """

    tokens: HostOrDevice
    """`[B, L]` int32 token ids; padding holds the tokenizer's pad id."""
    segment_ids: HostOrDevice
    """`[B, L]` int32: 1, 2, … within the row; 0 is padding."""
    positions: HostOrDevice
    """`[B, L]` int32: position in the segment, restarting at 0; 0 in padding."""
    row_ids: HostOrDevice
    """`[B]` int32: the row's number since the start of training, on any number of processes."""
