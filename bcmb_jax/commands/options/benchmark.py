# SPDX-License-Identifier: Apache-2.0
"""Measure speed, beside the fastest way to run the same work in PyTorch.

    bcmb benchmark WHAT [--compare torch] [--output FILE.json]

Both take turns in one process, in the same dtype, after a warm-up (except with --burst 0); tokens
are true tokens, without padding. Prints a table; --output FILE.json also writes FILE.md and a plot,
FILE.png.

Inference and training run on as many devices as divide the rows. On a CPU there is one, of all
cores; JAX_NUM_CPU_DEVICES=2 makes two, which share them.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

from bcmb_jax import hub, private
from bcmb_jax.commands.options import Parser
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
ATTENTION = ("reference", "xla", "interval", "fa4", "dew")
KINDS = ("fixed", "variable")
BURST = "timed calls a turn, after one that is not; 0: one, timed, none before"


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments; `what` is the mode."""
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
    add("--burst", type=_burst, default=2, help=BURST)
    lengths, add = _group()
    add("--lengths", type=_numbers, default=[512, 4096, 8192], help="tokens, e.g. 512,4096")
    ours, add = _group()
    add("--attention", choices=ATTENTION, help="default: chosen for the device")
    profile, add = _group()
    add("--profile", type=Path, metavar="DIR", help="trace one call more, and print a table")
    network, _ = _group()
    hub.add_options(network)
    steps, add = _group()
    add("--steps", type=_number, default=4, help="on --data, for one timed call")

    parser: argparse.ArgumentParser = Parser("bcmb benchmark", description=__doc__)
    modes = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def mode(
        name: str, text: str, *groups: argparse.ArgumentParser
    ) -> Callable[..., argparse.Action]:
        added = modes.add_parser(name, help=text, description=text, parents=[every, *groups])
        return added.add_argument

    text = "hidden states of fixed and variable lengths"
    add = mode("inference", text, model, lengths, ours, profile)
    add("--kind", choices=KINDS, help="of lengths (default: both)")

    text = "steps of masked language modelling"
    add = mode("training", text, model, lengths, ours, profile, steps)
    add("--shapes", type=_shapes, help="rows x length, e.g. 4x512,1x4096; else of --lengths")
    add("--data", nargs="+", type=Path, default=[], help="shards, for rows of real lengths")
    add("--row-length", type=_number, default=8192, help="on --data, at most")
    add("--remat", action="store_true", help="compute layers again, less memory")

    text = "steps of bcmb evaluate on examples of a task"
    add = mode("fine-tuning", text, model, steps, network)
    add("--task", choices=TASKS, metavar="NAME", required=True, help="of bcmb evaluate")
    add("--data", type=Path, required=True, help="the task's folder")
    add("--tokenizer", required=True, help="folder, hub:OWNER/NAME or a start by name")

    text = "vectors, or entities of a tagger, for strings, tokenization included"
    add = mode("strings", text, network)
    add("--model", required=True, help="a folder; with --compare one that transformers loads")
    add("--input", type=Path, required=True, help="csv, tsv, jsonl, Parquet, or a folder of .txt")
    add("--text-column", help="unless it is called text, note, report, …")
    add("--peers", default="", help="only these: sentence-transformers, pipeline (default: all)")
    add("--burst", type=_burst, default=1, help=BURST)

    mode("attention", "of one layer, with gradient and without", model, lengths, ours)

    add = mode("loader", "rows a second from disk, and what a step waits", lengths)
    add("--data", nargs="+", type=Path, default=[], help="folders of shards (default: made up)")
    add("--directory", type=Path, help="on whose disk documents are made up")
    return parser.parse_args(arguments)


def _group() -> tuple[argparse.ArgumentParser, Callable[..., argparse.Action]]:
    """Options that several modes have, and what adds one."""
    group = argparse.ArgumentParser(add_help=False)
    return group, group.add_argument


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _burst(text: str) -> int:
    return 0 if text == "0" else _number(text)


def _numbers(text: str) -> list[int]:
    return [_number(n) for n in text.split(",")]


def _shapes(text: str) -> list[tuple[int, int]]:
    pairs = [shape.split("x") for shape in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 4x512,1x4096")
    return [(_number(rows), _number(length)) for rows, length in pairs]
