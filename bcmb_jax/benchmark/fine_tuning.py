# SPDX-License-Identifier: Apache-2.0
"""Time steps of fine-tuning on a task: packed rows in JAX, padded batches in PyTorch."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from bcmb_jax.batch import Batch
from bcmb_jax.benchmark.report import Result, time_model
from bcmb_jax.benchmark.timing import Setting
from bcmb_jax.benchmark.torch_baselines import fastest_baseline
from bcmb_jax.benchmark.training import split_into_steps
from bcmb_jax.data.rows import padded
from bcmb_jax.evaluation.encode import IGNORED, Encoded, TaskTokenizer
from bcmb_jax.evaluation.examples import Dataset, Kind
from bcmb_jax.evaluation.finetune_jax import HEADS, JaxClassifier, pack
from bcmb_jax.evaluation.protocol import Settings
from bcmb_jax.model.heads import Head


def cases(
    setting: Setting,
    *,
    task: str,
    dataset: Dataset,
    tokenizer: TaskTokenizer,
    per_step: int,
    steps: int,
) -> Iterator[Result]:
    """Yield one result, for the first examples of the training split of `task`.

    Raises:
      InputError: there are not so many.
    """
    kind, head = dataset.kind, Head(HEADS[dataset.kind], dataset.labels)
    examples = split_into_steps(dataset.splits["train"], "examples", per_step=per_step, steps=steps)
    by_step = [tokenizer.encode(dataset, part) for part in examples]
    theirs = [_padded(part, kind) for part in by_step]
    classifier = JaxClassifier(
        setting.config,
        head,
        {},
        kind=kind,
        precision=setting.precision,
        settings=Settings(batch_size=per_step),
    )
    classifier.reset(0)

    def train() -> None:
        for part in by_step:
            loss = classifier.step(part, 1e-5)
        jax.block_until_ready(loss)

    baseline = fastest_baseline(setting, head, theirs, train=True)
    if not setting.repeats:
        train()  # it compiles; a baseline of a single call does not
    yield time_model(
        setting,
        f"fine-tuning {setting.size} {setting.precision} {task}, "
        f"{steps} step{'s' * (steps > 1)} of {per_step}",
        train,
        baseline,
        sum(rows.tokens.size for part in by_step for rows in pack(part, kind)[0]),
        theirs,
        passes=3,
    )


def _padded(examples: Sequence[Encoded], kind: Kind) -> tuple[Batch, np.ndarray]:
    """Return PyTorch's batch: a row an example, as long as the longest, and the labels."""
    longest = max(len(example.tokens) for example in examples)
    targets = [example.targets for example in examples]
    if kind == "tagging":
        targets = [np.pad(x, (0, longest - len(x)), constant_values=IGNORED) for x in targets]
    return padded([example.tokens for example in examples], longest), np.stack(targets)
