# SPDX-License-Identifier: Apache-2.0
"""A model's weights in host memory, read from and written to any folder this package knows."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bcmb_jax import checkpoint
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.optimizer import StableAdamWState
from conversion import huggingface
from conversion.config_json import read_config
from conversion.mapping import check_complete, table
from conversion.tokenizer_files import write_tokenizer

OURS_TO_REPLACE = (
    "config.json",
    "model*.safetensors*",
    "*token*",
    "state",
    "meta",
    "_CHECKPOINT_METADATA",
    "commit_success.txt",
)
"""All that a converted folder holds; a folder with anything else is never overwritten."""


class Weights(NamedTuple):
    """A model as host arrays by checkpoint name, float32.

    Attributes:
      token_ids: of special tokens by role (cls, sep, pad, …), as far as they are known.
      tokenizer: the folder of its tokenizer, if it has one.
      folder: the Hugging Face folder it was read from; None for a checkpoint of ours.
      opt_state: the optimizer's state, in checkpoints of ours from training.
    """

    config: ModelConfig
    params: dict[str, np.ndarray]
    token_ids: dict[str, int | None]
    tokenizer: Path | None
    folder: Path | None = None
    opt_state: StableAdamWState | None = None

    @property
    def encoder_only(self) -> bool:
        return "decoder.bias" not in self.params


def read(path_or_id: str | Path, *, encoder_only: bool = False) -> Weights:
    """The weights in a Hugging Face folder or hub id, or in a checkpoint or workdir of ours.

    Raises:
      InputError: there is nothing of the kind, or not a whole ModernBERT.
    """
    path = Path(path_or_id).expanduser()
    if not path.is_dir():
        return _read_huggingface(huggingface.snapshot(str(path_or_id)), encoder_only)
    ours = path.name == "checkpoints" or any(
        (path / name).is_dir() for name in ("meta", "checkpoints")
    )
    return (_read_ours if ours else _read_huggingface)(path, encoder_only)


def _read_huggingface(folder: Path, encoder_only: bool) -> Weights:
    config, token_ids = read_config(folder)
    params = huggingface.read_weights(folder, table(config, encoder_only=encoder_only))
    has_tokenizer = (folder / "tokenizer.json").is_file()
    return Weights(config, params, token_ids, folder if has_tokenizer else None, folder)


def _read_ours(path: Path, encoder_only: bool) -> Weights:
    folder = checkpoint.latest(path)
    state, meta = checkpoint.load(folder)
    config = ModelConfig(**meta["config"]["model"])
    params = state.params
    rows = table(config)
    check_complete(
        {name: x.shape for name, x in params.items()},
        [row._replace(stored=row.shape) for row in rows],
        str(folder),
    )
    if encoder_only:
        params = {row.name: params[row.name] for row in table(config, encoder_only=True)}
    places = (folder / "tokenizer", folder.parent.parent / "tokenizer")
    tokenizer = next((place for place in places if (place / "tokenizer.json").is_file()), None)
    token_ids = meta["tokenizer"]["special"]
    return Weights(config, params, token_ids, tokenizer, None, state.opt_state)


def write_huggingface(weights: Weights, directory: Path) -> None:
    """Into an existing, empty folder, for transformers 4.48 … 5.x."""
    token_ids = weights.token_ids
    if weights.tokenizer is not None:
        token_ids = write_tokenizer(weights.tokenizer, directory, weights.config)
    rows = table(weights.config, encoder_only=weights.encoder_only)
    huggingface.write_model(directory, weights.config, weights.params, rows, token_ids)


def write_orbax(weights: Weights, directory: Path) -> None:
    """Into an existing, empty folder: a checkpoint of parameters alone, to start runs from."""
    token_ids = weights.token_ids
    facts = {"config": {"model": weights.config.as_dict()}, "tokenizer": {"special": token_ids}}
    directory.rmdir()  # Orbax makes it
    checkpoint.save_weights(directory, weights.params, facts)
    if weights.tokenizer is not None:
        write_tokenizer(weights.tokenizer, directory / "tokenizer", weights.config)


def publish(directory: Path, write: Callable[[Path], None], *, overwrite: bool) -> None:
    """Give `write` an empty folder, and move it to `directory` when it has returned.

    Raises:
      InputError: `directory` exists and may not be replaced, or holds other things than a model.
    """
    directory = directory.expanduser().absolute()
    refuse_to_lose(directory, overwrite=overwrite)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as place:
        new = Path(place) / "new"
        new.mkdir()
        write(new)
        refuse_to_lose(directory, overwrite=overwrite)
        if directory.exists():
            directory.rename(Path(place) / "old")
        new.rename(directory)


def refuse_to_lose(directory: Path, *, overwrite: bool) -> None:
    """Raise `InputError` where writing `directory` would destroy something not meant to be."""
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; give a folder")
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not overwrite:
        raise InputError(f"{directory} exists; give another folder, or --overwrite")
    foreign = sorted(
        entry.name
        for entry in directory.iterdir()
        if not any(entry.match(pattern) for pattern in OURS_TO_REPLACE)
    )
    if foreign:
        raise InputError(
            f"{directory} holds more than a converted model ({foreign[0]}); give another folder"
        )


def check_free_space(directory: Path, needed: int) -> None:
    """Raise `InputError` unless the disk of `directory` has `needed` bytes."""
    existing = directory.expanduser().absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"{directory} needs {needed / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free"
        )
