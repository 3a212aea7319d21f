# SPDX-License-Identifier: Apache-2.0
"""Write weights as a folder in each format, whole or not at all."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers

from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.files import new_directory, write_json
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.training import checkpoint
from conversion import composer, flexbert, huggingface
from conversion.config_json import read_json
from conversion.mapping import table
from conversion.model_card import manifest, write_card, write_manifest
from conversion.torch_files import to_json
from conversion.weights import Weights

OURS_TO_REPLACE = (
    "README.md",
    "manifest.json",
    "config.json",
    "model*.safetensors*",
    "tokenizer",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "latest-rank0.pt",
    "state",
    "meta",
    "_CHECKPOINT_METADATA",
    "commit_success.txt",
)
"""Everything that a converted folder may hold; one with anything else is never overwritten."""


@contextlib.contextmanager
def new_model_folder(directory: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `directory` when the block ends.

    Raises:
      InputError: `directory` exists and may not be replaced, or holds other things than a model.
    """
    refuse_to_lose(directory, overwrite=overwrite)
    with new_directory(directory) as folder:
        yield folder
        refuse_to_lose(directory, overwrite=overwrite)  # somebody else may have written it by now


def refuse_to_lose(directory: Path, *, overwrite: bool) -> None:
    """Raise `InputError` where writing `directory` would destroy what must stay."""
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


def write_huggingface(weights: Weights, folder: Path, title: str = "model") -> None:
    """Write a folder for transformers 4.48 … 5.x, with tokenizer, model card and manifest."""
    token_ids = weights.token_ids
    if weights.tokenizer is not None:
        token_ids = write_tokenizer(weights.tokenizer, folder, weights.config)
    huggingface.write_model(
        folder, weights.config, weights.head, weights.params, token_ids, weights.dtype
    )
    write_card(weights, folder, title)
    write_manifest(weights, folder)


def write_orbax(weights: Weights, folder: Path, title: str = "") -> None:
    """Write a checkpoint to start runs from, with the optimizer's state if there is one."""
    metadata: dict[str, Any] = {
        **weights.meta,
        "config": {**weights.meta.get("config", {}), "model": weights.config.as_dict()},
        "tokenizer": {"special": weights.token_ids},
        "head": dataclasses.asdict(weights.head),
        "dtype": weights.dtype,
        "manifest": manifest(weights),
    }
    known = {field.name for field in dataclasses.fields(checkpoint.RunProgress)}
    progress = {k: v for k, v in metadata.pop("progress", {}).items() if k in known}
    folder.rmdir()  # Orbax makes it
    state = checkpoint.TrainState(weights.params, weights.opt_state)
    checkpoint.save_state(folder, state, metadata, checkpoint.RunProgress(**progress))
    if weights.tokenizer is not None:
        write_tokenizer(weights.tokenizer, folder / "tokenizer", weights.config)


def write_composer(weights: Weights, folder: Path, title: str = "") -> None:
    """Write a `.pt` that the original code resumes from, or, without moments, starts from.

    Raises:
      InputError: the model is not a masked LM, or nothing says how its moments came about.
    """
    if weights.head.kind != "masked_lm":
        raise InputError(
            f"{weights.origin} has a {weights.head.kind} head; Composer checkpoints are masked LMs"
        )
    content = composer.ComposerCheckpoint(
        weights.config, weights.params, weights.opt_state, composer_rest(weights)
    )
    composer.write_composer(content, folder / composer.FILE)
    write_manifest(weights, folder)


def composer_rest(weights: Weights) -> dict[str, Any]:
    """Return what a `.pt` holds beside the weights: what was read from one, or else made anew."""
    rest: dict[str, Any]
    if "composer" in weights.meta:
        rest = weights.meta["composer"]
        return rest
    source = weights.tokenizer
    files = {file.name: read_json(file) for file in sorted(source.glob("*.json"))} if source else {}
    rest = flexbert.weights_only(
        weights.config,
        {name: content for name, content in files.items() if "token" in name},
    )
    if weights.opt_state is not None:
        run = weights.meta.get("config", {})
        if "learning_rate" not in run:
            raise InputError(f"{weights.origin} has moments and does not say of which run")
        rest = flexbert.with_counters(rest, table(weights.config), run, weights.meta["progress"])
    encoded: dict[str, Any] = to_json(rest)
    return encoded


def write_tokenizer(source: Path, directory: Path, config: ModelConfig) -> dict[str, int | None]:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json from `source`.

    transformers 4.48 … 5.x read them alike.

    Returns:
      Its special tokens' ids by role, for `config_json`.

    Raises:
      InputError: it is incomplete, or has more tokens than the model.
    """
    tokenizer = load_tokenizer(str(source))
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"tokenizer {source} has {tokenizer.vocab_size} tokens and the model "
            f"{config.vocab_size}; give the tokenizer that it was trained with"
        )
    directory.mkdir(exist_ok=True)
    text = (source / "tokenizer.json").read_bytes()
    (directory / "tokenizer.json").write_bytes(text)
    added = tokenizers.Tokenizer.from_str(text.decode()).get_added_tokens_decoder()
    keys = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    special = tokenizer.special.__dict__
    names = {f"{role}_token": tokenizer.token(index) for role, index in special.items()}
    given = source / "tokenizer_config.json"
    before = read_json(given) if given.is_file() else {}
    config_values = {
        "added_tokens_decoder": {
            str(index): {key: getattr(token, key) for key in keys}
            for index, token in sorted(added.items())
        },
        "clean_up_tokenization_spaces": before.get("clean_up_tokenization_spaces", False),
        **names,
        "model_input_names": ["input_ids", "attention_mask"],
        # Some files say 1e30, for "unknown".
        "model_max_length": min(
            before.get("model_max_length", config.max_position_embeddings),
            config.max_position_embeddings,
        ),
        # transformers 5 writes TokenizersBackend, which 4 does not know.
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if "add_prefix_space" in before:
        config_values["add_prefix_space"] = before["add_prefix_space"]
    special_map = {
        f"{role}_token": {key: getattr(added[index], key) for key in keys if key != "special"}
        if index in added
        else names[f"{role}_token"]
        for role, index in special.items()
    }
    write_json(directory / "tokenizer_config.json", config_values)
    write_json(directory / "special_tokens_map.json", special_map)
    return dict(special)
