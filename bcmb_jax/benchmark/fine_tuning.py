# SPDX-License-Identifier: Apache-2.0
"""Time steps of fine-tuning on a task: packed rows in JAX, padded batches in PyTorch."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from bcmb_jax.benchmark.report import OURS, Setting, result
from bcmb_jax.benchmark.timing import matmul_ceiling, time_interleaved
from bcmb_jax.benchmark.torch_baselines import fastest_baseline
from bcmb_jax.data.rows import padded
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.encode import IGNORED, Encoded, TaskTokenizer
from bcmb_jax.evaluation.examples import Dataset, Kind
from bcmb_jax.evaluation.finetune_jax import HEADS, JaxClassifier, pack
from bcmb_jax.evaluation.protocol import Settings
from bcmb_jax.model.cost import forward_flops_per_token
from bcmb_jax.model.heads import Head


def first_examples(
    dataset: Dataset, tokenizer: TaskTokenizer, *, per_step: int, steps: int
) -> list[list[Encoded]]:
    """Return the first examples of the training split, for each step.

    Raises:
      InputError: there are not so many.
    """
    wanted, there = per_step * steps, dataset.splits["train"]
    if len(there) < wanted:
        raise InputError(
            f"{wanted} examples are wanted, {len(there)} are there: fewer --documents or --steps"
        )
    encoded = tokenizer.encode(dataset, there[:wanted])
    return [encoded[i : i + per_step] for i in range(0, wanted, per_step)]


def cases(
    setting: Setting, *, task: str, dataset: Dataset, by_step: Sequence[Sequence[Encoded]]
) -> Iterator[dict[str, Any]]:
    """Yield one result, for these examples of `task`."""
    kind = dataset.kind
    head = Head(HEADS[kind], dataset.labels)
    ceiling = matmul_ceiling(setting.dtype)
    theirs = [_padded(examples, kind) for examples in by_step]
    classifier = JaxClassifier(
        setting.config,
        head,
        {},
        kind=kind,
        dtype=setting.dtype,
        settings=Settings(batch_size=max(map(len, by_step))),
    )
    classifier.reset(0)

    def train() -> None:
        for examples in by_step:
            loss = classifier.step(examples, 1e-5)
        jax.block_until_ready(loss)

    baseline = fastest_baseline(setting, head, theirs, train=True)
    if not setting.repeats:
        train()  # it compiles; a baseline of a single call does not
    times = time_interleaved({OURS: train, **baseline.run}, setting.rounds, setting.repeats)
    lengths = np.array([len(example.tokens) for examples in by_step for example in examples])
    tokens = int(lengths.sum())
    yield result(
        f"fine-tuning {setting.size} {setting.precision} {task}, "
        f"{len(by_step)} step{'s' * (len(by_step) > 1)} of {len(by_step[0])}",
        tokens,
        times,
        flops=3 * tokens * forward_flops_per_token(setting.config, lengths, 0.0),
        ceiling=matmul_ceiling(setting.dtype, before=ceiling),
        peers=baseline.competed,
        documents=len(lengths),
        filled=tokens / sum(_positions(examples, kind) for examples in by_step),
        peer_filled=tokens / sum(batch.tokens.size for batch, _ in theirs),
        **setting.metadata(),
    )


def _padded(examples: Sequence[Encoded], kind: Kind):
    """Return PyTorch's batch: a row an example, as long as the longest, and the labels."""
    batch = padded([example.tokens for example in examples], max(len(x.tokens) for x in examples))
    if kind != "tagging":
        return batch, np.stack([example.targets for example in examples])
    labels = np.full(batch.tokens.shape, IGNORED)
    for row, example in zip(labels, examples, strict=True):
        row[: len(example.targets)] = example.targets
    return batch, labels


def _positions(examples: Sequence[Encoded], kind: Kind) -> int:
    """Count the tokens and padding that a step of ours computes."""
    return sum(rows.tokens.size for rows in pack(examples, kind)[0])
