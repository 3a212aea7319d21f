# SPDX-License-Identifier: Apache-2.0
"""Files beside a converted model: a manifest for programs, a model card for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.data.vocabulary import review
from bcmb_jax.errors import InputError
from bcmb_jax.files import package_version, write_json
from conversion.config_json import ARCHITECTURES, read_json
from conversion.mapping import Weights, table, to_stored, weights_fingerprint

TOOLS = ("bcmb-jax", "jax", "flax", "orbax-checkpoint", "safetensors", "transformers", "torch")
PIPELINES = {
    "masked_lm": "fill-mask",
    "encoder": "feature-extraction",
    "sequence_classification": "text-classification",
    "token_classification": "token-classification",
}
CARD = Path(__file__).with_name("model_card.md")


def manifest(weights: Weights) -> dict[str, Any]:
    """Return where a model is from and what made this copy of it, without times or user names."""
    progress = weights.meta.get("progress", {})
    return {
        "source": source_name(weights),
        # As stored, in the order of the table: of the model, so the same in every format.
        "weights_sha256": weights_fingerprint(
            to_stored(weights.params, table(weights.config, weights.head))
        ),
        "tools": {name: version for name in TOOLS if (version := package_version(name))},
        "tokenizer_reviewed": weights.meta.get("tokenizer_reviewed"),
        "step": progress.get("step"),
        "tokens_seen": progress.get("tokens_seen"),
        "data": {
            name: {key: source.get(key) for key in ("tokens", "license")}
            for name, source in weights.meta.get("data", {}).items()
        },
    }


def source_name(weights: Weights) -> str:
    """Return a name on the hub, or the last part of a path, which may name somebody's home."""
    path = Path(weights.origin)
    return path.name if path.is_absolute() else weights.origin


def write_manifest(weights: Weights, folder: Path) -> None:
    """Write manifest.json into a folder."""
    write_json(folder / "manifest.json", manifest(weights))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what the manifest of an earlier conversion records of training and data.

    Raises:
      InputError: another program's manifest.json.
    """
    file = folder / "manifest.json"
    recorded = read_json(file) if file.is_file() else {}
    if not isinstance(recorded, dict) or not isinstance(recorded.get("data", {}), dict):
        raise InputError(f"{file} is not a manifest of ours; remove it")
    counters = ("step", "tokens_seen")
    progress = {key: recorded[key] for key in counters if recorded.get(key) is not None}
    meta = {key: recorded.get(key) for key in ("data", "tokenizer_reviewed")}
    meta["progress"] = progress
    return {key: value for key, value in meta.items() if value}


def write_card(weights: Weights, folder: Path, title: str) -> None:
    """Write README.md for the Hugging Face hub, or for a colleague."""
    config, kind = weights.config, weights.head.kind
    auto = "AutoModel" + ARCHITECTURES[kind].removeprefix("ModernBert").removeprefix("Model")
    text = CARD.read_text(encoding="utf-8").format(
        title=title,
        pipeline=PIPELINES[kind],
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        parameters=sum(x.size for x in weights.params.values()),
        vocabulary=config.vocab_size,
        length=config.max_position_embeddings,
        origin=source_name(weights),
        auto=auto,
        training=_training(weights.meta),
        vocabulary_review=_vocabulary_review(weights),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _vocabulary_review(weights: Weights) -> str:
    """Return a paragraph about names in the tokenizer's vocabulary, empty if there is no need."""
    if weights.tokenizer is None:
        return ""
    tokenizer = load_tokenizer(str(weights.tokenizer))
    finding = review(tokenizer).finding
    if not finding:
        return ""
    if weights.meta.get("tokenizer_reviewed") == tokenizer.fingerprint:
        looked_at = "They were looked at and let pass (`--tokenizer-reviewed`)."
    else:
        looked_at = "Nobody has said that they were looked at: do so first."
    return f"\n{finding[0].upper()}{finding[1:]}. {looked_at}\n"


def _training(meta: Mapping[str, Any]) -> str:
    progress, data = meta.get("progress", {}), meta.get("data", {})
    if not progress.get("step"):
        return "The source says nothing of its training."
    lines = [f"{progress['step']:,} steps, {progress['tokens_seen']:,} tokens seen in this run."]
    if not data:
        return lines[0]
    lines += ["", "| source | tokens | licence or data use agreement |", "|---|---|---|"]
    lines += [
        f"| {name} | {source.get('tokens') or '?'} | {source.get('license') or 'not recorded'} |"
        for name, source in data.items()
    ]
    return "\n".join(lines)
