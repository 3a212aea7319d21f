# SPDX-License-Identifier: Apache-2.0
"""Measure speed: python scripts/benchmark.py inference|training|attention|loader [--compare torch]

Ours and the fastest of the ways to run the same work in PyTorch take turns in one process, in the
same dtype, after a warm-up (except with --burst 0); tokens are true tokens, without padding. Prints
a table; --output FILE.json also writes FILE.md and a plot, FILE.png.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bcmb_jax.allocator import keep_freed_memory
from bcmb_jax.attention import IMPLEMENTATIONS, choose
from bcmb_jax.benchmark import attention, inference, loader, training
from bcmb_jax.benchmark.report import markdown, report, write
from bcmb_jax.benchmark.torch_peer import ways_here
from bcmb_jax.data.shards import open_shards
from bcmb_jax.device import target
from bcmb_jax.errors import InputError, run
from bcmb_jax.evaluation.packing import SHARED_ROW
from bcmb_jax.evaluation.speed import KINDS
from bcmb_jax.model.config import BASE, LARGE
from bcmb_jax.precision import DTYPES, compute_dtype

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
WHAT = ("inference", "training", "attention", "loader")
HEADS = ("masked_lm", "sequence_classification", "token_classification")


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    keep_freed_memory()  # for both sides
    if options.compare:  # PyTorch needs the rest of a GPU's memory
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    results = list(_show(cases(options)))
    command = sys.argv if arguments is None else ["scripts/benchmark.py", *arguments]
    summary = report(results, command)
    print("\n" + markdown(summary))
    if options.output:
        print("\n".join(map(str, write(summary, options.output))))


def cases(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if options.what == "loader":
        with tempfile.TemporaryDirectory(dir=options.directory) as workdir:
            yield from loader.cases(
                options.data, lengths=options.lengths, workdir=Path(workdir), rounds=options.rounds
            )
        return
    precision = options.precision or {v: k for k, v in DTYPES.items()}[compute_dtype("")]
    config = dataclasses.replace(SIZES[options.size], attention_output_dropout=0.0)
    common = dict(
        size=options.size,
        precision=precision,
        rounds=options.rounds,
        burst=options.burst,
        implementation=options.attention or choose(target(), DTYPES[precision], config.head_size),
    )
    autocast = options.what == "training" and precision == "bf16"
    ways = (
        ways_here(options.peers, precision=precision, autocast=autocast) if options.compare else []
    )
    if options.what != "attention" and ways and not options.burst:
        if len(ways) > 1 or "compile" in ways[0]:
            raise InputError(
                "--burst 0 times the first call: name one of --peers, and none that compiles"
            )
    if options.what == "attention":
        yield from attention.cases(config, lengths=options.lengths, compare=bool(ways), **common)
    elif options.what == "inference":
        yield from inference.cases(
            config,
            lengths=options.lengths,
            kinds=[options.kind] if options.kind else KINDS,
            documents=options.documents,
            ways=ways,
            profile=options.profile,
            **common,
        )
    else:
        yield from training.cases(
            config,
            shapes=options.shapes or [(max(1, 2048 // n), n) for n in options.lengths],
            real=real_documents(options) if options.data else None,
            head=options.head,
            documents_per_step=options.documents or 16,
            steps=options.steps,
            row_length=options.row_length or (8192 if options.head == "masked_lm" else SHARED_ROW),
            remat=options.remat,
            ways=ways,
            profile=options.profile,
            **common,
        )


def real_documents(options: argparse.Namespace) -> tuple[str, list[np.ndarray]]:
    """The first documents of the shards, with the two special tokens, cut at 8,192."""
    documents: list[np.ndarray] = []
    wanted = (options.documents or 16) * options.steps
    opened = [open_shards(folder / "train") for folder in options.data]
    for shards in opened:
        special = shards.index["tokenizer"]["special"]
        for i in range(min(len(shards), wanted - len(documents))):
            body = shards.read(i, 0, min(int(shards.lengths[i]), 8190))
            documents.append(np.array([special["cls"], *body, special["sep"]], np.int32))
    if len(documents) < wanted:
        raise InputError(
            f"{wanted} documents are wanted, {len(documents)} are there: fewer --documents or "
            "--steps"
        )
    return ", ".join(x.name for x in opened), documents


def _show(results: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for line in results:
        ratio = f", {line['ratio']:.2f} x {line['peer']}" if line["peer"] else ""
        print(f"{line['case']}: {line['tokens_per_second']:,.0f} tokens/s{ratio}", flush=True)
        yield line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", choices=WHAT)
    add("--compare", choices=["torch"], help="beside the fastest way in PyTorch")
    add("--peers", default="", help="only these ways, e.g. sdpa,compile (default: all there are)")
    add("--size", choices=SIZES, default="base")
    add("--precision", choices=DTYPES, help="default: what the device multiplies fast")
    add("--lengths", type=_numbers, default=[512, 4096, 8192], help="tokens, e.g. 512,4096")
    add("--kind", choices=KINDS, help="inference: of lengths (default: both)")
    add("--shapes", type=_shapes, help="training: rows x length, e.g. 4x512,1x4096")
    add("--documents", type=int, default=0, help="of a case; training: of a step of --data")
    add("--steps", type=int, default=4, help="training: on --data, for one timed call")
    add("--head", choices=HEADS, default="masked_lm", help="training: what is trained")
    add(
        "--row-length",
        type=int,
        help=f"training: on --data, at most (default: 8192, of a classifier {SHARED_ROW})",
    )
    add("--remat", action="store_true", help="training: compute layers again, less memory")
    add("--data", nargs="+", type=Path, default=[], help="training, loader: folders of shards")
    add("--directory", type=Path, help="loader: on whose disk documents are made up")
    add("--attention", choices=IMPLEMENTATIONS, help="default: chosen for the device")
    add("--rounds", type=int, default=3, help="turns of each side")
    add(
        "--burst",
        type=int,
        default=2,
        help="timed calls a turn, after one that is not; 0: one, timed, none before",
    )
    add("--profile", type=Path, metavar="DIR", help="inference, training: trace one call more")
    add("--output", type=Path, metavar="FILE.json")
    return parser


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def _shapes(text: str) -> list[tuple[int, int]]:
    pairs = [shape.split("x") for shape in text.split(",")]
    return [(int(rows), int(length)) for rows, length in pairs]


if __name__ == "__main__":
    sys.exit(run(main))
