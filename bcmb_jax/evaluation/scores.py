# SPDX-License-Identifier: Apache-2.0
"""Scores of predictions, equal to scikit-learn's and seqeval's, and their confidence intervals.

Every score is a function of counts by example and class. A bootstrap over examples is then a
product of two matrices: how often each example was drawn, and its counts.

Shapes: `E` examples, `K` classes (labels; for tagging, entity types), `3` counts: true positives,
predicted, true.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, Tokens

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Kind

METRIC: dict[Kind, str] = {
    "single_label": "weighted_f1",
    "multi_label": "weighted_f1",
    "tagging": "f1",
}
SAMPLES_AT_ONCE = 50
Labels = Sequence[Sequence[int]]
"""Label indices of every example, as in `Example.labels`."""


def classes(kind: Kind, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that are counted: the labels, or the entity types of BIO tags.

    Entity types are in alphabetical order; that of bare `B` and `I` is `_`.

    Raises:
      InputError: a tag is not BIO.
    """
    if kind != "tagging":
        return tuple(labels)
    for tag in labels:
        if tag not in ("B", "I", "O") and not tag.startswith(("B-", "I-")):
            raise InputError(f"{tag!r} is not a BIO tag: it must be O, or begin with B- or I-")
    return tuple(sorted({type_ for tag in labels for type_, _, _ in get_entities([tag])}))


def counts(
    kind: Kind, labels: Sequence[str], truth: Labels, predicted: Labels, *, strict: bool = False
) -> np.ndarray:
    """Return `[E, K, 3]` int64: true positives, predicted, true.

    Args:
      strict: (tagging) entities begin with `B-` (seqeval's mode="strict" with IOB2). By default an
        `I-` that continues nothing begins one too, as in CoNLL's own script, seqeval's default
        and the paper.

    Raises:
      ValueError: truth and predictions are not of the same examples, or there are none.
    """
    _check(kind, truth, predicted)
    names = classes(kind, labels)
    counted = np.zeros((len(truth), len(names), 3), np.int64)
    find = _strict_entities if strict else get_entities
    for row, *both in zip(counted, truth, predicted, strict=True):
        if kind == "tagging":
            true, ours = (set(find([labels[i] for i in tags])) for tags in both)
        else:
            true, ours = ({(labels[i],) for i in held} for held in both)
        for column, found in enumerate((true & ours, ours, true)):
            for name, *_ in found:
                row[names.index(name), column] += 1
    return counted


def scores(kind: Kind, labels: Sequence[str], truth: Labels, predicted: Labels) -> dict[str, float]:
    """Return all scores of a kind of task, between 0 and 1; nothing divided by nothing is 0.

    single_label: accuracy, weighted_f1, micro_f1, macro_f1 (over the classes that occur).
    multi_label: weighted_f1, micro_f1, macro_f1 (over all classes), exact_match.
    tagging: f1, precision, recall over entities of all types, strict_f1.
    """
    by_example = counts(kind, labels, truth, predicted)
    total = by_example.sum(0)
    true_positives, positives, true = total.sum(0)
    if kind == "tagging":
        strict = counts(kind, labels, truth, predicted, strict=True).sum((0, 1))
        return {
            "f1": float(_f1(total.sum(0))),
            "precision": float(_divide(true_positives, positives)),
            "recall": float(_divide(true_positives, true)),
            "strict_f1": float(_f1(strict)),
        }
    occurring = total[:, 1:].any(1) if kind == "single_label" else np.ones(len(total), bool)
    values = {
        "weighted_f1": float(_weighted_f1(total)),
        "micro_f1": float(_f1(total.sum(0))),
        "macro_f1": float(_f1(total[occurring]).mean()),
    }
    if kind == "single_label":
        return {"accuracy": float(_divide(true_positives, true))} | values
    right = (by_example == by_example[..., :1]).all((1, 2))
    return values | {"exact_match": float(right.mean())}


def scores_by_class(
    kind: Kind, labels: Sequence[str], truth: Labels, predicted: Labels
) -> list[dict[str, Any]]:
    """Return a row for each class: name, precision, recall, f1, and how often it is true."""
    total = counts(kind, labels, truth, predicted).sum(0)
    return [
        {
            "class": name,
            "precision": float(_divide(row[0], row[1])),
            "recall": float(_divide(row[0], row[2])),
            "f1": float(_f1(row)),
            "support": int(row[2]),
        }
        for name, row in zip(classes(kind, labels), total, strict=True)
    ]


def confusion(kind: Kind, labels: Sequence[str], truth: Labels, predicted: Labels) -> np.ndarray:
    """Count how often each true label was predicted as each label, int64.

    `[label, label]`, true then predicted, over examples (single_label) or over words and their tags
    (tagging); multi_label: `[label, 2, 2]`, absent and present.
    """
    if kind == "multi_label":
        by_example = counts(kind, labels, truth, predicted)
        both, ours, true = by_example.sum(0).T
        neither = len(by_example) - ours - true + both
        return np.stack([neither, ours - both, true - both, both], -1).reshape(-1, 2, 2)
    _check(kind, truth, predicted)
    rows, columns = (np.concatenate([np.asarray(x, int) for x in y]) for y in (truth, predicted))
    flat = np.bincount(rows * len(labels) + columns, minlength=len(labels) ** 2)
    return flat.reshape(len(labels), len(labels))


def interval(
    kind: Kind,
    labels: Sequence[str],
    truth: Labels,
    predicted_of_seeds: Sequence[Labels],
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Bootstrap the primary metric's mean over seeds: percentiles over drawn test examples.

    The interval says how the score of these trained models varies with the test examples; the
    spread over seeds says how it varies with training.
    """
    by_seed = np.stack([counts(kind, labels, truth, x) for x in predicted_of_seeds])
    seeds, examples, names, _ = by_seed.shape
    flat = by_seed.transpose(1, 0, 2, 3).reshape(examples, -1).astype(float)
    random = np.random.default_rng(seed)
    means = []
    for first in range(0, samples, SAMPLES_AT_ONCE):
        drawn = random.integers(0, examples, (min(SAMPLES_AT_ONCE, samples - first), examples))
        times = np.stack([np.bincount(row, minlength=examples) for row in drawn])
        sums = (times @ flat).reshape(-1, seeds, names, 3)
        primary = _f1(sums.sum(-2)) if kind == "tagging" else _weighted_f1(sums)
        means.append(primary.mean(1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _f1(total: np.ndarray) -> np.ndarray:
    """`[..., 3]` → `[...]`."""
    return _divide(2 * total[..., 0], total[..., 1] + total[..., 2])


def _weighted_f1(total: np.ndarray) -> np.ndarray:
    """`[..., K, 3]` → `[...]`: mean over classes, weighted by how often each is true."""
    true = total[..., 2]
    return _divide((_f1(total) * true).sum(-1), true.sum(-1))


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.maximum(whole, 1)  # of counts: where the whole is 0, so is the part


def _strict_entities(tags: Iterable[str]) -> list[tuple[str, int, int]]:
    entities = Tokens(list(tags), IOB2).entities
    names = {IOB2(tag).tag: type_ for tag in tags for type_, _, _ in get_entities([tag])}
    return [(names[x.tag], x.start, x.end) for x in entities]


def _check(kind: Kind, truth: Labels, predicted: Labels) -> None:
    if len(truth) != len(predicted) or not len(truth):
        raise ValueError(f"{len(truth)} examples and {len(predicted)} predictions")
    if kind == "multi_label":
        return
    for i, (true, ours) in enumerate(zip(truth, predicted, strict=True)):
        if len(true) != len(ours) or (kind == "single_label" and len(true) != 1):
            raise ValueError(f"example {i} has {len(true)} labels and {len(ours)} predicted")
