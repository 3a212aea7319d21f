# SPDX-License-Identifier: Apache-2.0
"""Weights into an existing, empty folder, in each format."""

import dataclasses
from pathlib import Path
from typing import Any

from bcmb_jax.errors import InputError
from bcmb_jax.training import checkpoint
from conversion import composer, composer_state, huggingface
from conversion.config_json import read_json
from conversion.json_tree import to_json
from conversion.mapping import table
from conversion.model_card import manifest, write_card, write_manifest
from conversion.tokenizer_files import write_tokenizer
from conversion.weights import Weights


def write_huggingface(weights: Weights, folder: Path, title: str = "model") -> None:
    """For transformers 4.48 … 5.x, with tokenizer, model card and manifest."""
    token_ids = weights.token_ids
    if weights.tokenizer is not None:
        token_ids = write_tokenizer(weights.tokenizer, folder, weights.config)
    huggingface.write_model(
        folder, weights.config, weights.head, weights.params, token_ids, weights.dtype
    )
    write_card(weights, folder, title)
    write_manifest(weights, folder)


def write_orbax(weights: Weights, folder: Path, title: str = "") -> None:
    """A checkpoint to start runs from, with the optimizer's state if there is one."""
    facts: dict[str, Any] = {
        **weights.meta,
        "config": {**weights.meta.get("config", {}), "model": weights.config.as_dict()},
        "tokenizer": {"special": weights.token_ids},
        "head": dataclasses.asdict(weights.head),
        "dtype": weights.dtype,
        "manifest": manifest(weights),
    }
    known = {field.name for field in dataclasses.fields(checkpoint.RunProgress)}
    progress = {k: v for k, v in facts.pop("progress", {}).items() if k in known}
    folder.rmdir()  # Orbax makes it
    state = checkpoint.TrainState(weights.params, weights.opt_state)
    checkpoint.save_state(folder, state, facts, checkpoint.RunProgress(**progress))
    if weights.tokenizer is not None:
        write_tokenizer(weights.tokenizer, folder / "tokenizer", weights.config)


def write_composer(weights: Weights, folder: Path, title: str = "") -> None:
    """A `.pt` that the original training code resumes from, or, without moments, starts from.

    Raises:
      InputError: the model is not a masked LM, or nothing says how its moments came about.
    """
    if weights.head.kind != "masked_lm":
        raise InputError(
            f"{weights.origin} has a {weights.head.kind} head; Composer checkpoints are masked LMs"
        )
    found = composer.ComposerCheckpoint(
        weights.config, weights.params, weights.opt_state, composer_rest(weights)
    )
    composer.write_composer(found, folder / composer.FILE)
    write_manifest(weights, folder)


def composer_rest(weights: Weights) -> dict[str, Any]:
    """What a `.pt` of these weights holds beside them: what it held before, or else made anew."""
    if "composer" in weights.meta:
        return weights.meta["composer"]
    source = weights.tokenizer
    files = {file.name: read_json(file) for file in sorted(source.glob("*.json"))} if source else {}
    rest = composer_state.weights_only(
        weights.config,
        {name: content for name, content in files.items() if "token" in name},
    )
    if weights.opt_state is not None:
        run = weights.meta.get("config", {})
        if "learning_rate" not in run:
            raise InputError(f"{weights.origin} has moments and does not say of which run")
        rest = composer_state.with_counters(
            rest, table(weights.config), run, weights.meta["progress"]
        )
    return to_json(rest)
