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
from bcmb_jax.sharing import shared_path
from bcmb_jax.training import checkpoint
from conversion import composer, huggingface
from conversion.config_json import read_json
from conversion.mapping import Weights
from conversion.model_card import manifest, write_card, write_manifest

OURS_TO_REPLACE = (
    *("README.md", "manifest.json", "results.json", "config.json", "model*.safetensors*"),
    *("modules.json", "1_Pooling", "sentence_bert_config.json", "model*.onnx*", "model*.stablehlo"),
    *("config_sentence_transformers.json", composer.FILE),
    *("tokenizer", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("state", "meta", "_CHECKPOINT_METADATA", "commit_success.txt"),  # Orbax's
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
    foreign = [x.name for x in directory.iterdir() if not any(map(x.match, OURS_TO_REPLACE))]
    if foreign:
        raise InputError(
            f"{directory} holds more than a converted model ({min(foreign)}); give another folder"
        )


def check_free_space(directory: Path, needed: int) -> None:
    """Raise `InputError` unless the disk of `directory` has `needed` bytes."""
    place = directory.expanduser().absolute()
    existing = next(path for path in (place, *place.parents) if path.exists())
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
    huggingface.write_model(weights, token_ids, folder)
    write_card(weights, folder, title)
    write_manifest(weights, folder)


def write_orbax(weights: Weights, folder: Path, title: str = "") -> None:
    """Write a checkpoint to start runs from, with the optimizer's state if there is one."""
    metadata = {
        **weights.meta,
        "config": _shared_config(weights),
        "tokenizer": {"special": weights.token_ids},
        "head": dataclasses.asdict(weights.head),
        "dtype": weights.dtype,
        "manifest": manifest(weights),
    }
    known = {field.name for field in dataclasses.fields(checkpoint.RunProgress)}
    progress = {k: v for k, v in metadata.pop("progress", {}).items() if k in known}
    progress["agreements"] = weights.agreements
    folder.rmdir()  # Orbax makes it
    state = checkpoint.TrainState(weights.params, weights.opt_state)
    checkpoint.save_state(folder, state, metadata, checkpoint.RunProgress(**progress))
    if weights.tokenizer is not None:
        write_tokenizer(weights.tokenizer, folder / "tokenizer", weights.config)


def _shared_config(weights: Weights) -> dict[str, Any]:
    """Return the configuration of the weights' run, without the paths of its machine."""
    config = {**weights.meta.get("config", {}), "model": weights.config.as_dict()}
    for key in ("tokenizer", "init_from"):
        config |= {key: shared_path(config[key])} if key in config else {}
    if "data" in config:
        folders = {k: [shared_path(x) for x in config["data"][k]] for k in ("train", "validation")}
        config["data"] = {**config["data"], **folders}
    return config


def write_composer(weights: Weights, folder: Path, title: str = "") -> None:
    """Write a `.pt` that the original code resumes from, or, without moments, starts from.

    Raises:
      InputError: the model is not a masked LM, or nothing says how its moments came about.
    """
    if weights.head.kind != "masked_lm":
        raise InputError(
            f"{weights.origin} has a {weights.head.kind} head; Composer checkpoints are masked LMs"
        )
    composer.write_composer(weights, folder / composer.FILE)
    write_manifest(weights, folder)


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
    file = directory / "tokenizer.json"
    tokenizer.save_backend(file)
    added = tokenizers.Tokenizer.from_file(str(file)).get_added_tokens_decoder()
    keys = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    special = tokenizer.special.__dict__
    names = {f"{role}_token": tokenizer.token(index) for role, index in special.items()}
    given = source / "tokenizer_config.json"
    before = read_json(given) if given.is_file() else {}
    longest = config.max_position_embeddings  # some files say 1e30, for "unknown"
    config_values = {
        "added_tokens_decoder": {
            str(index): {key: getattr(token, key) for key in keys}
            for index, token in sorted(added.items())
        },
        "clean_up_tokenization_spaces": before.get("clean_up_tokenization_spaces", False),
        **names,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": min(before.get("model_max_length", longest), longest),
        # transformers 5 writes TokenizersBackend, which 4 does not know.
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if "add_prefix_space" in before:
        config_values["add_prefix_space"] = before["add_prefix_space"]
    special_map: dict[str, object] = dict(names)
    for role, index in special.items():
        if index in added:
            values = {key: getattr(added[index], key) for key in keys if key != "special"}
            special_map[f"{role}_token"] = values
    write_json(directory / "tokenizer_config.json", config_values)
    write_json(directory / "special_tokens_map.json", special_map)
    return dict(special)
