# SPDX-License-Identifier: Apache-2.0
"""Read Hugging Face folders (safetensors or `.bin`), and write safetensors."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bcmb_jax import agreements
from bcmb_jax.errors import InputError
from bcmb_jax.files import write_json
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import Head
from conversion import torch_files
from conversion.config_json import config_json, read_config, read_json
from conversion.mapping import Weights, laid_out_as, table, to_ours, to_stored, untied
from conversion.model_card import with_manifest

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
LAYOUTS = (
    WEIGHTS,
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Where a folder may have its weights, one file or an index of several, in the order in which
transformers 4.48 … 5.x looks for them: what it reads first it reads alone."""
MOST_HEADER = 2**21
"""Bytes of the header of a safetensors file; of 28 layers it has 20,000."""
WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "DistributedDataParallel or DeepSpeed",
    "_fsdp_wrapped_module.": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "base_model.model.": "PEFT",
}
"""Wrappers by the word they put into names of tensors when they are saved with their model."""


def read_huggingface(folder: Path) -> Weights:
    """Read a folder: its config and its weights, one file or several, safetensors or `.bin`.

    Raises:
      InputError: a file is missing or damaged, or the tensors are not those of the config.
    """
    origin = str(folder)
    with laid_out_as("a model's folder", folder):
        content = read_config(folder)
        stored = _read_tensors(folder)
        head = content.head(stored, origin)
        params = to_ours(stored, table(content.config, head), origin)
    types = {x.dtype.name for x in stored.values()}
    weights = Weights(
        content.config,
        params,
        content.token_ids,
        tokenizer=folder if (folder / "tokenizer.json").is_file() else None,
        origin=origin,
        head=head,
        dtype=types.pop() if len(types) == 1 else "float32",  # mixed types count as float32
        folder=folder,
        agreements=content.agreements,
    )
    return with_manifest(weights, folder)


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Return a folder's tensors under our names."""
    stored: dict[str, np.ndarray] = {}
    for file in _files(folder):
        tensors = _read_file(file)
        twice = sorted(stored.keys() & tensors.keys())
        if twice:
            raise InputError(f"{file} holds {twice[0]}, which another file of its folder holds too")
        stored.update(tensors)
    for word, wrapper in WRAPPERS.items():
        wrapped = [name for name in stored if f".{word}" in f".{name}"]
        if wrapped:
            raise InputError(
                f"{folder}: {len(wrapped)} of {len(stored)} names of tensors hold {word!r}, as "
                f"{wrapped[0]}: {wrapper} was saved with the model in it, which transformers does "
                "not read; save the model inside, or take the word out of the names"
            )
    if not any(name.startswith("model.") for name in stored):  # an encoder saved alone
        heads = ("head.", "decoder.", "classifier.")
        stored = {n if n.startswith(heads) else f"model.{n}": x for n, x in stored.items()}
    return untied(stored, str(folder))


def _files(folder: Path) -> list[Path]:
    found = [name for name in LAYOUTS if (folder / name).is_file()]
    if not found:
        raise InputError(f"{folder} has no {WEIGHTS}, nor {LAYOUTS[-2]}; is it a model's folder?")
    if len(found) > 1:
        log.warning(
            "%s: %s is read, as transformers does; %s beside it is not: remove what is old",
            folder,
            found[0],
            " and ".join(found[1:]),
        )
    index = folder / found[0]
    if index.suffix != ".json":
        return [index]
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{index} has no weight_map") from None
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise InputError(f"{index} names {outside[0]}, outside its folder")
    return [folder / name for name in names]


def _read_file(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise InputError(f"{file.parent} has no {file.name}, which its index names")
    if file.suffix == ".bin":
        tensors = torch_files.load(file)
        if not isinstance(tensors, dict):
            raise InputError(f"{file} holds a {type(tensors).__name__}, not tensors by name")
        return torch_files.arrays(tensors, file)
    with file.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
    if header > MOST_HEADER:
        raise InputError(
            f"{file} cannot be read: its header claims {header:,} bytes, more than {MOST_HEADER:,}"
        )
    try:
        with safe_open(file, "np") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, AttributeError, ValueError, OSError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def name_tensors(
    params: Mapping[str, np.ndarray], config: ModelConfig, head: Head
) -> dict[str, np.ndarray]:
    """Return parameters as transformers names and shapes them, float32."""
    stored = to_stored(params, table(config, head))
    if head.kind == "encoder":  # alone, without "model." in front
        return {name.removeprefix("model."): x for name, x in stored.items()}
    return stored


def write_model(weights: Weights, token_ids: Mapping[str, int | None], folder: Path) -> None:
    """Write config.json and model.safetensors into an existing folder."""
    write_config(weights, token_ids, folder)
    stored = name_tensors(weights.params, weights.config, weights.head)
    stored = {name: x.astype(weights.dtype, copy=False) for name, x in stored.items()}
    save_file(stored, folder / WEIGHTS, metadata={"format": "pt"})


def write_config(weights: Weights, token_ids: Mapping[str, int | None], folder: Path) -> None:
    """Write config.json, with the agreements of the data, which transformers keeps."""
    values = config_json(weights.config, token_ids, weights.head, weights.dtype)
    record = {agreements.KEY: agreements.to_json(weights.agreements)}
    write_json(folder / "config.json", values | record)
