# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a model on a user's own data, and keep it."""

import argparse
import dataclasses
import time

from bcmb_jax import hub
from bcmb_jax.agreements import Agreement
from bcmb_jax.device import describe_device
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset
from bcmb_jax.evaluation.finetune import fine_tune_best
from bcmb_jax.evaluation.imbalance import balanced_weights
from bcmb_jax.evaluation.load import load_jax_classifier
from bcmb_jax.evaluation.protocol import Settings
from bcmb_jax.evaluation.sweep import summary
from bcmb_jax.evaluation.tasks import TASKS, annotations, tables
from bcmb_jax.files import REPORTED_PACKAGES, versions
from bcmb_jax.sharing import shared_command, shared_path
from bcmb_jax.terminal import say_next
from conversion.export import refuse_to_lose

NAME = "finetune"


def main(options: argparse.Namespace) -> None:
    """Fine-tune, and write the model with its results."""
    refuse_to_lose(options.output, overwrite=options.overwrite)
    format = options.format or annotations.recognise(options.data)
    print(f"--data {options.data} is read as {format}" + " (--format names another)")
    dataset = read(options, format)
    for what in ("model", "tokenizer"):
        if name := getattr(options, what):
            hub.fetch(name, what, online=options.online, token_file=options.hub_token_file)
    settings = Settings(options.epochs, options.batch_size)
    class_weights = balanced_weights(dataset) if options.class_weights else ()
    model = load_jax_classifier(
        options.model,
        dataset,
        settings,
        tokenizer=options.tokenizer,
        max_length=options.max_length,
        precision=options.precision,
        agreement=Agreement("own data (fine-tuning)", options.license),
        class_weights=class_weights,
    )
    rate = options.learning_rate or TASKS["csv"].learning_rates[model.size]
    tuned = fine_tune_best(
        model,
        dataset,
        settings,
        seeds=options.seeds,
        learning_rate=rate,
        patience=options.patience,
    )
    results = {
        "task": NAME,
        "model": shared_path(options.model),
        "backend": "jax",
        **tuned.results,
        "class_weights": dict(zip(dataset.labels, class_weights, strict=False)),
        "settings": {
            "format": format,
            "data": dataset.fingerprint(),
            "max_length": model.tokenizer.max_length,
            **model.metadata,
            **dataclasses.asdict(settings),
        },
        "device": describe_device(),
        "versions": versions(*REPORTED_PACKAGES),
        "command": shared_command(options.command, [options.data]),
        "date": time.strftime("%Y-%m-%d"),
    }
    assert model.save
    model.save(
        options.output,
        f"{format} of its user's own (learning rate {rate:g})",
        thresholds=tuned.thresholds,
        results=results,
    )
    print(f"test {summary(results)}")
    print(f"written: {options.output}, with results.json")
    say_next("bcmb predict --model {} --input FILE --output predictions.csv", options.output)


def read(options: argparse.Namespace, format: str) -> Dataset:
    """Read the data of a user."""
    text, group = options.text_column, options.group_column
    if format == annotations.TABLE:
        return tables.read(options.data, text, options.label_column, group, options.labels)
    if options.label_column:
        raise InputError(f"--label-column is for tables, and {options.data} is {format}")
    return annotations.read(options.data, format, text, group, options.labels)
