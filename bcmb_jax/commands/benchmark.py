# SPDX-License-Identifier: Apache-2.0
"""Measure speed, beside the fastest way to run the same work in PyTorch."""

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from bcmb_jax import hub
from bcmb_jax.attention import choose
from bcmb_jax.benchmark import attention, fine_tuning, inference, loader, strings, training
from bcmb_jax.benchmark.report import Result, markdown, report, write
from bcmb_jax.benchmark.timing import Setting
from bcmb_jax.benchmark.torch_baselines import candidates_here, choose_candidates
from bcmb_jax.benchmark.training import first_documents
from bcmb_jax.commands.options.benchmark import SIZES
from bcmb_jax.device import compute_dtype, keep_freed_memory, on_cpu, resolve_precision, target
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.encode import TaskTokenizer
from bcmb_jax.evaluation.speed import KINDS
from bcmb_jax.evaluation.tasks import TASKS
from bcmb_jax.terminal import say_next

Results = Iterator[Result]


def main(options: argparse.Namespace) -> None:
    """Measure the cases, and print and write the report."""
    keep_freed_memory()  # for both sides
    if options.compare:  # PyTorch needs the rest of a GPU's memory
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    results: list[Result] = []
    try:
        for line in CASES[options.what](options):
            ratio = f", {line['ratio']:.2f} x {line['peer']}" if line["peer"] else ""
            print(f"{line['case']}: {line['tokens_per_second']:,.0f} tokens/s{ratio}", flush=True)
            results.append(line)
    finally:  # a case that fails does not take those before it along
        if results:
            data = getattr(options, "data", [])
            summary = report(results, options.command, data if isinstance(data, list) else [data])
            print("\n" + markdown(summary))
            if options.output:
                print("\n".join(map(str, write(summary, options.output))))
            else:
                say_next("--output FILE.json keeps this, and writes a table and a plot")


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


def _strings(options: argparse.Namespace) -> Results:
    hub.fetch(options.model, "model", online=options.online, token_file=options.hub_token_file)
    return strings.cases(
        options.model,
        strings.read_texts(options.input, options.text_column, options.documents or 100),
        compare=bool(options.compare),
        peers=options.peers.split(",") if options.peers else (),
        rounds=options.rounds,
        burst=options.burst,
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


CASES: dict[str, Callable[[argparse.Namespace], Results]] = {
    "inference": _inference,
    "training": _training,
    "fine-tuning": _fine_tuning,
    "strings": _strings,
    "attention": _attention,
    "loader": _loader,
}
