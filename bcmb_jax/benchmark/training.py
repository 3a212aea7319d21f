# SPDX-License-Identifier: Apache-2.0
"""Time steps of masked-language-model training, with the optimizer.

Documents have one length, or real lengths: then PyTorch's padded batches stand beside packed rows.
"""

import functools
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from flax import nnx

from bcmb_jax.batch import Batch
from bcmb_jax.benchmark.report import Result, time_model
from bcmb_jax.benchmark.timing import Runner, Setting, time_interleaved
from bcmb_jax.benchmark.torch_baselines import fastest_baseline
from bcmb_jax.data.rows import in_batches, packed, padded
from bcmb_jax.data.shards import open_shards
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.finetune_jax import shared_row_length
from bcmb_jax.evaluation.speed import random_documents
from bcmb_jax.masking import MaskingRule
from bcmb_jax.model.heads import Head, ModernBertForMaskedLM
from bcmb_jax.model.parameters import split
from bcmb_jax.optimizer import stable_adamw, weight_decay_mask
from bcmb_jax.sharding import mesh_for_rows, to_mesh
from bcmb_jax.training.checkpoint import TrainState
from bcmb_jax.training.metrics import StepMetrics
from bcmb_jax.training.start import abstract_state, init_state
from bcmb_jax.training.step import train_step

MASK_RATE = 0.3
LONGEST = 8192
Item = TypeVar("Item")
Trainer = Runner[TrainState, StepMetrics]


class Documents(NamedTuple):
    """Documents to train on.

    Attributes:
      name: the names of the shards.
      by_step: for each step the tokens of its documents, `[N]` int32 with the special ones.
    """

    name: str
    by_step: list[Sequence[np.ndarray]]


def first_documents(folders: Sequence[Path], *, per_step: int, steps: int) -> Documents:
    """Read the first training documents of the shards, cut at `LONGEST` tokens.

    Raises:
      InputError: there are not so many.
    """
    opened = [open_shards(folder / "train") for folder in folders]
    documents: list[np.ndarray] = []
    for shards in opened:
        special = shards.index["tokenizer"]["special"]
        for i in range(min(len(shards), per_step * steps - len(documents))):
            body = shards.read(i, 0, min(int(shards.lengths[i]), LONGEST - 2))
            documents.append(np.array([special["cls"], *body, special["sep"]], np.int32))
    by_step = split_into_steps(documents, "documents", per_step=per_step, steps=steps)
    return Documents(", ".join(x.name for x in opened), by_step)


def split_into_steps(
    items: Sequence[Item], name: str, *, per_step: int, steps: int
) -> list[Sequence[Item]]:
    """Return the first items, for each step.

    Raises:
      InputError: there are not so many.
    """
    wanted = per_step * steps
    if len(items) < wanted:
        raise InputError(
            f"{wanted} {name} are wanted, {len(items)} are there: fewer --documents or --steps"
        )
    return [items[i : i + per_step] for i in range(0, wanted, per_step)]


def cases(
    setting: Setting,
    *,
    shapes: list[tuple[int, int]],
    real: Documents | None,
    row_length: int,
    remat: bool,
    profile: Path | None,
) -> Iterator[Result]:
    """Yield a result for each of `shapes` (rows, length), or for the `real` documents.

    Args:
      row_length: of the real documents' rows; a longer document makes longer ones.
      profile: a folder for a trace of the first step once more, of which a table is printed.
    """
    work = [real] if real else [_random(*shape) for shape in shapes]
    for name, by_step in work:
        rectangles = [padded(step, max(map(len, step))) for step in by_step]
        devices = jax.local_device_count()
        ours = [pack(step, row_length, devices) for step in by_step] if real else rectangles
        theirs = [(batch, labels(batch)) for batch in rectangles]
        train = trainer(setting, ours, remat)
        baseline = fastest_baseline(setting, Head("masked_lm"), theirs, train=True)
        line = time_model(
            setting,
            f"training {setting.size} {setting.precision} {name}, "
            f"{len(ours)} step{'s' * (len(ours) > 1)}",
            train,
            baseline,
            sum(batch.tokens.size for batch in ours),
            theirs,
            predicted=MASK_RATE,
            passes=3,
            devices=train.mesh.size,
        )
        if not real:
            calls = time_interleaved(passes(train), setting.rounds, setting.repeats)
            seconds = {part: statistics.median(x) for part, x in calls.items()}
            line |= seconds | {f"{part}_calls": x for part, x in calls.items()}
            line["gradient_over_forward"] = seconds["gradient"] / seconds["forward"]
        if profile:
            train.profile(profile)
        yield line | dict(
            layout="packed" if real else "rows",
            remat=remat,
            seconds_to_compile=train.seconds_to_compile,
            **train.memory(),
        )


def trainer(setting: Setting, batches: list[Batch], remat: bool) -> Trainer:
    """Return the step of `training.train` over a few batches."""
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
    step = functools.partial(
        train_step, learning_rate=1e-4, graph=graph, optimizer=optimizer, rule=rule, seed=0
    )
    mesh = mesh_for_rows(*(len(batch.tokens) for batch in batches))
    state = init_state(make, optimizer, 0, abstract_state(shapes, optimizer, mesh))
    return Runner(step, state, [to_mesh(batch, mesh, 1) for batch in batches], mesh)


def passes(train: Trainer) -> dict[str, Callable[[], object]]:
    """Return functions that compute the loss, and its gradient, of the first batch.

    The optimizer is left out: the compiler drops what a result does not need.
    """
    first = train.batches[0]

    def compiled(metric: str) -> Callable[[], object]:
        part = jax.jit(lambda *x: getattr(train.step(*x)[1], metric))
        with jax.set_mesh(train.mesh):
            program = part.lower(train.state, first).compile()
        return lambda: jax.block_until_ready(program(train.state, first))

    return {"forward": compiled("loss"), "gradient": compiled("grad_norm")}


def pack(documents: Sequence[np.ndarray], row_length: int, devices: int) -> Batch:
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
