# SPDX-License-Identifier: Apache-2.0
"""Score a model: python scripts/evaluate.py --task mlm --data DIR... --model DIR_OR_ID --output DIR

`mlm`: loss, accuracy and top-5 accuracy on masked tokens of DIR/validation (shards), beside the
unigram and bigram baselines counted on DIR/train. Writes OUTPUT/results.json and prints a table.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import jax
from flax import nnx

import conversion
from bcmb_jax.data.shards import open_shards
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError, run
from bcmb_jax.evaluation.baselines import Bigram, Unigram
from bcmb_jax.evaluation.mlm import Evaluator, Scores, evaluation_rows
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import split
from bcmb_jax.sharding import make_mesh

TASKS = {"mlm": "masked tokens of token shards, by source, beside unigram and bigram baselines"}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--data", nargs="+", type=Path, help="folders of prepare_data.py")
    parser.add_argument("--model", help="a run, a checkpoint, a Hugging Face folder or id")
    parser.add_argument("--tokenizer", help="folder or id; default: the one beside the shards")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--row-length", type=int, default=1024)
    parser.add_argument("--max-tokens", type=int, default=1_000_000, help="of each source")
    parser.add_argument("--list-tasks", action="store_true")
    options = parser.parse_args(arguments)
    if options.list_tasks:
        print("\n".join(f"{name:8} {about}" for name, about in TASKS.items()))
        return
    missing = [f"--{n}" for n in ("task", "data", "model", "output") if not getattr(options, n)]
    if missing:
        parser.error(f"missing {', '.join(missing)}")
    results = score(options)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for line in table(results):
        print(line)


def score(options: argparse.Namespace) -> dict:
    """Every source's scores; the metric is the mean loss over the sources."""
    model = conversion.from_pretrained(options.model)
    tokenizer = load_tokenizer(options.tokenizer or str(options.data[0] / "tokenizer"))
    train = [open_shards(folder / "train") for folder in options.data]
    for shards in train:
        if shards.tokenizer_fingerprint != tokenizer.fingerprint:
            raise InputError(
                f"{shards.directory} was not made with the tokenizer {tokenizer.directory}"
            )
        if shards.vocab_size > model.config.vocab_size:
            raise InputError(
                f"{shards.directory} has a vocabulary of {shards.vocab_size:,}, the model "
                f"{options.model} only {model.config.vocab_size:,}"
            )
    rows = {
        shards.name: evaluation_rows(
            shards,
            tokenizer,
            row_length=options.row_length,
            max_document_length=options.row_length,
            max_tokens=options.max_tokens,
        )
        for shards in (open_shards(folder / "validation") for folder in options.data)
    }

    def make() -> ModernBertForMaskedLM:
        return ModernBertForMaskedLM(model.config, dtype=model.dtype, rngs=nnx.Rngs(0))

    mesh = make_mesh(-1, 1, 1)
    with jax.set_mesh(mesh):
        scores = Evaluator(split(make)[0], rows, mesh)(model.params)
    unigram = Unigram(train, model.config.vocab_size)
    bigram = Bigram(train, unigram)
    sources = {
        name: {"model": scores[name], "unigram": unigram.score(x), "bigram": bigram.score(x)}
        for name, x in rows.items()
    }
    loss = sum(by["model"].loss for by in sources.values()) / len(sources)
    return {
        "task": options.task,
        "model": str(options.model),
        "metric": "loss",
        "per_seed": [loss],
        "median": loss,
        "sources": {
            n: {k: dataclasses.asdict(s) for k, s in by.items()} for n, by in sources.items()
        },
    }


def table(results: dict) -> list[str]:
    """Markdown: a line a source and predictor."""
    columns = [field.name for field in dataclasses.fields(Scores)]
    lines = ["| source | predictor | " + " | ".join(columns) + " |", "|---" * 6 + "|"]
    for source, by in results["sources"].items():
        for predictor, values in by.items():
            cells = [
                f"{values[c]:,}" if c.endswith("tokens") else f"{values[c]:.4f}" for c in columns
            ]
            lines.append(f"| {source} | {predictor} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    sys.exit(run(main))
