# SPDX-License-Identifier: Apache-2.0
"""A task's results: its data told, encoded, and every seed and learning rate fine-tuned on it."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bcmb_jax.data.plan import SPECIAL_TOKENS
from bcmb_jax.evaluation import finetune_text
from bcmb_jax.evaluation.dataset_statistics import SplitStatistics, markdown, statistics
from bcmb_jax.evaluation.encode import TaskTokenizer
from bcmb_jax.evaluation.examples import Dataset
from bcmb_jax.evaluation.protocol import Classifier, Run, Settings, fine_tune
from bcmb_jax.evaluation.sweep import sweep
from bcmb_jax.terminal import Display


def of_model(
    classifier: Classifier,
    tokenizer: TaskTokenizer,
    dataset: Dataset,
    settings: Settings,
    output: Path,
    facts: Mapping[str, Any],
    *,
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    keep: Callable[[Path, str], None] | None = None,
) -> dict[str, Any]:
    """What `results.json` says of a model that is fine-tuned.

    Args:
      output, facts: as `sweep` takes them.
      keep: `(folder, on_what)`, called while the classifier has the weights that a run ends with.

    Raises:
      InputError, FloatingPointError: as `sweep`.
    """
    display = Display()
    encoded = {split: tokenizer.encode(dataset, x) for split, x in dataset.splits.items()}
    cut = {split: sum(e.cut for e in of_split) for split, of_split in encoded.items()}
    if any(cut.values()):
        display.say(
            f"cut at {tokenizer.max_length} tokens, the rest unseen: "
            + ", ".join(f"{n:,} of {len(encoded[s]):,} {s} texts" for s, n in cut.items())
        )
    counts = statistics(dataset, tokenizer.count_tokens)
    display.say(markdown(dataset, counts, SPECIAL_TOKENS))

    def one(seed: int, learning_rate: float) -> Run:
        run = fine_tune(
            classifier,
            dataset,
            encoded,
            settings,
            seed=seed,
            learning_rate=learning_rate,
            progress=lambda done, text: display.progress(
                done, f"seed {seed}, learning rate {learning_rate:g}, {text}"
            ),
        )
        if keep is not None:
            on_what = f"{facts['task']} (seed {seed}, learning rate {learning_rate:g})"
            keep(output / "models" / f"{learning_rate:g}-{seed}", on_what)
        return run

    results = sweep(
        output,
        dataset,
        facts,
        one,
        seeds=seeds,
        learning_rates=learning_rates,
        say=display.say,
    )
    told = {"truncated": cut, "epochs": settings.epochs, "settings": dict(facts)}
    return results | told | {"dataset": _described(dataset, counts)}


def of_words(
    dataset: Dataset, output: Path, facts: Mapping[str, Any], *, seeds: Sequence[int]
) -> dict[str, Any]:
    """The same of words alone, without a model."""
    display = Display()
    counts = statistics(dataset, finetune_text.count_words, special_tokens=0)
    display.say(markdown(dataset, counts, special_tokens=0))

    def one(seed: int, learning_rate: float) -> Run:
        start = time.perf_counter()
        predicted = finetune_text.fit_predict(dataset, seed)
        return Run(seed, learning_rate, [], 0, predicted, time.perf_counter() - start)

    results = sweep(output, dataset, facts, one, seeds=seeds, learning_rates=[0.0], say=display.say)
    return results | {"dataset": _described(dataset, counts), "settings": dict(facts)}


def summary(results: Mapping[str, Any]) -> str:
    low, high = results["interval"]
    return (
        f"{results['metric']}: median {results['median']:.4f}, mean {results['mean']:.4f} ± "
        f"{results['spread']:.4f} over {len(results['seeds'])} seeds, 95 % interval over test "
        f"examples {low:.4f} to {high:.4f}"
    )


def _described(dataset: Dataset, counts: Mapping[str, SplitStatistics]) -> dict[str, Any]:
    return {
        "labels": len(dataset.labels),
        "examples": {split: of.examples for split, of in counts.items()},
        "mean_tokens": {split: of.mean_tokens for split, of in counts.items()},
        "notes": list(dataset.notes),
    }
