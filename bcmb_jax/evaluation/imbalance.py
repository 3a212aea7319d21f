# SPDX-License-Identifier: Apache-2.0
"""Rare labels: weights of classes for training, and thresholds from which a label holds."""

from collections import Counter

import numpy as np

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset

HALF = 0.5  # the threshold of a label whose own cannot be told
FEWEST_POSITIVES = 5
"""Validation examples that a label must hold in for a threshold of its own."""


def balanced_weights(dataset: Dataset) -> tuple[float, ...]:
    """Return weights under which every label counts as much as the others in training.

    single_label: examples / (labels * examples with the label), as scikit-learn's "balanced".
    multi_label: examples without the label / examples with it, for those with it.

    Raises:
      InputError: the labels are tags, of which almost all are O.
    """
    if dataset.kind == "tagging":
        raise InputError(
            "--class-weights balanced is for labels of texts: of tags nearly all are O, and "
            "balanced ones would find entities everywhere; leave it out"
        )
    train = dataset.splits["train"]
    uses = Counter(label for example in train for label in example.labels)
    held = np.array([max(1, uses[i]) for i in range(len(dataset.labels))])
    if dataset.kind == "multi_label":
        weights = np.maximum(len(train) - held, 1) / held
    else:
        weights = len(train) / (len(held) * held)
    return tuple(weights.tolist())


def choose_thresholds(probabilities: np.ndarray, held: np.ndarray) -> tuple[float, ...]:
    """Return for each label the probability from which it holds, so that F1 is highest.

    Of equally good ones it is that nearest to a half. A label that too few examples have keeps a
    half.

    Args:
      probabilities: `[N, labels]`.
      held: which labels hold, `[N, labels]` bool.
    """
    pairs = zip(probabilities.T.astype(float), held.T, strict=True)
    return tuple(_threshold(*pair) for pair in pairs)


def _threshold(probabilities: np.ndarray, held: np.ndarray) -> float:
    if held.sum() < FEWEST_POSITIVES:
        return HALF
    order = np.argsort(-probabilities)
    sorted_, below = probabilities[order], np.append(probabilities[order][1:], 0.0)
    f1 = 2 * np.cumsum(held[order]) / (np.arange(1, len(held) + 1) + held.sum())
    f1[sorted_ == below] = -1  # no threshold parts equal probabilities
    middles = np.where((below < HALF) & (sorted_ >= HALF), HALF, (sorted_ + below) / 2)
    best = middles[f1 == f1.max()]
    return float(best[np.argmin(np.abs(best - HALF))])
