# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders of ModernBERT: config.json in both dialects, safetensors, tokenizer files.

transformers 4 names thetas and the layer pattern one way (`global_rope_theta`, …), transformers 5
another (`rope_parameters`, `layer_types`), and each ignores the other's keys without a word. So both
are read, and both are written.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bcmb_jax.data.tokenize import TOKENIZER_FILES, load_tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from conversion.mapping import Row, to_ours, to_stored

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKEN_IDS = {"cls": 50281, "sep": 50282, "pad": 50283}
"""The special tokens a config names, and transformers' defaults for them."""

# What ModernBERT may have in transformers and does not have here, nor in any published checkpoint.
REQUIRED = {
    "model_type": "modernbert",
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
    "classifier_bias": False,
    "decoder_bias": True,
    "tie_word_embeddings": True,
    "hidden_activation": "gelu",
    "classifier_activation": "gelu",
    "rope_scaling": None,
}
SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "local_attention",
    "norm_eps",
    "max_position_embeddings",
)
LAYER_TYPES = {"global": "full_attention", "local": "sliding_attention"}
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


# --- config.json -----------------------------------------------------------------------------------


def read_config(directory: Path) -> tuple[ModelConfig, dict[str, int | None]]:
    """`(config, token ids by role)` of a folder's config.json; unknown keys are ignored.

    Raises:
      InputError: it is not a ModernBERT, or one with parts that do not exist here.
    """
    values = _read_json(directory / "config.json")
    for key, only in REQUIRED.items():
        if values.get(key, only) != only or (key == "model_type" and key not in values):
            raise InputError(
                f"{directory / 'config.json'} has {key} {values.get(key)!r}; only {only!r} exists here"
            )
    try:
        config = ModelConfig(
            **{key: values[key] for key in SIZES if key in values},
            global_attn_every_n_layers=_every(values),
            **_thetas(values),
        )
    except (InputError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{directory / 'config.json'}: {error}") from error
    token_ids = {role: values.get(f"{role}_token_id", i) for role, i in TOKEN_IDS.items()}
    fits = {
        role: index if index is not None and 0 <= index < config.vocab_size else None
        for role, index in token_ids.items()
    }
    return config, fits


def config_json(
    config: ModelConfig, token_ids: Mapping[str, int | None], *, encoder_only: bool = False
) -> dict[str, Any]:
    """What config.json says of a model, for transformers 4.48 … 5.x."""
    ids = {role: token_ids.get(role) for role in TOKEN_IDS}
    thetas = {"global": config.global_rope_theta, "local": config.local_rope_theta}
    return {
        "architectures": ["ModernBertModel" if encoder_only else "ModernBertForMaskedLM"],
        **{key: only for key, only in REQUIRED.items() if only is not None},
        **{key: getattr(config, key) for key in SIZES},
        **{f"{role}_token_id": index for role, index in ids.items()},
        "bos_token_id": ids["cls"],
        "eos_token_id": ids["sep"],
        # Not our training dropout: theirs drops attention weights too, and would do so in fine-tuning.
        "attention_dropout": 0.0,
        "embedding_dropout": 0.0,
        "mlp_dropout": 0.0,
        "classifier_dropout": 0.0,
        "classifier_pooling": "mean",
        "initializer_range": 0.02,
        "initializer_cutoff_factor": 2.0,
        "torch_dtype": "float32",
        # transformers 4
        "global_attn_every_n_layers": config.global_attn_every_n_layers,
        "global_rope_theta": config.global_rope_theta,
        "local_rope_theta": config.local_rope_theta,
        # transformers 5
        "layer_types": [LAYER_TYPES[kind] for kind in config.layer_types],
        "rope_parameters": {
            LAYER_TYPES[kind]: {"rope_type": "default", "rope_theta": theta}
            for kind, theta in thetas.items()
        },
    }


def _every(values: Mapping[str, Any]) -> int:
    """Every how many layers one is global, from either dialect."""
    kinds = values.get("layer_types")
    if kinds is None:
        return values.get("global_attn_every_n_layers", ModelConfig.global_attn_every_n_layers)
    later = [i for i, kind in enumerate(kinds) if i and kind == LAYER_TYPES["global"]]
    every = values.get("global_attn_every_n_layers", min(later, default=max(len(kinds), 1)))
    expected = [LAYER_TYPES["local" if i % every else "global"] for i in range(len(kinds))]
    if kinds != expected or len(kinds) != values.get("num_hidden_layers", len(kinds)):
        raise InputError(
            f"layer_types is not a full_attention layer every {every} of "
            f"{values.get('num_hidden_layers', len(kinds))} layers; only such patterns exist here"
        )
    return every


def _thetas(values: Mapping[str, Any]) -> dict[str, float]:
    thetas = {}
    for kind, name in LAYER_TYPES.items():
        key = f"{kind}_rope_theta"
        rope = (values.get("rope_parameters") or {}).get(name) or {}
        if rope.get("rope_type", "default") != "default":
            raise InputError(
                f"rope_parameters.{name}.rope_type is {rope['rope_type']!r}; only 'default' exists"
            )
        given = [x for x in (rope.get("rope_theta"), values.get(key)) if x is not None]
        if len(set(given)) > 1:
            raise InputError(
                f"rope_parameters.{name}.rope_theta is {given[0]} and {key} {given[1]}; "
                "transformers 5 reads the first and 4 the second; remove the wrong one"
            )
        if given:
            thetas[key] = float(given[0])
    if "local_rope_theta" in values and values["local_rope_theta"] is None:
        # transformers 4: "as in global layers"
        thetas.setdefault("local_rope_theta", thetas.get("global_rope_theta", 160_000.0))
    return thetas


# --- weights ---------------------------------------------------------------------------------------


def read_weights(directory: Path, rows: tuple[Row, ...]) -> dict[str, np.ndarray]:
    """The parameters in a folder's safetensors (one file, or several with an index), float32.

    Raises:
      InputError: a file is missing or damaged, or the tensors are not those of the table.
    """
    if (directory / INDEX).is_file():
        files = sorted(set(_read_json(directory / INDEX)["weight_map"].values()))
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
    _write_json(directory / "config.json", values)
    save_file(to_stored(params, rows), directory / WEIGHTS, metadata={"format": "pt"})


# --- tokenizer -------------------------------------------------------------------------------------


def write_tokenizer(source: Path, directory: Path, config: ModelConfig) -> dict[str, int | None]:
    """The tokenizer of `source` as files that transformers 4.48 … 5.x read alike.

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
    before = _read_json(given) if given.is_file() else {}
    config_values = {
        "added_tokens_decoder": {
            str(index): {key: getattr(token, key) for key in keys}
            for index, token in sorted(added.items())
        },
        "clean_up_tokenization_spaces": before.get("clean_up_tokenization_spaces", True),
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
    _write_json(directory / "tokenizer_config.json", config_values)
    _write_json(directory / "special_tokens_map.json", special_map)
    return dict(special)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file.parent} has no {file.name}; it is not a model's folder") from None
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
