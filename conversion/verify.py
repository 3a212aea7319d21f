# SPDX-License-Identifier: Apache-2.0
"""Proof that a written model is the one that was read: every bit, and the same logits."""

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bcmb_jax.errors import InputError
from conversion.pretrained import PretrainedModel
from conversion.weights import Weights, read

# Of the largest logit (at least 1). Two fp32 programs differ by rounding alone: 1e-6 on random
# weights, more on trained ones, whose activations have outliers. The smallest mistake we know of, a
# window off by one, moves a tiny random model's logits by 0.05 and more.
LOGIT_TOLERANCE = 1e-3
LONG = 2048  # tokens: far beyond a window, and a base model's logits are then 0.4 GB

Logits = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""`(tokens, segment_ids)`, `[B, L]` int32 each → `[B, L, V]` float32."""


class Differences(NamedTuple):
    """What is left between two models.

    Attributes:
      tensors: how many were compared, bit by bit.
      worst_tensor, tensor: where their elements differ most, and by how much.
      logits: by what was compared with: the largest difference, and the input it is on.
    """

    tensors: int
    worst_tensor: str
    tensor: float
    logits: dict[str, tuple[float, str]]


def verify(source: Weights, written: Path) -> Differences:
    """Read `written` again; compare it with `source`, and with transformers where there is torch.

    Raises:
      InputError: they are not the same model.
    """
    again = read(written)
    # Training dropout has no place in Hugging Face's config.
    dropout = source.config.attention_output_dropout
    if dataclasses.replace(again.config, attention_output_dropout=dropout) != source.config:
        raise InputError(f"verification failed: config {again.config} is not {source.config}")
    tensor, worst = compare_tensors(source.params, again.params)
    peers = {"original": jax_logits(source)}
    folder = again.folder or source.folder
    if folder is not None and torch_is_here():
        peers["transformers"] = transformers_logits(folder)
    logits = compare_logits(jax_logits(again), peers, make_inputs(source))
    return Differences(len(source.params), worst, tensor, logits)


def torch_is_here() -> bool:
    return all(map(importlib.util.find_spec, ("torch", "transformers")))


def compare_tensors(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]
) -> tuple[float, str]:
    """The largest difference between elements, and its tensor.

    Raises:
      InputError: a name, a shape or a bit differs.
    """
    differences = {name: np.abs(x - theirs[name]).max() for name, x in ours.items()}
    worst = max(differences, key=lambda name: differences[name])
    changed = [
        name for name, x in ours.items() if x.tobytes() != np.asarray(theirs[name]).tobytes()
    ]
    if changed or ours.keys() != theirs.keys():
        raise InputError(
            f"verification failed: {len(changed)} of {len(ours)} tensors changed, first "
            f"{changed[:1]}; the largest difference is {differences[worst]:.2e} in {worst}"
        )
    return float(differences[worst]), worst


def compare_logits(
    ours: Logits, peers: Mapping[str, Logits], inputs: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, tuple[float, str]]:
    """The largest difference to each peer at real positions, and the input it is on.

    Raises:
      InputError: one is beyond `LOGIT_TOLERANCE`.
    """
    worst = {name: (-1.0, "") for name in peers}
    for kind, (tokens, segment_ids) in inputs.items():
        real = segment_ids > 0
        here = ours(tokens, segment_ids)[real]
        scale = max(1.0, float(np.abs(here).max()))
        for name, peer in peers.items():
            difference = float(np.abs(here - peer(tokens, segment_ids)[real]).max())
            if not difference <= LOGIT_TOLERANCE * scale:  # so that NaN fails too
                raise InputError(
                    f"verification failed: logits on {kind} input differ by {difference:.2e} from "
                    f"{name} (largest logit {scale:.1f})"
                )
            worst[name] = max(worst[name], (difference, kind))
    return worst


def make_inputs(source: Weights) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random tokens as `(tokens, segment_ids)`: padded rows, a packed row, a long row."""
    # Two shapes, since each is compiled once.
    long = min(LONG, source.config.max_position_embeddings)
    layouts = {
        "padded": ([[40], [250]], 256),
        "packed": ([[5, 150, 1, 90], [130, 100]], 256),
        "long": ([[long]], long),
    }
    rng = np.random.default_rng(0)
    inputs = {}
    for kind, (rows, length) in layouts.items():
        documents = [np.repeat(np.arange(1, len(row) + 1), row) for row in rows]
        segment_ids = np.stack([np.pad(row, (0, length - len(row))) for row in documents])
        tokens = rng.integers(0, source.config.vocab_size, segment_ids.shape, dtype=np.int32)
        inputs[kind] = tokens, segment_ids.astype(np.int32)
    return inputs


def jax_logits(weights: Weights) -> Logits:
    model = PretrainedModel(weights, precision="fp32")
    return lambda tokens, segment_ids: np.asarray(model(tokens, segment_ids))


def transformers_logits(folder: Path) -> Logits:
    """transformers' own model: padded rows with its attention mask, packed documents one by one."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.ModernBertForMaskedLM.from_pretrained(folder).float().eval()

    def run(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            inputs = (torch.from_numpy(x.astype(np.int64)) for x in (tokens, mask))
            return model(*inputs).logits.numpy()

    def logits(tokens: np.ndarray, segment_ids: np.ndarray) -> np.ndarray:
        if segment_ids.max() == 1:
            return run(tokens, segment_ids)
        out = np.zeros((*tokens.shape, model.config.vocab_size), np.float32)
        for row, segments in enumerate(segment_ids):
            for segment in range(1, segments.max() + 1):
                of = segments == segment
                out[row, of] = run(tokens[row : row + 1, of], np.ones((1, of.sum())))[0]
        return out

    return logits
