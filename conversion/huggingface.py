# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders and hub ids: safetensors in and out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bcmb_jax.data.tokenize import TOKENIZER_FILES
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from conversion.config_json import config_json, read_json, write_json
from conversion.mapping import Row, to_ours, to_stored

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TIED = ("decoder.weight", "model.embeddings.tok_embeddings.weight")
HEADS = ("head.", "decoder.", "classifier.")


def snapshot(hub_id: str) -> Path:
    """The folder of a hub id in the local cache, fetched if it can be.

    Raises:
      InputError: it cannot be had, or it does not look like an id.
    """
    from huggingface_hub import snapshot_download

    if hub_id.startswith(("/", ".", "~")) or hub_id.count("/") > 1:
        raise InputError(f"model folder {hub_id} does not exist")
    wanted = ["config.json", WEIGHTS, INDEX, "model-*.safetensors", *TOKENIZER_FILES]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except Exception as error:  # offline, unknown, gated, malformed: all mean the same to the user
        raise InputError(
            f"model {hub_id} is neither a folder nor a hub id that can be had here "
            f"({type(error).__name__}): give a folder, or fetch it once online"
        ) from error


def read_weights(directory: Path, rows: tuple[Row, ...]) -> dict[str, np.ndarray]:
    """The parameters in a folder's safetensors (one file, or several with an index), float32.

    Raises:
      InputError: a file is missing or damaged, or the tensors are not those of the table.
    """
    if (directory / INDEX).is_file():
        files = sorted(set(read_json(directory / INDEX)["weight_map"].values()))
    else:
        files = [WEIGHTS]
    stored: dict[str, np.ndarray] = {}
    for name in files:
        if not (directory / name).is_file():
            raise InputError(
                f"{directory} has no {name}; save the model with transformers' "
                "save_pretrained(..., safe_serialization=True)"
            )
        try:
            with safe_open(directory / name, "np") as file:
                stored.update({key: file.get_tensor(key) for key in file.keys()})
        except (SafetensorError, TypeError, AttributeError) as error:
            raise InputError(f"{directory / name} cannot be read: {error}") from error
    return to_ours(_with_our_names(stored, rows, directory), rows, str(directory))


def _with_our_names(
    stored: dict[str, np.ndarray], rows: tuple[Row, ...], directory: Path
) -> dict[str, np.ndarray]:
    """The names of a masked-LM checkpoint: an encoder saved alone has no `model.` in front, a tied
    decoder may have been written out, and an encoder is taken out of a model with any head."""
    if not any(name.startswith("model.") for name in stored):
        bare = {row.name.removeprefix("model.") for row in rows if row.name.startswith("model.")}
        stored = {f"model.{n}" if n in bare else n: x for n, x in stored.items()}
    decoder, table = (stored.get(name) for name in TIED)
    if decoder is not None and table is not None:
        if not np.array_equal(decoder, table):
            raise InputError(
                f"{directory}: decoder.weight is not the token table; only tied decoders exist here"
            )
        del stored[TIED[0]]
    if not any(row.name.startswith(HEADS) for row in rows):
        stored = {name: x for name, x in stored.items() if not name.startswith(HEADS)}
    return stored


def write_model(
    directory: Path,
    config: ModelConfig,
    params: Mapping[str, Any],
    rows: tuple[Row, ...],
    token_ids: Mapping[str, int | None],
) -> None:
    """config.json and model.safetensors into an existing folder."""
    encoder_only = not any(row.name.startswith(HEADS) for row in rows)
    values = config_json(config, token_ids, encoder_only=encoder_only)
    write_json(directory / "config.json", values)
    save_file(to_stored(params, rows), directory / WEIGHTS, metadata={"format": "pt"})
