# SPDX-License-Identifier: Apache-2.0
"""A tiny model as weights and as a folder, for the tests of conversion."""

import json
from pathlib import Path

import numpy as np

from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import Head
from conversion.mapping import MASKED_LM, table
from conversion.weights import Weights

TINY = ModelConfig(
    vocab_size=300,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=24,
    local_attention=16,
    global_rope_theta=5000.0,
    local_rope_theta=700.0,
    max_position_embeddings=128,
)
IDS: dict[str, int | None] = {"cls": 7, "sep": 8, "pad": 9}


def random_weights(config: ModelConfig = TINY, head: Head = MASKED_LM, seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    params = {
        row.name: rng.standard_normal(row.shape, dtype=np.float32) * np.float32(0.3)
        for row in table(config, head)
    }
    return Weights(config, params, IDS, origin="random", head=head)


def same_bits(ours, theirs) -> bool:
    return ours.keys() == theirs.keys() and all(
        np.asarray(x).tobytes() == np.asarray(theirs[name]).tobytes() for name, x in ours.items()
    )


def edit_config(folder: Path, **changes) -> None:
    """Change keys of a folder's config.json; ... removes one."""
    values = json.loads((folder / "config.json").read_text()) | changes
    values = {key: value for key, value in values.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(values))
