# SPDX-License-Identifier: Apache-2.0
"""Score a model, ours or any encoder of transformers, in one way.

  bcmb evaluate --task bc5cdr --data DIR --model MODEL --output DIR
  bcmb evaluate --task mlm --data SHARDS... --model MODEL --output DIR
  bcmb evaluate --task speed --model MODEL [--backend torch] --output DIR

A task (--list-tasks) fine-tunes the model on its training split once for each seed and learning
rate, chooses the epoch on validation and scores the test split. Runs that OUTPUT/runs holds are not
repeated: after an interruption the same command goes on. --backend text is TF-IDF and a linear
classifier, without a model. `mlm` scores masked tokens of prepared shards, `speed` the paper's six
distributions of length. Writes OUTPUT/results.json; bcmb report makes tables of many.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from bcmb_jax import hub, private
from bcmb_jax.commands.options import Parser
from bcmb_jax.evaluation.tasks import TASKS

OTHERS = {
    "mlm": "masked tokens of prepared shards, by source, beside unigram and bigram baselines",
    "speed": "the paper's speed table (Table 3), as published or honest",
}
PRECISIONS = ("bf16", "tf32", "fp32")
PROTOCOLS = ("published", "honest")
BACKENDS = ("jax", "torch", "text")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments, and check that they fit each other."""
    parser = Parser("bcmb evaluate", description=__doc__)
    add = parser.add_argument
    add("--task", choices=[*TASKS, *OTHERS], metavar="NAME", help="one of --list-tasks")
    add("--list-tasks", action="store_true")
    add(
        "--data",
        nargs="+",
        type=Path,
        help="the task's folder, or (csv) a file; mlm: folders of bcmb prepare",
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
    add("--epochs", type=int, default=10)
    add("--batch-size", type=int, default=16)
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
    own: dict[tuple[str, str], list[str]] = {}
    for task in TASKS.values():
        for option in task.options.items():
            own.setdefault(option, []).append(task.name)
    for (name, text), tasks in own.items():
        add(f"--{name.replace('_', '-')}", help=f"{', '.join(tasks)}: {text}")
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
    add("--protocol", choices=PROTOCOLS, default="honest")
    add("--documents", type=int, default=4096, help="in each set")
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
        fitting = TASKS[options.task].options if options.task in TASKS else {}
        for name in sorted({name for name, _ in own} - set(fitting)):
            if getattr(options, name):
                parser.error(f"--{name.replace('_', '-')} is not for --task {options.task}")
        ours = options.backend == "jax"
        if options.task == "mlm" and not ours:
            parser.error("mlm scores our models: convert another one first (bcmb convert)")
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
