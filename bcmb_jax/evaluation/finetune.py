# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a model on a user's own data, to be kept: one seed or the best of several."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from bcmb_jax.evaluation.encode import Encoded, TaskTokenizer
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.finetune_jax import JaxClassifier
from bcmb_jax.evaluation.imbalance import choose_thresholds
from bcmb_jax.evaluation.protocol import TIMED, FineTuningModel, Run, Settings, fine_tune, score
from bcmb_jax.evaluation.scores import METRIC
from bcmb_jax.evaluation.sweep import describe, results_of
from bcmb_jax.terminal import Display


class Tuned(NamedTuple):
    """Results of a fine-tuning whose model holds the weights of the best seed.

    Attributes:
      results: for `results.json`, in the form of `bcmb evaluate`, with more about this use.
      thresholds: of the labels, where several may hold.
    """

    results: dict[str, Any]
    thresholds: tuple[float, ...]


def fine_tune_best(
    model: FineTuningModel,
    dataset: Dataset,
    settings: Settings,
    *,
    seeds: Sequence[int],
    learning_rate: float,
    patience: int,
) -> Tuned:
    """Fine-tune with every seed, and leave the model with the best weights on validation.

    Raises:
      FloatingPointError: the loss is not finite.
    """
    display, metric = Display(), METRIC[dataset.kind]
    dataset = divide_long(dataset, model.tokenizer)
    encoded = {split: model.tokenizer.encode(dataset, x) for split, x in dataset.splits.items()}
    cut = {split: sum(x.cut for x in examples) for split, examples in encoded.items()}
    if any(cut.values()):
        display.say(
            f"{sum(cut.values()):,} texts are longer than {model.tokenizer.max_length} tokens: the "
            "rest is not trained on (bcmb predict reads all, and averages over windows)"
        )
    about = describe(dataset, model.tokenizer.count_tokens, display)
    runs: list[Run] = []
    best: tuple[float, Mapping[str, np.ndarray], tuple[float, ...]] = (-1.0, {}, ())
    more: dict[str, Any] = {}
    for seed in seeds:
        run = fine_tune(
            model.classifier,
            dataset,
            encoded,
            settings,
            seed=seed,
            learning_rate=learning_rate,
            progress=_progress(encoded, settings, f"seed {seed}", display),
            patience=patience,
        )
        run, thresholds, scores = _with_thresholds(model, dataset, encoded, run)
        display.say(
            f"seed {seed}: {metric} {scores['validation'][metric]:.4f} on validation (epoch "
            f"{run.best_epoch} of {len(run.curve)}), "
            f"{score(dataset, 'test', run.predicted)[metric]:.4f} on test, {run.seconds:.0f} s"
        )
        runs.append(run)
        if scores["validation"][metric] > best[0]:
            best = scores["validation"][metric], model.classifier.snapshot(), thresholds
            more = scores | {"kept_seed": seed}
    display.close()
    model.classifier.restore(best[1])
    if best[2]:
        more["thresholds"] = dict(zip(dataset.labels, best[2], strict=True))
    details = {"truncated": cut, "epochs": settings.epochs, "patience": patience, "dataset": about}
    results = results_of(dataset, runs) | {"learning_rate": learning_rate, "grid": None}
    return Tuned(results | details | more, best[2])


def divide_long(dataset: Dataset, tokenizer: TaskTokenizer) -> Dataset:
    """Divide texts with tags that are longer than the model reads; a note says how many."""
    if dataset.kind != "tagging":
        return dataset
    splits: dict[str, list[Example]] = {}
    long = parts = 0
    for split, examples in dataset.splits.items():
        splits[split] = []
        for example in examples:
            divided = tokenizer.divide(example, dataset.labels)
            splits[split] += divided
            long, parts = long + (len(divided) > 1), parts + len(divided) * (len(divided) > 1)
    note = (
        f"{long:,} texts of more than {tokenizer.max_length:,} tokens, trained on and scored as "
        f"{parts:,} parts, divided between words and never in an entity that fits"
    )
    return replace(dataset, splits=splits, notes=(*dataset.notes, *([note] if long else ())))


def _with_thresholds(
    model: FineTuningModel, dataset: Dataset, encoded: Mapping[str, Sequence[Encoded]], run: Run
) -> tuple[Run, tuple[float, ...], dict[str, Any]]:
    """Return a run as its thresholds have it, these, and the scores on validation.

    Only where several labels may hold there are any; the scores at 0.5 are then kept too.
    """
    classifier = model.classifier
    if dataset.kind != "multi_label" or not isinstance(classifier, JaxClassifier):
        predicted = classifier.predict(encoded["validation"])
        return run, (), {"validation": score(dataset, "validation", predicted)}
    probabilities = {s: classifier.probabilities(encoded[s]) for s in ("validation", "test")}
    held = np.array([x.targets > 0 for x in encoded["validation"]])
    thresholds = choose_thresholds(probabilities["validation"], held)
    validation, test = (
        [tuple(np.flatnonzero(x).tolist()) for x in probabilities[split] >= np.array(thresholds)]
        for split in ("validation", "test")
    )
    scores = {
        "validation": score(dataset, "validation", validation),
        "test_at_half": score(dataset, "test", run.predicted),
    }
    return run._replace(predicted=test), thresholds, scores


def _progress(
    encoded: Mapping[str, Sequence[Encoded]], settings: Settings, name: str, display: Display
) -> Callable[[float, str], None]:
    """Return a display of steps that says after the first of them how long all may take."""
    times: list[float] = []
    train = len(encoded["train"])
    steps = -(-train // settings.batch_size) * settings.epochs
    scoring = 1 + len(encoded["validation"]) / (3 * train)  # a step computes three times as much

    def progress(done: float, text: str) -> None:
        if len(times) < TIMED:
            times.append(time.monotonic())
            if len(times) == TIMED:
                step = statistics.median(y - x for x, y in pairwise(times))
                display.say(
                    f"{name}: {step:.2g} s a step, about {_duration(step * steps * scoring)} for "
                    f"all {settings.epochs} epochs"
                )
        display.progress(done, f"{name}, {text}")

    return progress


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
