# SPDX-License-Identifier: Apache-2.0
"""Score a model, ours or any encoder of transformers, in one way.

  python scripts/evaluate.py --task bc5cdr --data DIR --model MODEL --output DIR
  python scripts/evaluate.py --task mlm --data SHARDS... --model MODEL --output DIR
  python scripts/evaluate.py --task speed --model MODEL [--backend torch] --output DIR

A task (--list-tasks) fine-tunes the model on its training split once for each seed and learning
rate, chooses the epoch on validation and scores the test split. Runs that OUTPUT/runs holds are not
repeated: after an interruption the same command goes on. --backend text is TF-IDF and a linear
classifier, without a model. `mlm` scores masked tokens of prepared shards, `speed` the paper's six
distributions of length. Writes OUTPUT/results.json; scripts/report.py makes tables of many.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

import conversion
from bcmb_jax import hub, private
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
from bcmb_jax.sharing import shared_command, shared_path
from conversion import torch_models

OTHERS = {
    "mlm": "masked tokens of prepared shards, by source, beside unigram and bigram baselines",
    "speed": "the paper's speed table (Table 3), as published or honest",
}
BACKENDS = ("jax", "torch", "text")
LARGE = 1024  # hidden size from which a model gets the learning rates of Table 5's large one


def main(arguments: list[str] | None = None) -> None:
    """Run the command with `arguments`, or with those of the command line."""
    options = parse(arguments)
    if options.list_tasks:
        names = {task.name: f"{task.about} [{task.files}]" for task in TASKS.values()} | OTHERS
        print("\n".join(f"{name:16} {about}" for name, about in names.items()))
        return
    if options.backend != "jax":
        jax.config.update("jax_platforms", "cpu")  # the GPU's memory is for PyTorch
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
        "command": shared_command(["python scripts/evaluate.py", *(arguments or sys.argv[1:])]),
        "date": time.strftime("%Y-%m-%d"),
    }
    write_json(options.output / "results.json", results, indent=1)
    print(f"written: {options.output / 'results.json'}")


def model_name(options: argparse.Namespace) -> str:
    """Return the name of the model in results."""
    if options.backend == "text":
        return TEXT_BASELINE
    return "random weights" if options.random_weights else shared_path(options.model)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the options and check that they fit each other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--task", choices=[*TASKS, *OTHERS], metavar="NAME", help="one of --list-tasks")
    add("--list-tasks", action="store_true")
    add(
        "--data",
        nargs="+",
        type=Path,
        help="the task's folder, or (csv) a file; mlm: folders of prepare_data.py",
    )
    add("--model", help="a run, a checkpoint, a folder, hub:OWNER/NAME or a start by name")
    add("--backend", choices=BACKENDS, default="jax")
    add("--tokenizer", help="likewise (default: the model's; mlm: the one beside the shards)")
    hub.add_options(parser)
    add("--output", type=Path)
    private.add_option(parser)
    add = parser.add_argument_group("fine-tuning").add_argument
    add("--seeds", type=numbers(int), default=[42, 43, 44, 45, 46], help="default: 42,43,44,45,46")
    add(
        "--learning-rate",
        type=numbers(float),
        help="several, with commas: the best on validation (default: the paper's Table 5)",
    )
    add("--epochs", type=int, default=Settings.epochs)
    add("--batch-size", type=int, default=Settings.batch_size)
    add("--max-length", type=int, help="tokens (default: all that the model reads)")
    add(
        "--precision",
        choices=PRECISIONS,
        default="",
        help="default: fp32; for fine-tuning on a GPU tf32, as in the paper",
    )
    add("--random-weights", action="store_true", help="only the model's sizes; each seed draws")
    add(
        "--keep-models",
        action="store_true",
        help="write OUTPUT/models/<rate>-<seed> after each new run; transformers reads it too",
    )
    add("--license", default="", help="agreement of the task's data, for kept models")
    add("--corrected", action="store_true", help="correct what the paper's reader of the task does")
    for task in TASKS.values():
        for name, text in task.options.items():
            add(f"--{name.replace('_', '-')}", help=f"{task.name}: {text}")
    add = parser.add_argument_group("mlm").add_argument
    add("--row-length", type=int, default=1024)
    add("--max-tokens", type=int, default=1_000_000, help="scored of each source")
    add(
        "--pseudo-perplexity",
        type=int,
        default=0,
        metavar="TOKENS",
        help="of each source, masked one at a time as well",
    )
    add = parser.add_argument_group("speed").add_argument
    add("--protocol", choices=speed.PROTOCOLS, default="honest")
    add("--documents", type=int, default=speed.DOCUMENTS, help="in each set")
    add("--iterations", type=int, default=10)
    add("--longest", type=int, default=8192, help="leave out longer sets")
    add("--positions", type=int, help="tokens and padding of a batch")
    options = parser.parse_args(arguments)
    if not options.list_tasks:
        needed = {"task", "output", "data", "model"}
        needed -= {"data"} if options.task == "speed" else set()
        needed -= {"model"} if options.backend == "text" else set()
        if missing := sorted(f"--{name}" for name in needed if not getattr(options, name)):
            parser.error(f"missing {', '.join(missing)}")
        own = TASKS[options.task].options if options.task in TASKS else {}
        for name in sorted({x for task in TASKS.values() for x in task.options} - set(own)):
            if getattr(options, name):
                parser.error(f"--{name.replace('_', '-')} is not for --task {options.task}")
        ours = options.backend == "jax"
        if options.task == "mlm" and not ours:
            parser.error("mlm scores our models: convert another one first (conversion.convert)")
        for name in ("random_weights", "keep_models"):
            if getattr(options, name) and (not ours or options.task in OTHERS):
                flag = name.replace("_", "-")
                parser.error(f"--{flag} is for fine-tuning our models (--backend jax)")
        if options.precision and not ours:
            parser.error(
                "--precision is for our models: PyTorch runs as the paper did, in tf32 on a GPU "
                "and else in fp32"
            )
        published = options.task == "speed" and options.protocol == "published"
        if published and options.precision not in ("", "fp32"):
            parser.error(
                "--protocol published runs in fp32, as the paper did; leave out --precision"
            )
        if min(options.epochs, options.batch_size, options.documents, options.iterations) < 1:
            parser.error("--epochs, --batch-size, --documents and --iterations begin at 1")
        if options.backend == "text" and options.task == "speed":
            parser.error("--backend text encodes nothing: there is no speed to measure")
    return options


def numbers(kind: type) -> Callable[[str], list]:
    """Return a parser of numbers that are separated by commas."""

    def read_list(text: str) -> list:
        return [kind(part) for part in text.split(",")]

    return read_list


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
        size = "large" if model.width >= LARGE else "base"
        results = evaluate_model(
            model,
            dataset,
            settings,
            options.output,
            metadata,
            seeds=options.seeds,
            learning_rates=options.learning_rate or [task.learning_rates[size]],
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
