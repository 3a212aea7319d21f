# SPDX-License-Identifier: Apache-2.0
"""Seeds and learning rates of one model on one task, and the results they add up to.

Each fine-tuning is a file, so that a finished one is never repeated.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Text, dataset_statistics, statistics_tables
from bcmb_jax.evaluation.protocol import FineTuningModel, Run, Settings, fine_tune, score
from bcmb_jax.evaluation.scores import METRIC, confusion, interval, scores_by_class
from bcmb_jax.files import read_json, write_json
from bcmb_jax.terminal import Display


def evaluate_model(
    model: FineTuningModel,
    dataset: Dataset,
    settings: Settings,
    output: Path,
    metadata: Mapping[str, Any],
    *,
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    keep: bool = False,
) -> dict[str, Any]:
    """Return the results of a model that is fine-tuned on a task, for `results.json`.

    Args:
      output, metadata: as in `sweep`.
      keep: write the weights that each run ends with, to `output/models/<rate>-<seed>`.

    Raises:
      InputError, FloatingPointError: as in `sweep`.
    """
    display, tokenizer = Display(), model.tokenizer
    encoded = {split: tokenizer.encode(dataset, x) for split, x in dataset.splits.items()}
    cut = {split: sum(e.cut for e in examples) for split, examples in encoded.items()}
    if any(cut.values()):
        display.say(
            f"cut at {tokenizer.max_length} tokens, the rest unseen: "
            + ", ".join(f"{n:,} of {len(encoded[s]):,} {s} texts" for s, n in cut.items())
        )
    description = describe(dataset, tokenizer.count_tokens, display)

    def run(seed: int, learning_rate: float) -> Run:
        name = f"seed {seed}, learning rate {learning_rate:g}"
        done = fine_tune(
            model.classifier,
            dataset,
            encoded,
            settings,
            seed=seed,
            learning_rate=learning_rate,
            progress=lambda part, text: display.progress(part, f"{name}, {text}"),
        )
        if keep and model.save:
            folder = output / "models" / f"{learning_rate:g}-{seed}"
            model.save(folder, f"{metadata['task']} ({name})")
        return done

    results = sweep(
        output, dataset, metadata, run, seeds=seeds, learning_rates=learning_rates, say=display.say
    )
    display.close()
    details = {"truncated": cut, "epochs": settings.epochs, "settings": dict(metadata)}
    return results | details | {"dataset": description}


def evaluate_text_baseline(
    dataset: Dataset, output: Path, metadata: Mapping[str, Any], *, seeds: Sequence[int]
) -> dict[str, Any]:
    """Return the results of the TF-IDF or linear baseline, in the form of `evaluate_model`."""
    from bcmb_jax.evaluation import finetune_text  # scikit-learn takes a second to import

    display = Display()
    description = describe(dataset, finetune_text.count_words, display, special_tokens=0)

    def run(seed: int, learning_rate: float) -> Run:
        start = time.perf_counter()
        predicted = finetune_text.fit_predict(dataset, seed)
        return Run(seed, learning_rate, [], 0, predicted, time.perf_counter() - start)

    results = sweep(
        output, dataset, metadata, run, seeds=seeds, learning_rates=[0.0], say=display.say
    )
    return results | {"dataset": description, "settings": dict(metadata)}


def describe(
    dataset: Dataset, count_tokens: Callable[[Text], int], display: Display, **special: int
) -> dict[str, Any]:
    """Show the statistics of a dataset and return them, for `results.json`."""
    splits = dataset_statistics(dataset, count_tokens, **special)
    display.say(statistics_tables(dataset, splits, **special))
    return {
        "labels": len(dataset.labels),
        "examples": {split: x.examples for split, x in splits.items()},
        "mean_tokens": {split: x.mean_tokens for split, x in splits.items()},
        "notes": list(dataset.notes),
    }


def sweep(
    output: Path,
    dataset: Dataset,
    metadata: Mapping[str, Any],
    fine_tune: Callable[[int, float], Run],
    *,
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run every seed at every learning rate and return the results of the best rate.

    The best learning rate is the one with the highest median on validation (paper, appendix B); of
    equal ones the lowest.

    Args:
      output: gets `runs/<rate>-<seed>.json` as each run ends; runs found there are not repeated.
      metadata: what is scored and how; the runs in `output` must have the same.
      fine_tune: makes the run of `(seed, learning_rate)`.

    Raises:
      InputError: `output` holds runs of something else.
      FloatingPointError: the loss is not finite at any rate.
    """
    runs: dict[float, list[Run]] = {}
    metric = METRIC[dataset.kind]
    for rate in learning_rates:
        for seed in seeds:
            file = output / "runs" / f"{rate:g}-{seed}.json"
            done = _read_run(file, metadata, dataset) if file.is_file() else None
            if done is None:
                try:
                    done = fine_tune(seed, rate)
                except FloatingPointError as error:
                    if len(learning_rates) == 1:
                        raise
                    say(f"learning rate {rate:g} is out: {error}")
                    runs.pop(rate, None)
                    break
                write_json(file, {"facts": dict(metadata), **done._asdict()}, indent=1)
            runs.setdefault(rate, []).append(done)
            say(
                f"seed {seed}, learning rate {rate:g}: {metric} {_validation(done):.4f} on "
                f"validation (epoch {done.best_epoch}), "
                f"{score(dataset, 'test', done.predicted)[metric]:.4f} on test, "
                f"{done.seconds:.0f} s"
            )
    if not runs:
        raise FloatingPointError(f"the loss is not finite at any of {len(learning_rates)} rates")
    grid = {rate: statistics.median(map(_validation, found)) for rate, found in runs.items()}
    chosen = max(sorted(grid), key=grid.__getitem__)
    return results_of(dataset, runs[chosen]) | {
        "learning_rate": chosen,
        "grid": {f"{rate:g}": value for rate, value in grid.items()} if len(grid) > 1 else None,
    }


def summary(results: Mapping[str, Any]) -> str:
    """Describe results in one line."""
    low, high = results["interval"]
    return (
        f"{results['metric']}: median {results['median']:.4f}, mean {results['mean']:.4f} ± "
        f"{results['spread']:.4f} over {len(results['seeds'])} seeds, 95 % interval over test "
        f"examples {low:.4f} to {high:.4f}"
    )


def results_of(dataset: Dataset, runs: Sequence[Run]) -> dict[str, Any]:
    """Return the scores on the test split of runs at one learning rate."""
    kind, labels, metric = dataset.kind, dataset.labels, METRIC[dataset.kind]
    truth = [example.labels for example in dataset.splits["test"]]
    by_seed = [score(dataset, "test", run.predicted) for run in runs]
    per_seed = [x[metric] for x in by_seed]
    middle = runs[per_seed.index(statistics.median_low(per_seed))].predicted
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
        "by_class": scores_by_class(kind, labels, truth, middle),
        "confusion": {
            "labels": list(labels),
            "counts": confusion(kind, labels, truth, middle).tolist(),
        },
        "curves": [run.curve for run in runs],
        "best_epochs": [run.best_epoch for run in runs],
        "seconds": sum(run.seconds for run in runs),
    }


def _read_run(file: Path, metadata: Mapping[str, Any], dataset: Dataset) -> Run:
    try:
        values = read_json(file)
        stored = dict(values.pop("facts"))
        run = Run(**values)._replace(predicted=[tuple(x) for x in values["predicted"]])
        score(dataset, "test", run.predicted)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        kind = type(error).__name__
        raise InputError(f"{file} is not a run of this task ({kind}); remove it") from None
    for key, value in metadata.items():
        before = stored.get(key)
        if before != value:  # a text may be of any file, and is not shown
            is_number = isinstance(before, int | float)
            what = f"{key} {before}, this is {value}" if is_number else f"another {key}"
            raise InputError(f"{file} is of {what}; choose another --output, or remove the folder")
    return run


def _validation(run: Run) -> float:
    return max((point["validation"] for point in run.curve), default=0.0)
