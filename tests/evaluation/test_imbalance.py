# SPDX-License-Identifier: Apache-2.0
"""Weights of classes, and thresholds that make the most of F1."""

import numpy as np
import pytest

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Kind
from bcmb_jax.evaluation.imbalance import HALF, balanced_weights, choose_thresholds


def dataset(kind: Kind, labels: list[tuple[int, ...]]) -> Dataset:
    train = [Example(f"{i}", "text", x) for i, x in enumerate(labels)]
    return Dataset(kind, ("a", "b"), {"train": train, "validation": [], "test": []})


def test_balanced_weights_make_labels_count_the_same() -> None:
    labels = [(0,)] * 9 + [(1,)] * 3
    weights = balanced_weights(dataset("single_label", labels))
    assert weights == pytest.approx((12 / 18, 12 / 6))
    assert 9 * weights[0] == pytest.approx(3 * weights[1])
    several: list[tuple[int, ...]] = [(0, 1)] * 2 + [(0,)] * 4 + [()] * 6
    assert balanced_weights(dataset("multi_label", several)) == pytest.approx((6 / 6, 10 / 2))
    with pytest.raises(InputError, match="of tags nearly all are O"):
        balanced_weights(dataset("tagging", labels))


def f1(probabilities: np.ndarray, held: np.ndarray, threshold: float) -> float:
    predicted = probabilities >= threshold
    return 2 * (predicted & held).sum() / max(1, predicted.sum() + held.sum())


def test_a_threshold_has_the_highest_f1_there_is() -> None:
    random = np.random.default_rng(0)
    held = random.random((200, 4)) < (0.5, 0.05, 0.3, 0.01)
    probabilities = np.clip(0.3 * held + 0.5 * random.random(held.shape), 0, 1).round(2)
    chosen = choose_thresholds(probabilities, held)
    for column, threshold in enumerate(chosen[:3]):
        p, h = probabilities[:, column], held[:, column]
        best = max(f1(p, h, x) for x in np.linspace(0, 1, 1001))
        assert f1(p, h, threshold) == pytest.approx(best)
    assert f1(probabilities[:, 1], held[:, 1], chosen[1]) > f1(probabilities[:, 1], held[:, 1], 0.8)
    assert held[:, 3].sum() < 5
    assert chosen[3] == HALF


def test_a_half_stays_where_it_is_as_good() -> None:
    probabilities = np.array([[0.9, 0.2, 0.4]] * 10 + [[0.1, 0.05, 0.3]] * 10)
    held = np.array([[True] * 3] * 10 + [[False] * 3] * 10)
    half, low, middle = choose_thresholds(probabilities, held)
    assert half == HALF
    assert (low, middle) == pytest.approx((0.125, 0.35))
