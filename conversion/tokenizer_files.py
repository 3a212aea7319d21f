# SPDX-License-Identifier: Apache-2.0
"""A tokenizer's files as transformers 4.48 … 5.x read them alike."""

from pathlib import Path

import tokenizers

from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from conversion.config_json import read_json, write_json


def write_tokenizer(source: Path, directory: Path, config: ModelConfig) -> dict[str, int | None]:
    """The tokenizer of `source` as tokenizer.json, tokenizer_config.json, special_tokens_map.json.

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
