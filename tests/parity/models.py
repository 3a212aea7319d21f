# SPDX-License-Identifier: Apache-2.0
"""The same random ModernBERT twice: transformers' own (PyTorch), and ours.

Importing this skips the importing test module where torch is not installed.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bcmb_jax.attention.mask import segment_positions
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import merge, split
from conversion.config_json import config_json
from conversion.mapping import table, to_ours

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
transformers = pytest.importorskip("transformers")

# Sizes that are all different, so that no two axes can be mistaken for one another.
NARROW = ModelConfig(
    vocab_size=211,
    hidden_size=48,
    num_hidden_layers=4,
    num_attention_heads=3,
    intermediate_size=40,
    attention_output_dropout=0.0,
)


def torch_model(config: ModelConfig = NARROW, *, seed: int = 0, tails: float = 0.0) -> Any:
    """transformers' masked LM in float32 with random weights, none of them 0 or 1.

    Args:
      tails: degrees of freedom of Student's t for the weights, like those that training leaves;
        0 for a normal distribution.
    """
    values = transformers.ModernBertConfig(**config_json(config, {}))
    model = transformers.ModernBertForMaskedLM(values).eval()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            shape = parameter.shape
            draw = rng.standard_t(tails, shape) if tails else rng.normal(size=shape)
            if name.endswith("norm.weight"):
                draw = 1 + 0.2 * draw
            elif parameter.ndim == 2:
                draw *= shape[1] ** -0.5
            parameter.copy_(torch.from_numpy(draw))
    return model


def our_parameters(model: Any, config: ModelConfig = NARROW) -> dict[str, np.ndarray]:
    """Its weights under our shapes."""
    stored = {name: x.detach().numpy() for name, x in model.named_parameters()}
    return to_ours(stored, table(config), "transformers")


def our_graph(config: ModelConfig = NARROW, dtype: Any = jnp.float32) -> nnx.GraphDef:
    return split(lambda: ModernBertForMaskedLM(config, dtype=dtype, rngs=nnx.Rngs(0)))[0]


def our_logits(
    params: dict[str, np.ndarray],
    tokens: np.ndarray,
    segment_ids: np.ndarray,
    config: ModelConfig = NARROW,
    dtype: Any = jnp.float32,
) -> np.ndarray:
    """`[B, L, V]` float32."""
    graph = our_graph(config, dtype)
    positions = segment_positions(jnp.asarray(segment_ids))
    run = jax.jit(lambda params, *batch: merge(graph, params)(*batch))
    return np.asarray(run(params, tokens, segment_ids, positions))


def torch_logits(model: Any, tokens: np.ndarray, segment_ids: np.ndarray) -> np.ndarray:
    """`[B, L, V]`: rows of one document with transformers' padding, packed documents each alone."""
    with torch.no_grad():
        ids = torch.from_numpy(tokens.astype(np.int64))
        if segment_ids.max() == 1:
            mask = torch.from_numpy(segment_ids.astype(np.int64))
            return model(ids, mask).logits.double().numpy()
        out = np.zeros((*tokens.shape, model.config.vocab_size))
        for row, segments in enumerate(segment_ids):
            for segment in range(1, segments.max() + 1):
                of = segments == segment
                out[row, of] = model(ids[row : row + 1, of]).logits[0].double().numpy()
        return out


def random_rows(*rows: list[int], length: int, config: ModelConfig = NARROW, seed: int = 1):
    """`(tokens, segment_ids)` `[B, length]`: each row is the lengths of its documents."""
    ids = [np.repeat(np.arange(1, len(row) + 1), row) for row in rows]
    segment_ids = np.stack([np.pad(row, (0, length - len(row))) for row in ids]).astype(np.int32)
    tokens = np.random.default_rng(seed).integers(0, config.vocab_size, segment_ids.shape)
    return tokens.astype(np.int32), segment_ids
