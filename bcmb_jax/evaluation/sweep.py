# SPDX-License-Identifier: Apache-2.0
"""A task × model over seeds and learning rates: each fine-tuning is a file, so that what is done
is never done again, and the results are what the files say."""

import hashlib
import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset
from bcmb_jax.evaluation.protocol import Run, score
from bcmb_jax.evaluation.scores import METRIC, by_class, confusion, interval


def sweep(
    output: Path,
    dataset: Dataset,
    facts: Mapping[str, Any],
    fine_tune: Callable[[int, float], Run],
    *,
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Every seed at every learning rate, then the results of the best rate.

    Args:
      output: gets `runs/<rate>-<seed>.json` as each is done, and is read first.
      facts: of what is scored and how; runs in `output` must have the same.
      fine_tune: `(seed, learning_rate)` → its run.

    Returns:
      The results, of the learning rate whose median on validation is the highest (paper,
      appendix B); ties go to the lower one.

    Raises:
      InputError: `output` holds runs of something else; FloatingPointError: no rate has a loss.
    """
    runs: dict[float, list[Run]] = {}
    for rate in learning_rates:
        for seed in seeds:
            file = output / "runs" / f"{rate:g}-{seed}.json"
            done = _read(file, facts, dataset)
            if done is None:
                try:
                    done = fine_tune(seed, rate)
                except FloatingPointError as error:
                    if len(learning_rates) == 1:
                        raise
                    say(f"learning rate {rate:g} is out: {error}")
                    runs.pop(rate, None)
                    break
                write_json(file, {"facts": dict(facts), **done._asdict()})
            runs.setdefault(rate, []).append(done)
            say(
                f"seed {seed}, learning rate {rate:g}: {METRIC[dataset.kind]} "
                f"{_validation(done):.4f} on validation (epoch {done.best_epoch}), "
                f"{_test_score(dataset, done):.4f} on test, {done.seconds:.0f} s"
            )
    if not runs:
        raise FloatingPointError(f"the loss is not finite at any of {len(learning_rates)} rates")
    grid = {rate: statistics.median(map(_validation, of_rate)) for rate, of_rate in runs.items()}
    chosen = max(sorted(grid), key=lambda rate: grid[rate])
    return results(dataset, runs[chosen]) | {
        "learning_rate": chosen,
        "grid": {f"{rate:g}": value for rate, value in grid.items()} if len(grid) > 1 else None,
    }


def results(dataset: Dataset, runs: Sequence[Run]) -> dict[str, Any]:
    """What runs at one learning rate come to, on the test split."""
    kind, labels, metric = dataset.kind, dataset.labels, METRIC[dataset.kind]
    truth = [example.labels for example in dataset.splits["test"]]
    by_seed = [score(dataset, "test", run.predicted) for run in runs]
    per_seed = [x[metric] for x in by_seed]
    median = statistics.median_low(per_seed)
    middle = runs[per_seed.index(median)].predicted
    return {
        "kind": kind,
        "metric": metric,
        "seeds": [run.seed for run in runs],
        "per_seed": per_seed,
        "median": statistics.median(per_seed),
        "mean": statistics.mean(per_seed),
        "spread": statistics.stdev(per_seed) if len(per_seed) > 1 else 0.0,
        "interval": interval(kind, labels, truth, [run.predicted for run in runs]),
        "scores": by_seed,
        "by_class": by_class(kind, labels, truth, middle),
        "confusion": {
            "labels": list(labels),
            "counts": confusion(kind, labels, truth, middle).tolist(),
        },
        "curves": [run.curve for run in runs],
        "best_epochs": [run.best_epoch for run in runs],
        "seconds": sum(run.seconds for run in runs),
    }


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of the labels and of every example."""
    digest = hashlib.sha256(json.dumps([dataset.kind, *dataset.labels]).encode())
    for split, examples in sorted(dataset.splits.items()):
        digest.update(split.encode())
        for example in examples:
            digest.update(json.dumps([example.text, example.labels]).encode())
    return digest.hexdigest()


def fingerprint_of_weights(params: Mapping[str, Any]) -> str:
    """SHA-256 of arrays and their names."""
    digest = hashlib.sha256()
    for name in sorted(params):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(params[name]).tobytes())
    return digest.hexdigest()


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """All or nothing: a reader never meets half a file, also where the machine stops."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    with partial.open("w", encoding="utf-8") as out:
        out.write(json.dumps(content, indent=1) + "\n")
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, file)


def _read(file: Path, facts: Mapping[str, Any], dataset: Dataset) -> Run | None:
    if not file.is_file():
        return None
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        found = said.pop("facts")
        run = Run(**said)._replace(predicted=[tuple(x) for x in said["predicted"]])
        score(dataset, "test", run.predicted)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{file} is not a run of this task ({error}); remove it") from error
    differing = [key for key in facts if found.get(key) != facts[key]]
    if differing:
        key = differing[0]
        raise InputError(
            f"{file} is of {key} {found.get(key)!r}, this is {facts[key]!r}; choose another "
            "--output, or remove the folder"
        )
    return run


def _validation(run: Run) -> float:
    return max((point["validation"] for point in run.curve), default=0.0)


def _test_score(dataset: Dataset, run: Run) -> float:
    return score(dataset, "test", run.predicted)[METRIC[dataset.kind]]
