# SPDX-License-Identifier: Apache-2.0
"""The fields of Hugging Face's ModernBertConfig that the architecture reads."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from bcmb_jax.errors import InputError

MOST = {
    "vocab_size": 2**22,
    "hidden_size": 2**14,
    "num_hidden_layers": 2**9,
    "num_attention_heads": 2**10,
    "intermediate_size": 2**16,
    "local_attention": 2**20,
    "global_attn_every_n_layers": 2**20,
    "max_position_embeddings": 2**20,
}
"""The largest sizes: what a file claims decides how much is allocated."""


def check_sizes(values: Mapping[str, object], prefix: str = "") -> None:
    """Raise `InputError` where a config names a size above `MOST`."""
    for name, most in MOST.items():
        value = values.get(name, 0)
        if isinstance(value, int | float) and value > most:
            raise InputError(f"{prefix}{name} is {value:,}; at most {most:,} is read here")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes and constants of one model.

    Names and defaults are those of transformers' `ModernBertConfig`, whose config.json may leave a
    key out; unknown keys are refused.

    Raises:
      InputError: sizes that do not fit together.
    """

    vocab_size: int = 50368
    hidden_size: int = 768
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    intermediate_size: int = 1152
    local_attention: int = 128
    global_attn_every_n_layers: int = 3
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    max_position_embeddings: int = 8192
    attention_output_dropout: float = 0.1
    """Training only, after attention's output projection: the one dropout upstream trains with
    (FlexBERT `attn_out_dropout_prob`; not Hugging Face's `attention_dropout`)."""
    hidden_activation: str = dataclasses.field(default="gelu", metadata={"added_later": True})
    """In the MLP, "gelu" or "silu"; the head's is GELU. Older runs do not name it."""

    def __post_init__(self) -> None:
        check_sizes(dataclasses.asdict(self), "model.")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("attention_output_dropout", "hidden_activation"):
                continue
            if not value > 0:
                raise InputError(f"model.{field.name} is {value}; it must be positive")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise InputError(
                f"model.hidden_size {self.hidden_size} over {self.num_attention_heads} heads "
                "is not an even head size; change one of them"
            )
        if self.hidden_activation not in ("gelu", "silu"):
            raise InputError(
                f"model.hidden_activation {self.hidden_activation!r} is neither 'gelu' nor 'silu'"
            )
        if not 0 <= self.attention_output_dropout < 1:
            raise InputError(
                f"model.attention_output_dropout {self.attention_output_dropout} is not in [0, 1)"
            )

    @property
    def head_size(self) -> int:
        """Elements of one head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def layer_types(self) -> tuple[str, ...]:
        """`("global", "local", "local", "global", …)`: layer `i` is global iff `i % 3 == 0`."""
        every = self.global_attn_every_n_layers
        return tuple("global" if i % every == 0 else "local" for i in range(self.num_hidden_layers))

    @property
    def window(self) -> int:
        """Keys that local layers see on each side, inclusive: 64 for `local_attention` 128."""
        return self.local_attention // 2

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return dataclasses.asdict(self)


BASE = ModelConfig()
LARGE = ModelConfig(
    hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, intermediate_size=2624
)
