# SPDX-License-Identifier: Apache-2.0
"""Finished runs are not repeated; results are what the files say; the best rate is validation's."""

import json

import pytest

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.protocol import Run
from bcmb_jax.evaluation.sweep import sweep

DATASET = Dataset(
    "single_label",
    ("no", "yes"),
    {
        "train": [Example("a:1", "x", (0,))],
        "validation": [Example("b:1", "x", (0,))],
        "test": [Example("c:1", "x", (0,)), Example("c:2", "y", (1,))],
    },
)
FACTS = {"task": "made up", "epochs": 1}
RIGHT, HALF = [(0,), (1,)], [(0,), (0,)]


class Trainer:
    """Counts its calls; `stop_at` is the call that is interrupted."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def __call__(self, seed, rate):
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append((seed, rate))
        # The higher rate is better on validation and worse on test.
        high = rate > 1e-4
        curve = [{"epoch": 1, "train_loss": 1.0, "validation": 0.9 if high else 0.5 + seed / 100}]
        return Run(seed, rate, curve, 1, HALF if high else RIGHT, 2.0)


def run(output, trainer, facts=FACTS, **options):
    chosen = {"seeds": [1, 2, 3], "learning_rates": [1e-5, 1e-3]} | options
    return sweep(output, DATASET, facts, trainer, **chosen)


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path):
    whole = run(tmp_path / "whole", Trainer())
    first = Trainer(stop_at=4)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", first)
    second = Trainer()
    assert run(tmp_path / "cut", second) == whole
    assert len(first.calls) == 4
    assert first.calls + second.calls == [
        (seed, rate) for rate in (1e-5, 1e-3) for seed in (1, 2, 3)
    ]
    assert run(tmp_path / "cut", Trainer(stop_at=0)) == whole
    assert not list(tmp_path.rglob("*.partial"))


def test_validation_chooses_the_learning_rate(tmp_path):
    results = run(tmp_path, Trainer())
    assert results["learning_rate"] == 1e-3
    assert results["grid"] == {"1e-05": 0.52, "0.001": 0.9}
    assert results["per_seed"] == [pytest.approx(1 / 3)] * 3  # the weighted F1 of HALF
    assert results["median"] == results["mean"] == pytest.approx(1 / 3)
    assert results["confusion"]["counts"] == [[1, 0], [1, 0]]


def test_a_rate_that_diverges_is_out_of_the_search(tmp_path):
    train, told = Trainer(), []

    def diverging(seed, rate):
        if rate > 1e-4 and seed == 2:
            raise FloatingPointError("the loss is nan")
        return train(seed, rate)

    results = run(tmp_path, diverging, say=told.append)
    assert results["learning_rate"] == 1e-5
    assert "learning rate 0.001 is out: the loss is nan" in told
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        run(tmp_path / "alone", diverging, learning_rates=[1e-3])
    with pytest.raises(FloatingPointError, match="not finite at any of 2 rates"):
        run(tmp_path / "both", diverging, learning_rates=[1e-3, 1e-2])


def test_one_rate_has_no_grid_and_its_spread_is_over_seeds(tmp_path):
    def by_seed(seed, rate):
        return Run(seed, rate, [], 0, RIGHT if seed == 1 else HALF, 1.0)

    results = run(tmp_path, by_seed, seeds=[1, 2], learning_rates=[0.1])
    assert results["grid"] is None
    assert results["per_seed"] == [1.0, pytest.approx(1 / 3)]
    assert results["median"] == pytest.approx(2 / 3)
    assert results["spread"] == pytest.approx(2**0.5 / 3)
    assert results["seconds"] == 2.0


def test_runs_of_something_else_are_refused(tmp_path):
    run(tmp_path, Trainer())
    with pytest.raises(
        InputError, match=r"1e-05-1\.json is of epochs 1, this is 2; choose another"
    ):
        run(tmp_path, Trainer(), FACTS | {"epochs": 2})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"facts": {}}', '{"seed": 1}'])
def test_a_damaged_run_is_named(tmp_path, text):
    run(tmp_path, Trainer())
    (tmp_path / "runs" / "0.001-2.json").write_text(text)
    with pytest.raises(InputError, match=r"0\.001-2\.json is not a run of this task .*; remove it"):
        run(tmp_path, Trainer())


def test_runs_with_too_few_predictions_are_named(tmp_path):
    run(tmp_path, Trainer())
    file = tmp_path / "runs" / "0.001-2.json"
    said = json.loads(file.read_text())
    said["predicted"] = said["predicted"][:1]
    file.write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"0\.001-2\.json is not a run of this task"):
        run(tmp_path, Trainer())


def test_the_fingerprint_is_of_every_text_and_label():
    def changed(**splits):
        changed_splits = {**DATASET.splits, **splits}
        return Dataset(DATASET.kind, DATASET.labels, changed_splits).fingerprint()

    known = {DATASET.fingerprint()}
    for example in (Example("a:1", "z", (0,)), Example("a:1", "x", (1,))):
        known.add(changed(train=[example]))
        known.add(changed(validation=[example]))
    assert len(known) == 5
    assert changed(train=[Example("elsewhere", "x", (0,))]) == DATASET.fingerprint()
