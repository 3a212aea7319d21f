# SPDX-License-Identifier: Apache-2.0
"""Steps of fine-tuning on the examples of a task: `evaluation.finetune`'s, on packed rows, beside
padded batches in PyTorch."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from bcmb_jax.benchmark.result import OURS, result
from bcmb_jax.benchmark.roofline import matmul_ceiling
from bcmb_jax.benchmark.setting import Setting
from bcmb_jax.benchmark.timing import race
from bcmb_jax.benchmark.torch_peer import fastest_peer
from bcmb_jax.data.rows import padded
from bcmb_jax.device import target
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.encode import IGNORED, Encoded, TaskTokenizer
from bcmb_jax.evaluation.examples import Dataset, Kind
from bcmb_jax.evaluation.finetune_jax import HEADS, TOKENS_AT_ONCE, JaxClassifier, pack
from bcmb_jax.evaluation.protocol import Settings
from bcmb_jax.model.cost import forward_flops_per_token
from bcmb_jax.model.heads import Head


def first_examples(
    dataset: Dataset, tokenizer: TaskTokenizer, *, per_step: int, steps: int
) -> list[list[Encoded]]:
    """Of the training split, for each step.

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
    setting: Setting, *, task: str, dataset: Dataset, of_steps: Sequence[Sequence[Encoded]]
) -> Iterator[dict[str, Any]]:
    """One result, of these examples of `task`."""
    kind, labels = dataset.kind, dataset.labels
    head = Head(HEADS[kind], labels)
    ceiling = matmul_ceiling(setting.dtype)
    theirs = [_padded(examples, kind) for examples in of_steps]
    classifier = JaxClassifier(
        setting.config,
        head,
        {},
        kind=kind,
        dtype=setting.dtype,
        batch_size=max(map(len, of_steps)),
        weight_decay=Settings.weight_decay,
    )
    classifier.reset(0)

    def train() -> None:
        for examples in of_steps:
            loss = classifier.step(examples, 1e-5)
        jax.block_until_ready(loss)

    peer = fastest_peer(setting, head, theirs, train=True)
    if not setting.burst:
        train()  # it compiles, the peer of a single call does not
    times = race({OURS: train, **peer.sides}, setting.rounds, setting.burst)
    lengths = np.array([len(example.tokens) for examples in of_steps for example in examples])
    tokens = int(lengths.sum())
    yield result(
        f"fine-tuning {setting.size} {setting.precision} {task}, "
        f"{len(of_steps)} step{'s' * (len(of_steps) > 1)} of {len(of_steps[0])}",
        tokens,
        times,
        flops=3 * tokens * forward_flops_per_token(setting.config, lengths, 0.0),
        ceiling=matmul_ceiling(setting.dtype, before=ceiling),
        peers=peer.competed,
        documents=len(lengths),
        filled=tokens / sum(_positions(examples, kind, len(labels)) for examples in of_steps),
        peer_filled=tokens / sum(batch.tokens.size for batch, _ in theirs),
        **setting.facts(),
    )


def _padded(examples: Sequence[Encoded], kind: Kind):
    """For the peer: a row each, as long as the longest, and the labels."""
    batch = padded([example.tokens for example in examples], max(len(x.tokens) for x in examples))
    if kind != "tagging":
        return batch, np.stack([example.targets for example in examples])
    labels = np.full(batch.tokens.shape, IGNORED)
    for row, example in zip(labels, examples, strict=True):
        row[: len(example.targets)] = example.targets
    return batch, labels


def _positions(examples: Sequence[Encoded], kind: Kind, labels: int) -> int:
    """Tokens and padding that a step of ours computes."""
    passes, _ = pack(examples, kind, labels, tokens_at_once=TOKENS_AT_ONCE[target().platform])
    return sum(rows.tokens.size for rows in passes)
