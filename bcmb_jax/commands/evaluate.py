# SPDX-License-Identifier: Apache-2.0
"""Score a model, ours or any encoder of transformers, in one way."""

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax

import conversion
from bcmb_jax import hub
from bcmb_jax.commands.options.evaluate import OTHERS
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.device import PRECISIONS, describe_device, target
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation import speed
from bcmb_jax.evaluation.examples import Dataset, Task
from bcmb_jax.evaluation.load import load_jax_classifier, load_torch_classifier
from bcmb_jax.evaluation.protocol import FineTuningModel, Settings
from bcmb_jax.evaluation.results import TEXT_BASELINE
from bcmb_jax.evaluation.sweep import evaluate_model, evaluate_text_baseline, summary
from bcmb_jax.evaluation.tasks import TASKS
from bcmb_jax.files import REPORTED_PACKAGES, versions, write_json
from bcmb_jax.programs import keep_programs
from bcmb_jax.sharing import shared_command, shared_path
from bcmb_jax.terminal import say_next
from conversion import torch_models


def main(options: argparse.Namespace) -> None:
    """Score the model, and write the results."""
    if options.list_tasks:
        names = {task.name: f"{task.about} [{task.files}]" for task in TASKS.values()} | OTHERS
        print("\n".join(f"{name:16} {about}" for name, about in names.items()))
        return
    if options.backend != "jax":
        jax.config.update("jax_platforms", "cpu")  # the GPU's memory is for PyTorch
    keep_programs()
    evaluate: Callable[[argparse.Namespace], dict] = {
        "mlm": evaluate_mlm,
        "speed": evaluate_speed,
    }.get(options.task, evaluate_task)
    for what in ("model", "tokenizer"):
        if name := getattr(options, what):
            hub.fetch(name, what, online=options.online, token_file=options.hub_token_file)
    results = {
        "task": options.task,
        "model": model_name(options),
        "backend": options.backend,
        **evaluate(options),
        "device": describe_device()
        | (torch_models.describe_gpu() if options.backend == "torch" else {}),
        "versions": versions(*REPORTED_PACKAGES),
        "command": shared_command(options.command, options.data or ()),
        "date": time.strftime("%Y-%m-%d"),
    }
    write_json(options.output / "results.json", results, indent=1)
    print(f"written: {options.output / 'results.json'}")
    say_next("bcmb report {} --output tables", options.output)


def model_name(options: argparse.Namespace) -> str:
    """Return the name of the model in results."""
    if options.backend == "text":
        return TEXT_BASELINE
    return "random weights" if options.random_weights else shared_path(options.model)


def evaluate_task(options: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune on a task with all seeds and learning rates, and return the results."""
    task = TASKS[options.task]
    if len(options.data) > 1:
        raise InputError(f"--task {task.name} reads one folder, not {len(options.data)}")
    dataset = read_task(task, options)
    metadata: dict[str, Any] = {"task": task.name, "data": dataset.fingerprint()}
    if options.backend == "text":
        results = evaluate_text_baseline(dataset, options.output, metadata, seeds=options.seeds)
    else:
        settings = Settings(options.epochs, options.batch_size)
        model = load(options, dataset, settings)
        metadata |= model.metadata | {
            "tokenizer": model.tokenizer.fingerprint,
            "max_length": model.tokenizer.max_length,
            **dataclasses.asdict(settings),
        }
        results = evaluate_model(
            model,
            dataset,
            settings,
            options.output,
            metadata,
            seeds=options.seeds,
            learning_rates=options.learning_rate or [task.learning_rates[model.size]],
            keep=options.keep_models,
        )
    print(f"{task.name} {summary(results)}")
    return results


def read_task(task: Task, options: argparse.Namespace) -> Dataset:
    """Read the data of a task with its own options."""
    arguments = {name: getattr(options, name) for name in task.options if getattr(options, name)}
    if options.corrected:
        if not task.quirks:
            raise InputError(f"--corrected: {task.name} has no quirk to correct")
        arguments["corrected"] = True
    return task.read(options.data[0], **arguments)


def load(options: argparse.Namespace, dataset: Dataset, settings: Settings) -> FineTuningModel:
    """Load the model to fine-tune, on the chosen backend."""
    given = {"tokenizer": options.tokenizer, "max_length": options.max_length}
    if options.backend == "torch":
        return load_torch_classifier(options.model, dataset, settings, **given)
    return load_jax_classifier(
        options.model,
        dataset,
        settings,
        **given,
        precision=options.precision,
        random_weights=options.random_weights,
        agreement=TASKS[options.task].agreement(options.license),
    )


def evaluate_mlm(options: argparse.Namespace) -> dict[str, Any]:
    """Score masked tokens of prepared shards, and return the results."""
    from bcmb_jax.evaluation import masked_lm  # no other task needs the training code behind it

    results = masked_lm.score_by_source(
        options.data,
        load_tokenizer(options.tokenizer or str(options.data[0] / "tokenizer")),
        conversion.from_pretrained(options.model, precision=options.precision),
        row_length=options.row_length,
        max_tokens=options.max_tokens,
        pseudo_perplexity_tokens=options.pseudo_perplexity,
    )
    print("\n".join(masked_lm.table(results)))
    return results


def evaluate_speed(options: argparse.Namespace) -> dict[str, Any]:
    """Measure an encoder by the paper's speed protocol, and return the results."""
    encoder: speed.JaxEncoder | speed.TorchEncoder
    if options.backend == "jax":
        model = conversion.from_pretrained(options.model, "encoder", precision=options.precision)
        encoder, precision = speed.JaxEncoder(model), model.precision
        platform = target().platform
    else:
        encoder, precision = speed.TorchEncoder(options.model), "fp32"
        platform = torch_models.describe_gpu().get("platform", "cpu")
    results = speed.measure(
        encoder,
        options.protocol,
        longest=options.longest,
        documents=options.documents,
        iterations=options.iterations,
        positions_at_once=options.positions or speed.POSITIONS_AT_ONCE[platform],
    )
    return {
        "protocol": options.protocol,
        "precision": PRECISIONS[precision],
        "results": list(results),
    }
