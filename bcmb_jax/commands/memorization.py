# SPDX-License-Identifier: Apache-2.0
"""Measure what a masked language model has kept of its training text."""

import argparse
import time
from functools import partial

import numpy as np

import conversion
from bcmb_jax.data.canaries import draw_canaries, read_canaries
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.device import describe_device
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.masked_lm import open_fitting
from bcmb_jax.evaluation.memorization import measure_canaries, measure_notes
from bcmb_jax.evaluation.memorization_report import draw_ranks, judge, write_report
from bcmb_jax.files import REPORTED_PACKAGES, new_file, versions, write_json, write_text
from bcmb_jax.programs import keep_programs
from bcmb_jax.sharing import shared_command, shared_path
from bcmb_jax.terminal import Display, say_next


def main(options: argparse.Namespace) -> None:
    """Measure, and write the report."""
    started = time.monotonic()
    keep_programs()
    model = conversion.from_pretrained(
        options.model,
        precision=options.precision,
        online=options.online,
        hub_token_file=options.hub_token_file,
    )
    if options.row_length > model.config.max_position_embeddings:
        raise InputError(
            f"--row-length {options.row_length:,}: the model reads "
            f"{model.config.max_position_embeddings:,} tokens"
        )
    tokenizer = load_tokenizer(str(options.data / "tokenizer"))
    train = open_fitting(options.data / "train", tokenizer, model.config)
    planted, repeats = read_canaries(options.data)
    canaries = notes = None
    display = Display()
    if planted:
        never = draw_canaries(len(planted), np.random.default_rng(0))
        canaries = {
            kind: measure_canaries(
                model,
                tokenizer,
                some,
                alternatives=options.alternatives,
                row_length=options.row_length,
                progress=partial(display.progress, text=f"canaries, {kind}"),
            )
            for kind, some in {"planted": planted, "never planted": never}.items()
        }
    if (options.data / "validation").is_dir():
        notes = measure_notes(
            model,
            tokenizer,
            train,
            open_fitting(options.data / "validation", tokenizer, model.config),
            documents=options.documents,
            row_length=options.row_length,
            leave_out={word for canary in planted for part in canary for word in part.split()},
            progress=partial(display.progress, text="notes"),
        )
    display.close()
    judgement = judge(canaries, notes)
    results = {
        "judgement": judgement,
        "model": shared_path(options.model),
        "data": train.name,
        "canaries": canaries,
        "repeats": repeats,
        "alternatives": options.alternatives,
        "notes": notes,
        "row_length": options.row_length,
        "seconds": time.monotonic() - started,
        "device": describe_device(),
        "versions": versions(*REPORTED_PACKAGES),
        "command": shared_command(options.command, [options.data]),
        "date": time.strftime("%Y-%m-%d"),
    }
    write_json(options.output / "memorization.json", results, indent=1)
    write_text(options.output / "memorization.md", write_report(results))
    if canaries:
        with new_file(options.output / "memorization.png") as out:
            draw_ranks(canaries).savefig(out, format="png")
    print(f"{judgement['verdict']}: {', '.join(judgement['flagged']) or 'no test found anything'}")
    say_next("read {}", options.output / "memorization.md")
