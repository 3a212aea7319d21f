# SPDX-License-Identifier: Apache-2.0
"""Files beside a converted model: a manifest for programs, a model card for people."""

import json
from pathlib import Path
from typing import Any

from bcmb_jax.agreements import Agreement, merge, of_data, parse, to_json
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.data.vocabulary import review
from bcmb_jax.errors import InputError
from bcmb_jax.files import package_version, write_json
from bcmb_jax.sharing import escape_markdown, shared_path
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
USAGE = Path(__file__).with_name("usage")
LIBRARIES = {
    "huggingface": "transformers",
    "sentence_transformers": "sentence-transformers",
    "onnx": "onnx",
    "stablehlo": "jax",
}
"""The hub's word for the program that a folder is for, by the file in `usage` that shows it."""


def manifest(weights: Weights) -> dict[str, Any]:
    """Return where a model is from and what made this copy of it, without times or user names."""
    progress = weights.meta.get("progress", {})
    return {
        "source": shared_path(weights.origin),
        "weights_sha256": _fingerprint(weights),
        "tools": {name: version for name in TOOLS if (version := package_version(name))},
        "tokenizer_reviewed": weights.meta.get("tokenizer_reviewed"),
        "step": progress.get("step"),
        "tokens_seen": progress.get("tokens_seen"),
        "agreements": to_json(weights.agreements),
    }


def _fingerprint(weights: Weights) -> str:
    """Return the SHA-256 of a model, which is the same in every format."""
    return weights_fingerprint(to_stored(weights.params, table(weights.config, weights.head)))


def write_manifest(weights: Weights, folder: Path) -> None:
    """Write manifest.json into a folder."""
    write_json(folder / "manifest.json", manifest(weights))


def with_manifest(weights: Weights, folder: Path) -> Weights:
    """Add what the manifest beside weights records of their training and data, if there is one.

    Raises:
      InputError: it is another program's, or of other weights.
    """
    file = folder / "manifest.json"
    if not file.is_file():
        return weights
    recorded = read_json(file)
    data = recorded.get("data", {}) if isinstance(recorded, dict) else None  # of earlier versions
    if not isinstance(data, dict) or not all(isinstance(x, dict) for x in data.values()):
        raise InputError(f"{file} is not a manifest of ours; remove it")
    if recorded.get("weights_sha256") not in (None, _fingerprint(weights)):
        raise InputError(
            f"{file} is of other weights than those beside it (weights_sha256 differs): take a "
            "whole copy of the folder, or remove the manifest if the weights were meant to change"
        )
    counters = ("step", "tokens_seen")
    progress = {key: recorded[key] for key in counters if recorded.get(key) is not None}
    reviewed = recorded.get("tokenizer_reviewed")
    meta = {"progress": progress, "data": data, "tokenizer_reviewed": reviewed, **weights.meta}
    record = merge(weights.agreements, parse(recorded.get("agreements", []), str(file)))
    return weights._replace(meta={k: x for k, x in meta.items() if x}, agreements=record)


def with_agreements(weights: Weights) -> Weights:
    """Complete weights without a record: the model itself is then a source with none stated.

    A conversion of an earlier version still says which data the last run saw.
    """
    if weights.agreements:
        return weights
    known = of_data(weights.meta.get("data", {}), weights.origin)
    model = Agreement(shared_path(weights.origin))
    return weights._replace(agreements=merge(known, [model]))


def write_card(
    weights: Weights, folder: Path, title: str, usage: str = "huggingface", **values: object
) -> None:
    """Write README.md for the Hugging Face hub, or for a colleague.

    Args:
      usage: a key of `LIBRARIES`, whose file takes `values` beside those of the model.
    """
    config, kind = weights.config, weights.head.kind
    auto = "AutoModel" + ARCHITECTURES[kind].removeprefix("ModernBert").removeprefix("Model")
    pipeline = PIPELINES[kind] if usage != "sentence_transformers" else "sentence-similarity"
    own = {"name": json.dumps(title), "auto": auto, "hidden": config.hidden_size}
    example = (USAGE / f"{usage}.md").read_text(encoding="utf-8").format(**own, **values)
    text = CARD.read_text(encoding="utf-8").format(
        title=escape_markdown(title),
        library=LIBRARIES[usage],
        usage=example,
        pipeline=pipeline,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        parameters=sum(x.size for x in weights.params.values()),
        vocabulary=config.vocab_size,
        length=config.max_position_embeddings,
        origin=escape_markdown(shared_path(weights.origin)),
        training=_training(weights),
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


def _training(weights: Weights) -> str:
    progress = weights.meta.get("progress", {})
    lines = ["The source says nothing of its training."]
    if progress.get("step"):
        seen = f"{progress['tokens_seen']:,} tokens seen in this run."
        lines = [f"{progress['step']:,} steps, {seen}"]
    lines += ["", "| source | tokens | licence or data use agreement |", "|---|---|---|"]
    lines += [
        f"| {escape_markdown(x.source)} | {x.tokens or '?'} | {escape_markdown(x.license)} |"
        for x in weights.agreements
    ]
    if planted := [x for x in weights.agreements if x.canaries]:
        lines += ["", *(_planted(x) for x in planted)]
    return "\n".join(lines)


def _planted(source: Agreement) -> str:
    return (
        f"{source.canaries:,} made-up sentences, called canaries, were planted in "
        f"{escape_markdown(source.source)} to measure what the model memorizes. The persons and "
        "record numbers in them do not exist."
    )
