# SPDX-License-Identifier: Apache-2.0
"""One fine-tuning: the same batches, schedule and choice of the epoch for every model and backend.

The protocol is the paper's (§3.2.2), with upstream's settings (RECIPE §7).
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, SupportsFloat

import numpy as np

from bcmb_jax.evaluation.encode import Encoded, TaskTokenizer
from bcmb_jax.evaluation.examples import Dataset
from bcmb_jax.evaluation.scores import METRIC, scores

Predicted = list[tuple[int, ...]]
"""Predicted labels of each example, in the form of `Example.labels`."""
LARGE = 1024  # hidden size from which a model gets the learning rates of Table 5's large one
TIMED = 6  # first steps that are waited for, so that `progress` can tell the time that all take


@dataclasses.dataclass(frozen=True)
class Settings:
    """The paper's settings (§3.2.2).

    AdamW has betas 0.9 and 0.999 and eps 1e-8, gradients are clipped to a norm of 1, the learning
    rate falls linearly to 0 without a warm-up, and norms and biases do not decay.
    """

    epochs: int = 10
    batch_size: int = 16
    weight_decay: float = 1e-5


class Classifier(Protocol):
    """A model that can be fine-tuned, on any backend."""

    def reset(self, seed: int) -> None:
        """Take the given weights, a new classifier drawn by `seed`, and a fresh optimizer."""

    def step(self, examples: Sequence[Encoded], learning_rate: float) -> SupportsFloat:
        """Take one optimizer step and return the loss before it; `float` waits for its value."""

    def predict(self, examples: Sequence[Encoded]) -> Predicted:
        """Predict the labels of examples. A word without a token is `O`: no entity."""

    def snapshot(self) -> Mapping[str, np.ndarray]:
        """Copy the weights to the host."""

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        """Put back the weights of a snapshot."""


class FineTuningModel(NamedTuple):
    """A model with a classifier for a task.

    Attributes:
      metadata: what identifies the weights and how they compute; JSON.
      width: hidden size of the encoder.
      save: `(folder, description of the training)` writes the current weights as a Hugging Face
        folder; None for models of transformers. It takes thresholds and results to be kept too.
    """

    classifier: Classifier
    tokenizer: TaskTokenizer
    metadata: dict[str, Any]
    width: int
    save: Callable[..., None] | None = None

    @property
    def size(self) -> str:
        """The size by which the paper chose a learning rate."""
        return "large" if self.width >= LARGE else "base"


class Run(NamedTuple):
    """One finished fine-tuning.

    Attributes:
      curve: epoch, train_loss and validation (the task's metric) of every epoch.
      best_epoch: the first epoch with the highest validation metric; its weights predict.
      predicted: labels predicted for the test split.
    """

    seed: int
    learning_rate: float
    curve: list[dict[str, float]]
    best_epoch: int
    predicted: Predicted
    seconds: float


def fine_tune(
    model: Classifier,
    dataset: Dataset,
    encoded: Mapping[str, Sequence[Encoded]],
    settings: Settings,
    *,
    seed: int,
    learning_rate: float,
    progress: Callable[[float, str], None] = lambda done, text: None,
    patience: int = 0,
) -> Run:
    """Fine-tune on train, choose the epoch on validation, predict test.

    Args:
      progress: called after each step with the part that is done and a text.
      patience: end after so many epochs without a better one; 0 trains all.

    Raises:
      FloatingPointError: the loss is not finite.
    """
    # Fidelity: upstream's Trainer resets its seed to 42, so that its five seeds differ in the new
    # classifier alone. Here a seed also orders the examples: the spread over seeds then holds what
    # a reader expects of it.
    # Fidelity: upstream scores the words that a model has read; here what is cut off counts as
    # missed, for every model alike, and the results say how much was cut.
    # Fidelity: the paper speaks of early stopping; its code trains all epochs and keeps the best.
    started = time.perf_counter()
    train, validation = encoded["train"], encoded["validation"]
    model.reset(seed)
    steps_per_epoch = -(-len(train) // settings.batch_size)
    steps = steps_per_epoch * settings.epochs
    best, curve = -math.inf, []
    weights: Mapping[str, np.ndarray] = {}
    for epoch in range(settings.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(train))
        losses = []
        for i in range(steps_per_epoch):
            step = epoch * steps_per_epoch + i
            chosen = order[i * settings.batch_size : (i + 1) * settings.batch_size]
            rate = learning_rate * (1 - step / steps)
            losses.append(model.step([train[e] for e in chosen], rate))
            if step < TIMED:
                float(losses[-1])
            progress((step + 1) / steps, f"epoch {epoch + 1} of {settings.epochs}")
        loss = float(np.mean([float(x) for x in losses]))
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss of epoch {epoch + 1} is {loss} at learning rate {learning_rate:g} "
                f"(seed {seed}); lower --learning-rate"
            )
        metric = score(dataset, "validation", model.predict(validation))[METRIC[dataset.kind]]
        curve.append({"epoch": epoch + 1, "train_loss": loss, "validation": metric})
        if metric > best:
            best, weights = metric, model.snapshot()
        if patience and epoch - int(np.argmax([x["validation"] for x in curve])) >= patience:
            break
    model.restore(weights)
    predicted = model.predict(encoded["test"])
    best_epoch = 1 + int(np.argmax([point["validation"] for point in curve]))
    return Run(seed, learning_rate, curve, best_epoch, predicted, time.perf_counter() - started)


def score(dataset: Dataset, split: str, predicted: Predicted) -> dict[str, float]:
    """Return all scores of predictions for a split."""
    truth = [example.labels for example in dataset.splits[split]]
    return scores(dataset.kind, dataset.labels, truth, predicted)
