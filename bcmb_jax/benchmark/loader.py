# SPDX-License-Identifier: Apache-2.0
"""Time reading: tokens a second that the loader packs into rows, and how long a step waits."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bcmb_jax.benchmark.report import Result, result
from bcmb_jax.benchmark.timing import OURS
from bcmb_jax.data.loader import Position, Steps
from bcmb_jax.data.plan import PackingPlan
from bcmb_jax.data.shard_writer import ShardWriter
from bcmb_jax.data.shards import Shards, open_shards
from bcmb_jax.data.synthetic import train_tokenizer
from bcmb_jax.data.tokenize import SpecialTokens, load_tokenizer

MADE_UP_TOKENS = 30_000_000
VOCABULARY = 512
ROWS_PER_STEP = 8
WARM_UP = 4  # steps: the first ones find nothing read ahead
STEPS = 10  # whose waiting is measured, each time
SECONDS_OF_A_STEP = 0.05  # a device's, while which the loader reads ahead


def cases(
    folders: list[Path], *, lengths: list[int], documents: int, workdir: Path, rounds: int
) -> Iterator[Result]:
    """Yield a result for each row length: rows a second, and how long a step waits for them.

    Args:
      folders: of bcmb prepare; none: documents are made up in `workdir`, on its disk.
      documents: how many are made up; 0: as many as have `MADE_UP_TOKENS`.
    """
    shards = [open_shards(x / "train") for x in folders] or [make_up(workdir, documents)]
    source = "made-up documents" if not folders else ", ".join(x.name for x in shards)
    special = SpecialTokens(**shards[0].index["tokenizer"]["special"])
    for length in lengths:
        plan = PackingPlan(
            [x.lengths for x in shards],
            weights=[1.0] * len(shards),
            row_length=length,
            max_document_length=length,
            seed=0,
        )
        epoch = plan.epoch(0)
        steps = max(1, epoch.rows // ROWS_PER_STEP)
        speeds, tokens, waiting = [], 0, 0.0
        for _ in range(rounds):
            ahead = Steps(shards, plan, Position(), special=special, rows_per_step=ROWS_PER_STEP)
            batches = ahead.read_ahead()
            for _ in itertools.islice(batches, WARM_UP):
                pass
            start, tokens = time.perf_counter(), 0
            for item in itertools.islice(batches, steps):
                tokens += item.tokens
            speeds.append(time.perf_counter() - start)
            for step in range(1 + STEPS):
                time.sleep(SECONDS_OF_A_STEP)
                start = time.perf_counter()
                next(batches)
                if step:  # before the first, at an epoch's end, the next one had to be planned
                    waiting += time.perf_counter() - start
            batches.close()
        yield result(
            f"loader {source}, rows of {length}",
            tokens,
            {OURS: speeds},
            rows_per_second=steps * ROWS_PER_STEP / float(np.median(speeds)),
            share_of_a_step_waiting=waiting / (STEPS * rounds * SECONDS_OF_A_STEP + waiting),
            seconds_of_a_step=SECONDS_OF_A_STEP,
            filled=epoch.efficiency,
            length=length,
        )


def make_up(workdir: Path, documents: int = 0) -> Shards:
    """Write shards of random tokens, of lengths like those of abstracts and articles."""
    train_tokenizer(["a note"], VOCABULARY, workdir / "tokenizer")
    rng = np.random.default_rng(0)
    with ShardWriter(workdir / "train", load_tokenizer(str(workdir / "tokenizer"))) as writer:
        for made in itertools.count():
            if made == documents if documents else writer.tokens >= MADE_UP_TOKENS:
                break
            length = int(np.clip(rng.lognormal(6.0, 1.0), 16, 20_000))
            writer.add(rng.integers(0, VOCABULARY, length))
        writer.finish(source="made-up", split="train", seed=0, options={})
    return open_shards(workdir / "train")
