# SPDX-License-Identifier: Apache-2.0
"""What all cases of one benchmark share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from bcmb_jax.device import DTYPES
from bcmb_jax.model.config import ModelConfig


class Setting(NamedTuple):
    """Attributes:
    size: the name of `config`.
    precision: a key of `DTYPES`, for both sides.
    implementation: of our attention.
    ways: of PyTorch's, that race to be the peer; none: no comparison.
    rounds, burst: of `timing.race`.
    """

    size: str
    config: ModelConfig
    precision: str
    implementation: str
    ways: Sequence[str]
    rounds: int
    burst: int

    @property
    def dtype(self) -> jnp.dtype:
        return DTYPES[self.precision]

    def facts(self) -> dict[str, Any]:
        """For the report."""
        return {
            "size": self.size,
            "precision": self.precision,
            "attention": self.implementation,
        }
