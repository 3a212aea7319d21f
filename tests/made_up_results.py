# SPDX-License-Identifier: Apache-2.0
"""Made-up results as scripts/evaluate.py writes them, of tasks, speed and masked tokens."""

import json

import numpy as np
import pytest

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import SPLITS
from bcmb_jax.evaluation.results import read_results

SEEDS = [42, 43, 44, 45, 46]
KINDS = {"chemprot": "single_label", "hoc_document": "multi_label", "bc5cdr": "tagging"}
SPEED_LENGTHS = {"short": 512, "medium": 4096, "long": 8192}


def fine_tuned(task, model, *, score=0.8, backend="jax", labels=("no", "yes", "maybe"), seed=0):
    """Made-up results as scripts/evaluate.py writes them."""
    random = np.random.default_rng(seed)
    per_seed = (score + 0.02 * random.random(5)).tolist()
    kind, metric = KINDS[task], "f1" if KINDS[task] == "tagging" else "weighted_f1"
    curves = [
        [
            {
                "epoch": e,
                "train_loss": (3 - 2 * x) / e,
                "validation": x * (1 - 0.3 / e),
            }
            for e in range(1, 6)
        ]
        for x in per_seed
    ]
    trained = backend != "text"
    return {
        "task": task,
        "model": model,
        "backend": backend,
        "kind": kind,
        "metric": metric,
        "seeds": SEEDS,
        "per_seed": per_seed,
        "median": float(np.median(per_seed)),
        "mean": float(np.mean(per_seed)),
        "spread": float(np.std(per_seed)),
        "interval": [score - 0.03, score + 0.04],
        "scores": [{metric: x, "micro_f1": x} for x in per_seed],
        "by_class": [],
        "confusion": {
            "labels": list(labels),
            "counts": (
                random.integers(0, 40, (len(labels),) * 2) + 60 * np.eye(len(labels), dtype=int)
            ).tolist(),
        },
        "learning_rate": 5e-5 if trained else 0.0,
        "grid": {"2e-05": 0.7, "5e-05": 0.8} if trained and task == "chemprot" else None,
        "curves": curves if trained else [[]] * 5,
        "dataset": {
            "examples": dict(zip(SPLITS, (18764, 11820, 16253), strict=True)),
            "labels": len(labels),
            "mean_tokens": dict(
                zip(SPLITS, (68.2, 67.7, 75.2) if trained else (40.0,) * 3, strict=True)
            ),
            "notes": ["train and test were rebuilt"] if task == "chemprot" else [],
        },
    } | ({"epochs": 10, "truncated": {"train": 3, "validation": 0, "test": 1}} if trained else {})


def speed(model, *, backend="jax", protocol="honest", rate=5000.0):
    rows = []
    for name, length in SPEED_LENGTHS.items():
        for variable in (False, True):
            for padded in (True, False) if variable and backend == "jax" else (True,):
                true = (
                    rate
                    * (length / 512) ** -0.2
                    * (1.2 if protocol == "published" else 1)
                    * (0.5 if variable and padded else 1)
                )
                rows.append(
                    {
                        "set": f"{name} {'variable' if variable else 'fixed'}",
                        "length": length,
                        "documents": 64,
                        "nominal_tokens_per_second": true * 1.5,
                        "tokens_per_second": true,
                        "batch_size": 8,
                        "padded": padded,
                    }
                )
    return {
        "task": "speed",
        "model": model,
        "backend": backend,
        "protocol": protocol,
        "device": {"platform": "cpu", "kind": "Xeon", "count": 1, "cores": 2},
        "results": rows,
    }


def mlm(model, loss=1.5):
    def scored(loss):
        return {
            "loss": loss,
            "masked_accuracy": 0.6,
            "top5_accuracy": 0.8,
            "predicted_tokens": 12345,
        }

    return {
        "task": "mlm",
        "model": model,
        "backend": "jax",
        "sources": {"notes": {"model": scored(loss), "unigram": scored(6.0)}},
        "pseudo_perplexity": {"notes": 3.25},
    }


def everything():
    found = []
    for task in KINDS:
        for i, model in enumerate(("runs/random", "runs/phase1", "runs/phase2")):
            found.append(fine_tuned(task, model, score=0.6 + 0.1 * i, seed=i))
        found.append(fine_tuned(task, "TF-IDF + linear", score=0.55, backend="text"))
    found.append(fine_tuned("bc5cdr", "hub/BioBERT", backend="torch"))
    found += [speed("runs/phase2"), speed("hub/BioBERT", backend="torch", rate=2000.0)]
    found += [speed("runs/phase2", protocol="published"), mlm("runs/phase1"), mlm("runs/phase2")]
    return found


def save(folder, *results):
    for i, values in enumerate(results):
        file = folder / f"{i:02}" / "results.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    return folder


def refused(tmp_path, *results, names=()):
    with pytest.raises(InputError) as caught:
        read_results([save(tmp_path, *results)], dict(names))
    assert "\n" not in str(caught.value)
    return str(caught.value)
