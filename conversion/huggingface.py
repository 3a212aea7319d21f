# SPDX-License-Identifier: Apache-2.0
"""Read Hugging Face folders and hub ids (safetensors or `.bin`), and write safetensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bcmb_jax.data import hub
from bcmb_jax.data.tokenize import TOKENIZER_FILES
from bcmb_jax.errors import InputError
from bcmb_jax.files import write_json
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import Head
from conversion import torch_files
from conversion.config_json import FolderConfig, config_json, read_config, read_json
from conversion.mapping import table, to_ours, to_stored, untied

WEIGHTS = "model.safetensors"
LAYOUTS = (
    ("model.safetensors.index.json", True),
    (WEIGHTS, False),
    ("pytorch_model.bin.index.json", True),
    ("pytorch_model.bin", False),
)
"""Where a folder may have its weights, best first: an index of several files, or one file."""


class StoredWeights(NamedTuple):
    """Parameters, float32, and how they were stored; mixed types count as float32."""

    params: dict[str, np.ndarray]
    head: Head
    dtype: str


def snapshot(hub_id: str) -> Path:
    """Return the folder of a hub id in the local cache, fetched if possible.

    Raises:
      InputError: it cannot be had, or it does not look like an id.
    """
    patterns = ("config.json", "model*.safetensors*", *TOKENIZER_FILES)
    folder = hub.snapshot(hub_id, "model", patterns)
    if not list(folder.glob("model*.safetensors")):
        folder = hub.snapshot(hub_id, "model", (*patterns, "pytorch_model*.bin*"))
    return folder


def read_folder(folder: Path) -> tuple[StoredWeights, FolderConfig]:
    """Read a folder's weights (one file or several, safetensors or `.bin`) and its config.

    Raises:
      InputError: a file is missing or damaged, or the tensors are not those of the config.
    """
    content = read_config(folder)
    stored: dict[str, np.ndarray] = {}
    for file in _files(folder):
        tensors = _read_file(file)
        twice = sorted(stored.keys() & tensors.keys())
        if twice:
            raise InputError(f"{file} holds {twice[0]}, which another file of its folder holds too")
        stored.update(tensors)
    stored = _with_our_names(stored, str(folder))
    head = content.head(stored, str(folder))
    types = {x.dtype.name for x in stored.values()}
    params = to_ours(stored, table(content.config, head), str(folder))
    return StoredWeights(params, head, types.pop() if len(types) == 1 else "float32"), content


def _files(folder: Path) -> list[Path]:
    for name, several in LAYOUTS:
        if (folder / name).is_file():
            names = [name]
            if several:
                index = read_json(folder / name)
                try:
                    names = sorted(set(index["weight_map"].values()))
                except (KeyError, TypeError, AttributeError):
                    raise InputError(f"{folder / name} has no weight_map") from None
            outside = [name for name in names if Path(name).name != name]
            if outside:
                raise InputError(f"{folder / name} names {outside[0]}, outside its folder")
            return [folder / name for name in names]
    raise InputError(f"{folder} has no {WEIGHTS}, nor {LAYOUTS[-1][0]}; is it a model's folder?")


def _read_file(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise InputError(f"{file.parent} has no {file.name}, which its index names")
    if file.suffix == ".bin":
        tensors = torch_files.load(file)
        if not isinstance(tensors, dict):
            raise InputError(f"{file} holds a {type(tensors).__name__}, not tensors by name")
        wrong = [name for name, x in tensors.items() if not hasattr(x, "numpy")]
        if wrong:
            raise InputError(f"{file}: {wrong[0]} is not a tensor")
        return {str(name): torch_files.array(x) for name, x in tensors.items()}
    try:
        with safe_open(file, "np") as opened:
            names = opened.keys()  # no mapping: it cannot be iterated over
            return {name: opened.get_tensor(name) for name in names}
    except (SafetensorError, TypeError, AttributeError, ValueError, OSError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _with_our_names(stored: dict[str, np.ndarray], origin: str) -> dict[str, np.ndarray]:
    """Add the `model.` that an encoder saved alone lacks, and drop a tied decoder's copy."""
    if not any(name.startswith("model.") for name in stored):
        heads = ("head.", "decoder.", "classifier.")
        stored = {n if n.startswith(heads) else f"model.{n}": x for n, x in stored.items()}
    return untied(stored, origin)


def name_tensors(
    params: Mapping[str, np.ndarray], config: ModelConfig, head: Head
) -> dict[str, np.ndarray]:
    """Return parameters as transformers names and shapes them, float32."""
    stored = to_stored(params, table(config, head))
    if head.kind == "encoder":  # alone, without "model." in front
        return {name.removeprefix("model."): x for name, x in stored.items()}
    return stored


def write_model(
    folder: Path,
    config: ModelConfig,
    head: Head,
    params: Mapping[str, np.ndarray],
    token_ids: Mapping[str, int | None],
    dtype: str = "float32",
) -> None:
    """Write config.json and model.safetensors into an existing folder."""
    write_json(folder / "config.json", config_json(config, token_ids, head, dtype))
    stored = name_tensors(params, config, head)
    if dtype != "float32":
        stored = {name: x.astype(dtype) for name, x in stored.items()}
    save_file(stored, folder / WEIGHTS, metadata={"format": "pt"})
