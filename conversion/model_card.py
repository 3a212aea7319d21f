# SPDX-License-Identifier: Apache-2.0
"""Files beside a converted model: a manifest for programs, a model card for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bcmb_jax.files import package_version, write_json
from conversion.config_json import ARCHITECTURES
from conversion.mapping import table, to_stored
from conversion.weights import Weights, weights_fingerprint

TOOLS = ("bcmb-jax", "jax", "flax", "orbax-checkpoint", "safetensors", "transformers", "torch")
PIPELINES = {
    "masked_lm": "fill-mask",
    "encoder": "feature-extraction",
    "sequence_classification": "text-classification",
    "token_classification": "token-classification",
}

CARD = """---
library_name: transformers
pipeline_tag: {pipeline}
tags:
- modernbert
---

# {title}

A ModernBERT of {layers} layers and width {hidden}, {parameters:,} parameters, vocabulary
{vocabulary:,}, for documents of up to {length:,} tokens. Written by `bcmb_jax` from `{origin}`,
bit for bit.

```python
from transformers import AutoTokenizer, {auto}

tokenizer = AutoTokenizer.from_pretrained("{title}")
model = {auto}.from_pretrained("{title}")
```

Named entity recognition and other tasks on words that are split already (`is_split_into_words`):
without the following each word is tokenized as if it stood inside another, which costs accuracy.
(`add_prefix_space=True`, which does the same in transformers 4, has no effect in 5.23.)

```python
from tokenizers.pre_tokenizers import ByteLevel

tokenizer.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
```

## Training

{training}

## Before you share this model

A language model may repeat what it was trained on. Whether it may leave your institution is decided
by the agreements above, which bind the model as they bind the data.
"""


def manifest(weights: Weights) -> dict[str, Any]:
    """Return where a model is from and what made this copy of it, without times or user names."""
    progress = weights.meta.get("progress", {})
    return {
        "source": source_name(weights),
        # As stored, in the order of the table: of the model, so the same in every format.
        "weights_sha256": weights_fingerprint(
            to_stored(weights.params, table(weights.config, weights.head))
        ),
        "tools": {
            name: version for name in TOOLS if (version := package_version(name)) is not None
        },
        "step": progress.get("step"),
        "tokens_seen": progress.get("tokens_seen"),
        "data": {
            name: {key: source.get(key) for key in ("tokens", "license")}
            for name, source in weights.meta.get("data", {}).items()
        },
    }


def source_name(weights: Weights) -> str:
    """Return a hub id, or the last part of a path, which may name somebody's home."""
    path = Path(weights.origin)
    return path.name if path.is_absolute() else weights.origin


def write_manifest(weights: Weights, folder: Path) -> None:
    """Write manifest.json into a folder."""
    write_json(folder / "manifest.json", manifest(weights))


def write_card(weights: Weights, folder: Path, title: str) -> None:
    """Write README.md for the Hugging Face hub, or for a colleague."""
    config, kind = weights.config, weights.head.kind
    auto = "AutoModel" + ARCHITECTURES[kind].removeprefix("ModernBert").removeprefix("Model")
    text = CARD.format(
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
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


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
