# SPDX-License-Identifier: Apache-2.0
"""Time steps of masked-language-model training, with the optimizer.

Documents have one length, or real lengths: then PyTorch's padded batches stand beside packed rows.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from bcmb_jax.batch import Batch
from bcmb_jax.benchmark.report import OURS, Setting, result
from bcmb_jax.benchmark.timing import matmul_ceiling, time_interleaved
from bcmb_jax.benchmark.torch_baselines import fastest_baseline
from bcmb_jax.data.rows import in_batches, packed, padded
from bcmb_jax.data.shards import open_shards
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.finetune_jax import shared_row_length
from bcmb_jax.evaluation.speed import random_documents
from bcmb_jax.masking import MaskingRule
from bcmb_jax.model.cost import forward_flops_per_token
from bcmb_jax.model.heads import Head, ModernBertForMaskedLM
from bcmb_jax.model.parameters import split
from bcmb_jax.optimizer import stable_adamw, weight_decay_mask
from bcmb_jax.sharding import mesh_for_rows
from bcmb_jax.training.profiling import Profiled
from bcmb_jax.training.start import abstract_state, init_state
from bcmb_jax.training.train import to_mesh, train_step

MASK_RATE = 0.3
LONGEST = 8192


class Documents(NamedTuple):
    """Documents to train on.

    Attributes:
      name: the names of the shards.
      by_step: for each step the tokens of its documents, `[N]` int32 with the special ones.
    """

    name: str
    by_step: list[list[np.ndarray]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, over all steps."""
        return np.array([len(document) for step in self.by_step for document in step])


def first_documents(folders: Sequence[Path], *, per_step: int, steps: int) -> Documents:
    """Read the first training documents of the shards, cut at `LONGEST` tokens.

    Raises:
      InputError: there are not so many.
    """
    opened = [open_shards(folder / "train") for folder in folders]
    documents: list[np.ndarray] = []
    wanted = per_step * steps
    for shards in opened:
        special = shards.index["tokenizer"]["special"]
        for i in range(min(len(shards), wanted - len(documents))):
            body = shards.read(i, 0, min(int(shards.lengths[i]), LONGEST - 2))
            documents.append(np.array([special["cls"], *body, special["sep"]], np.int32))
    if len(documents) < wanted:
        raise InputError(
            f"{wanted} documents are wanted, {len(documents)} are there: fewer --documents or "
            "--steps"
        )
    by_step = [documents[i : i + per_step] for i in range(0, wanted, per_step)]
    return Documents(", ".join(x.name for x in opened), by_step)


def cases(
    setting: Setting,
    *,
    shapes: list[tuple[int, int]],
    real: Documents | None,
    row_length: int,
    remat: bool,
    profile: Path | None,
) -> Iterator[dict[str, Any]]:
    """Yield a result for each of `shapes` (rows, length), or for the `real` documents.

    Args:
      row_length: of the real documents' rows; a longer document makes longer ones.
      profile: a folder for a trace of the first step once more, of which a table is printed.
    """
    ceiling = matmul_ceiling(setting.dtype)
    work = [real] if real else [_random(*shape) for shape in shapes]
    for documents in work:
        theirs = [padded(step, max(map(len, step))) for step in documents.by_step]
        ours = theirs
        if real:
            devices = jax.local_device_count()
            ours = [pack(step, row_length, devices) for step in documents.by_step]
        train = Trainer(setting, ours, remat)
        baseline = fastest_baseline(
            setting, Head("masked_lm"), [(batch, labels(batch)) for batch in theirs], train=True
        )
        parts = {} if real else train.passes()
        times = time_interleaved(
            {OURS: train, **parts, **baseline.run}, setting.rounds, setting.repeats
        )
        of_parts = {name: times.pop(name) for name in parts}
        seconds: dict[str, Any] = {name: statistics.median(x) for name, x in of_parts.items()}
        if parts:
            seconds |= {f"{name}_calls": x for name, x in of_parts.items()}
            seconds["gradient_over_forward"] = seconds["gradient"] / seconds["forward"]
        if profile:
            train.profile(profile)
        tokens = int(documents.lengths.sum())
        per_token = forward_flops_per_token(setting.config, documents.lengths, MASK_RATE)
        ceiling = matmul_ceiling(setting.dtype, before=ceiling)
        yield result(
            f"training {setting.size} {setting.precision} {documents.name}, "
            f"{len(ours)} step{'s' * (len(ours) > 1)}",
            tokens,
            times,
            flops=3 * per_token * tokens,
            ceiling=ceiling,
            peers=baseline.competed,
            layout="packed" if real else "rows",
            documents=len(documents.lengths),
            remat=remat,
            devices=train.mesh.size,
            filled=tokens / sum(batch.tokens.size for batch in ours),
            peer_filled=tokens / sum(batch.tokens.size for batch in theirs),
            seconds_to_compile=train.seconds_to_compile,
            **train.memory(),
            **seconds,
            **setting.metadata(),
        )


class Trainer:
    """The step of `training.train` over a few batches.

    A call runs each batch once and returns when all are done.
    """

    def __init__(self, setting: Setting, batches: list[Batch], remat: bool):
        make = functools.partial(
            ModernBertForMaskedLM,
            setting.config,
            dtype=setting.dtype,
            implementation=setting.implementation,
            remat=remat,
        )
        graph, shapes = split(lambda: make(rngs=nnx.Rngs(0)))
        optimizer = stable_adamw(max_lr=1e-4, decay_mask=weight_decay_mask)
        rule = MaskingRule(MASK_RATE, 4, (0, 1, 2, 3, 4), np.arange(100, 16_000))
        self._run = functools.partial(
            train_step, learning_rate=1e-4, graph=graph, optimizer=optimizer, rule=rule, seed=0
        )
        self.mesh = mesh_for_rows(*(len(batch.tokens) for batch in batches))
        self._state = init_state(make, optimizer, 0, abstract_state(shapes, optimizer, self.mesh))
        self._batches = [to_mesh(batch, self.mesh, 1) for batch in batches]
        self._steps: dict[tuple[int, ...], Any] = {}
        start = time.perf_counter()
        self._jitted = jax.jit(self._run, donate_argnums=0)
        with jax.set_mesh(self.mesh):
            for batch in self._batches:
                shape = batch.tokens.shape
                if shape not in self._steps:
                    self._steps[shape] = self._jitted.lower(self._state, batch).compile()
        self.seconds_to_compile = time.perf_counter() - start

    def __call__(self) -> None:
        """Take a step on each batch."""
        for batch in self._batches:
            self._step(batch)
        jax.block_until_ready(self._state)

    def profile(self, directory: Path) -> None:
        """Trace the first step once more, and print where its time goes."""
        first = self._batches[0]
        program = self._steps[first.tokens.shape]
        step = Profiled(self._jitted, directory, traced=2, program=program)
        with jax.set_mesh(self.mesh):
            for _ in range(2):
                self._state, _ = step(self._state, first)

    def passes(self) -> dict[str, Callable[[], object]]:
        """Return functions that compute the loss, and its gradient, of the first batch.

        The optimizer is left out: the compiler drops what a result does not need.
        """
        needed = {
            "forward": lambda *x: self._run(*x)[1].loss,
            "gradient": lambda *x: self._run(*x)[1].grad_norm,
        }

        def compiled(part: Callable) -> Callable[[], object]:
            with jax.set_mesh(self.mesh):
                program = jax.jit(part).lower(self._state, self._batches[0]).compile()
            return lambda: jax.block_until_ready(program(self._state, self._batches[0]))

        return {name: compiled(part) for name, part in needed.items()}

    def memory(self) -> dict[str, int]:
        """Return the bytes of the state, and those that the largest step needs beside it."""
        analyses = [step.memory_analysis() for step in self._steps.values()]
        return {
            "state_bytes": analyses[0].alias_size_in_bytes,
            "temporary_bytes": max(x.temp_size_in_bytes for x in analyses),
        }

    def _step(self, batch: Batch) -> None:
        self._state, _ = self._steps[batch.tokens.shape](self._state, batch)


def pack(documents: list[np.ndarray], row_length: int, devices: int) -> Batch:
    """Pack the documents of a batch into as few rows as they need.

    Rows are longer than `row_length` if a document is; empty rows are added until `devices` divides
    their number.
    """
    batch = packed(documents, shared_row_length([*map(len, documents)], row_length))
    return in_batches(batch, batch.tokens.size, devices)[0]


def labels(batch: Batch) -> np.ndarray:
    """Draw labels `[B, L]` for PyTorch, which masks nothing: as many as our masking predicts."""
    masked = np.random.default_rng(0).random(batch.tokens.shape) < MASK_RATE
    return np.where(masked & (batch.segment_ids > 0), batch.tokens, -100)


def _random(rows: int, length: int) -> Documents:
    return Documents(f"{rows}x{length}", [random_documents(np.full(rows, length))])
