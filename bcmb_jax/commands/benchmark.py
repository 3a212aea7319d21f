# SPDX-License-Identifier: Apache-2.0
"""Measure speed, beside the fastest way to run the same work in PyTorch.

    python scripts/benchmark.py WHAT [--compare torch] [--output FILE.json]

Both take turns in one process, in the same dtype, after a warm-up (except with --burst 0); tokens
are true tokens, without padding. Prints a table; --output FILE.json also writes FILE.md and a plot,
FILE.png.

Inference and training run on as many devices as divide the rows. On a CPU there is one, of all
cores; JAX_NUM_CPU_DEVICES=2 makes two, which share them.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from bcmb_jax import hub, private
from bcmb_jax.attention import IMPLEMENTATIONS, choose
from bcmb_jax.benchmark import attention, fine_tuning, inference, loader, training
from bcmb_jax.benchmark.report import Result, markdown, report, write
from bcmb_jax.benchmark.timing import Setting
from bcmb_jax.benchmark.torch_baselines import candidates_here, choose_candidates
from bcmb_jax.benchmark.training import first_documents
from bcmb_jax.device import compute_dtype, keep_freed_memory, on_cpu, resolve_precision, target
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.encode import TaskTokenizer
from bcmb_jax.evaluation.speed import KINDS
from bcmb_jax.evaluation.tasks import TASKS
from bcmb_jax.model.config import BASE, LARGE

SIZES = {
    "base": BASE,
    "large": LARGE,
    "tiny": dataclasses.replace(
        BASE,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=192,
    ),
}
Results = Iterator[Result]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    keep_freed_memory()  # for both sides
    if options.compare:  # PyTorch needs the rest of a GPU's memory
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    results: list[Result] = []
    try:
        for line in options.cases(options):
            ratio = f", {line['ratio']:.2f} x {line['peer']}" if line["peer"] else ""
            print(f"{line['case']}: {line['tokens_per_second']:,.0f} tokens/s{ratio}", flush=True)
            results.append(line)
    finally:  # a case that fails does not take those before it along
        if results:
            command = ["scripts/benchmark.py", *(sys.argv[1:] if arguments is None else arguments)]
            summary = report(results, command)
            print("\n" + markdown(summary))
            if options.output:
                print("\n".join(map(str, write(summary, options.output))))


def _inference(options: argparse.Namespace) -> Results:
    _refuse_unequal(options)
    return inference.cases(
        _setting(options, "inference"),
        lengths=options.lengths,
        kinds=[options.kind] if options.kind else KINDS,
        documents=options.documents,
        profile=options.profile,
    )


def _training(options: argparse.Namespace) -> Results:
    _refuse_unequal(options)
    wanted = dict(per_step=options.documents or 16, steps=options.steps)
    return training.cases(
        _setting(options, "training"),
        shapes=options.shapes
        or [(options.documents or max(1, 2048 // n), n) for n in options.lengths],
        real=first_documents(options.data, **wanted) if options.data else None,
        row_length=options.row_length,
        remat=options.remat,
        profile=options.profile,
    )


def _fine_tuning(options: argparse.Namespace) -> Results:
    setting = _setting(options, "training")
    access = {"online": options.online, "token_file": options.hub_token_file}
    hub.fetch(options.tokenizer, "tokenizer", **access)
    return fine_tuning.cases(
        setting,
        task=options.task,
        dataset=TASKS[options.task].read(options.data),
        tokenizer=TaskTokenizer(options.tokenizer, setting.config.max_position_embeddings),
        per_step=options.documents or 16,
        steps=options.steps,
    )


def _attention(options: argparse.Namespace) -> Results:
    return attention.cases(
        _setting(options, "attention"),
        lengths=options.lengths,
        documents=options.documents,
    )


def _loader(options: argparse.Namespace) -> Results:
    if options.compare:
        print("PyTorch brings no loader that packs: nothing to compare with")
    with tempfile.TemporaryDirectory(dir=options.directory) as workdir:
        yield from loader.cases(
            options.data,
            lengths=options.lengths,
            documents=options.documents,
            workdir=Path(workdir),
            rounds=options.rounds,
        )


def _refuse_unequal(options: argparse.Namespace) -> None:
    devices = jax.local_device_count()
    if options.compare and devices > 1 and not on_cpu():
        raise InputError(
            f"PyTorch's side runs on one of the {devices} devices: show only one "
            "(CUDA_VISIBLE_DEVICES=0), or leave out --compare"
        )


def _setting(options: argparse.Namespace, case: str) -> Setting:
    precision = resolve_precision(options.precision)
    config = dataclasses.replace(SIZES[options.size], attention_output_dropout=0.0)
    candidates = []
    if options.compare:
        candidates = choose_candidates(options.peers, candidates_here(case, precision))
    if candidates and not options.burst and (len(candidates) > 1 or "compile" in candidates[0]):
        raise InputError(
            "--burst 0 times the first call: name one of --peers, and none that compiles"
        )
    return Setting(
        size=options.size,
        config=config,
        precision=precision,
        implementation=getattr(options, "attention", None)
        or choose(target(), compute_dtype(precision), config.head_size),
        candidates=candidates,
        rounds=options.rounds,
        repeats=options.burst,
    )


def _parser() -> argparse.ArgumentParser:
    every, add = _group()
    add("--compare", choices=["torch"], help="beside the fastest way in PyTorch")
    add("--documents", type=_number, default=0, help="of a case; real ones: of a step")
    add("--rounds", type=_number, default=3, help="turns of each side")
    add("--output", type=Path, metavar="FILE.json")
    private.add_option(every)
    model, add = _group()
    add("--size", choices=SIZES, default="base")
    add("--precision", choices=("bf16", "fp32"), help="default: fp32 on a CPU, else bf16")
    add("--peers", default="", help="only these ways, e.g. sdpa,compile (default: all)")
    add(
        "--burst",
        type=lambda text: 0 if text == "0" else _number(text),
        default=2,
        help="timed calls a turn, after one that is not; 0: one, timed, none before",
    )
    lengths, add = _group()
    add("--lengths", type=_numbers, default=[512, 4096, 8192], help="tokens, e.g. 512,4096")
    ours, add = _group()
    add("--attention", choices=IMPLEMENTATIONS, help="default: chosen for the device")
    profile, add = _group()
    add("--profile", type=Path, metavar="DIR", help="trace one call more, and print a table")
    network, _ = _group()
    hub.add_options(network)
    steps, add = _group()
    add("--steps", type=_number, default=4, help="on --data, for one timed call")

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = parser.add_subparsers(metavar="WHAT", required=True)

    def mode(
        name: str,
        cases: Callable[..., Results],
        text: str,
        *groups: argparse.ArgumentParser,
    ) -> Callable[..., argparse.Action]:
        added = modes.add_parser(name, help=text, description=text, parents=[every, *groups])
        added.set_defaults(cases=cases)
        return added.add_argument

    text = "hidden states of fixed and variable lengths"
    add = mode("inference", _inference, text, model, lengths, ours, profile)
    add("--kind", choices=KINDS, help="of lengths (default: both)")

    text = "steps of masked language modelling"
    add = mode("training", _training, text, model, lengths, ours, profile, steps)
    add("--shapes", type=_shapes, help="rows x length, e.g. 4x512,1x4096; else of --lengths")
    add("--data", nargs="+", type=Path, default=[], help="shards, for rows of real lengths")
    add("--row-length", type=_number, default=8192, help="on --data, at most")
    add("--remat", action="store_true", help="compute layers again, less memory")

    text = "steps of evaluate.py on examples of a task"
    add = mode("fine-tuning", _fine_tuning, text, model, steps, network)
    add("--task", choices=TASKS, metavar="NAME", required=True, help="of evaluate.py")
    add("--data", type=Path, required=True, help="the task's folder")
    add("--tokenizer", required=True, help="folder, hub:OWNER/NAME or a start by name")

    mode("attention", _attention, "of one layer, with gradient and without", model, lengths, ours)

    add = mode("loader", _loader, "rows a second from disk, and what a step waits", lengths)
    add("--data", nargs="+", type=Path, default=[], help="folders of shards (default: made up)")
    add("--directory", type=Path, help="on whose disk documents are made up")
    return parser


def _group() -> tuple[argparse.ArgumentParser, Callable[..., argparse.Action]]:
    """Options that several modes have, and what adds one."""
    group = argparse.ArgumentParser(add_help=False)
    return group, group.add_argument


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _numbers(text: str) -> list[int]:
    return [_number(n) for n in text.split(",")]


def _shapes(text: str) -> list[tuple[int, int]]:
    pairs = [shape.split("x") for shape in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 4x512,1x4096")
    return [(_number(rows), _number(length)) for rows, length in pairs]
