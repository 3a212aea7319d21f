# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning in JAX: packing and passes change nothing, seeds and snapshots mean what they say."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from flax import nnx

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation import finetune_jax
from bcmb_jax.evaluation.encode import IGNORED, Encoded
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.finetune_jax import JaxClassifier
from bcmb_jax.evaluation.protocol import Settings, fine_tune
from bcmb_jax.model.heads import Head, ModernBertForMaskedLM
from bcmb_jax.model.parameters import init_parameters
from tests.fixtures.tiny_model import TINY

# Quick to compile; what layers do in packed rows is tested with them.
CONFIG = dataclasses.replace(TINY, num_hidden_layers=1, hidden_size=32, intermediate_size=48)
KINDS = ("single_label", "multi_label", "tagging")
LABELS = ("B-x", "I-x", "O")


@pytest.fixture(scope="module")
def params():
    made = jax.jit(
        lambda: init_parameters(lambda: ModernBertForMaskedLM(CONFIG, rngs=nnx.Rngs(0)))
    )()
    return {name: np.asarray(x) for name, x in made.items()}


def classifier(params, kind, batch_size=4, config=CONFIG):
    head = Head("token_classification" if kind == "tagging" else "sequence_classification", LABELS)
    settings = Settings(batch_size=batch_size, weight_decay=0.1)
    return JaxClassifier(config, head, params, kind=kind, precision="fp32", settings=settings)


def example(kind, length, rng):
    tokens = rng.integers(5, 128, length).astype(np.int32)
    starts = np.arange(1, length - 1, 2, dtype=np.int32)
    if kind == "single_label":
        return Encoded(tokens, np.int32(rng.integers(3)), starts[:0], False)
    if kind == "multi_label":
        return Encoded(tokens, rng.integers(0, 2, 3).astype(np.float32), starts[:0], False)
    targets = np.full(length, IGNORED, np.int32)
    targets[starts] = rng.integers(0, 3, len(starts))
    return Encoded(tokens, targets, starts, False)


def examples(kind, lengths):
    rng = np.random.default_rng(0)
    return [example(kind, length, rng) for length in lengths]


@pytest.mark.parametrize(
    "kind", ["tagging", *(pytest.param(x, marks=pytest.mark.slow) for x in KINDS[:2])]
)
def test_a_packed_batch_is_the_mean_of_its_examples(params, kind):
    model, batch = classifier(params, kind), examples(kind, [20, 12, 9, 23])
    losses, weights, alone = [], [], []
    for one in batch:
        model.reset(7)
        alone += model.predict([one])
        losses.append(float(model.step([one], 0.0)))
        weights.append((one.targets != IGNORED).sum() if kind == "tagging" else 1)
    model.reset(7)
    assert model.predict(batch) == alone
    together = float(model.step(batch, 0.0))
    assert together == pytest.approx(np.average(losses, weights=weights), rel=1e-6)
    assert len({*losses}) == 4


@pytest.mark.parametrize(
    ("lengths", "row_length", "rows", "passes"),
    [
        ([20, 30], 64, 1, 1),
        ([80] * 16, 256, 6, 1),
        ([300, 20], 384, 1, 1),
        ([256] * 9, 768, 3, 1),
        ([256] * 33, 768, 6, 2),
    ],
)
def test_rows_are_few_and_of_few_shapes(lengths, row_length, rows, passes):
    packed, _ = finetune_jax.pack(examples("single_label", lengths), "single_label")
    assert [x.tokens.shape for x in packed] == [(rows, row_length)] * passes


@pytest.mark.slow
def test_passes_in_turn_give_the_same_step(params, monkeypatch):
    kind = "multi_label"
    batch = examples(kind, [64, 60, 64])
    weights = []
    for at_once in (8192, 128, 64):  # three rows at once, two and one with an empty one, singly
        monkeypatch.setattr(finetune_jax, "SHARED_ROW", 64)
        monkeypatch.setattr(finetune_jax, "SHARED_BY", 1)
        monkeypatch.setitem(finetune_jax.TOKENS_AT_ONCE, "cpu", at_once)
        model = classifier(params, kind)
        model.reset(0)
        for _ in range(2):
            model.step(batch, 1e-2)
        weights.append(model.snapshot())
    assert set(weights[0]) == set(weights[1]) == set(weights[2])
    for name, whole in weights[0].items():
        for parts in weights[1:]:
            # Adam divides by the gradient's size: where that is near 0, rounding is a step.
            np.testing.assert_allclose(parts[name], whole, atol=2e-4, err_msg=name)
    assert not np.allclose(weights[0]["classifier.weight"], 0)


def test_a_seed_draws_the_classifier_alone(params):
    model = classifier(params, "single_label")
    drawn = []
    for seed in (1, 1, 2):
        model.reset(seed)
        drawn.append(model.snapshot())
    for name in drawn[0]:
        assert np.array_equal(drawn[0][name], drawn[1][name])
        assert np.array_equal(drawn[0][name], drawn[2][name]) == (name != "classifier.weight")


def test_a_classifier_of_the_same_size_is_kept_and_another_is_not(params):
    mine = params | {"classifier.weight": np.ones((3, 32)), "classifier.bias": np.ones(3)}
    model = classifier(mine, "single_label")
    model.reset(0)
    assert (model.snapshot()["classifier.weight"] == 1).all()
    other = params | {"classifier.weight": np.ones((5, 32)), "classifier.bias": np.ones(5)}
    model = classifier(other, "single_label")
    model.reset(0)
    assert model.snapshot()["classifier.weight"].shape == (3, 32)


def test_weights_of_other_sizes_are_refused(params):
    wider = dataclasses.replace(CONFIG, intermediate_size=64)
    with pytest.raises(InputError, match=r"mlp\.Wi\.weight.*\(2, 48, 32\).*\(2, 64, 32\)"):
        classifier(params, "single_label", config=wider)


def test_a_snapshot_outlives_the_steps_after_it(params):
    model, batch = classifier(params, "single_label"), examples("single_label", [30, 20])
    model.reset(0)
    model.step(batch, 1e-2)
    snapshot = model.snapshot()
    kept = {name: x.copy() for name, x in snapshot.items()}
    loss = float(model.step(batch, 1e-2))
    model.step(batch, 1e-2)
    assert all(np.array_equal(snapshot[name], kept[name]) for name in kept)
    model.restore(snapshot)
    assert float(model.step(batch, 0.0)) == pytest.approx(loss, rel=1e-6)


def dataset_of(kind, splits):
    return Dataset(
        kind,
        LABELS,
        {
            name: [
                Example(
                    "made up",
                    ("w",) * len(e.starts),
                    tuple(e.targets[e.starts].tolist())
                    if kind == "tagging"
                    else tuple(np.flatnonzero(e.targets))
                    if kind == "multi_label"
                    else (int(e.targets),),
                )
                for e in of_split
            ]
            for name, of_split in splits.items()
        },
    )


@pytest.mark.parametrize("kind", [pytest.param("multi_label", marks=pytest.mark.slow), "tagging"])
def test_what_can_be_learned_is_learned(params, kind):
    """The first token says the label, or each word's first token its tag."""
    rng = np.random.default_rng(1)

    def clear(count):
        made = []
        for _ in range(count):
            e = example(kind, 12, rng)  # all batches of one shape: quick to compile
            if kind == "tagging":
                e.tokens[e.starts] = 10 + e.targets[e.starts]
            elif kind == "multi_label":
                e.tokens[1:4] = np.where(e.targets > 0, [10, 11, 12], [20, 21, 22])
            else:
                e.tokens[1:4] = 10 + e.targets
            made.append(e)
        return made

    splits = {"train": clear(128), "validation": clear(16), "test": clear(16)}
    dataset = dataset_of(kind, splits)
    model = classifier(params, kind, batch_size=16)
    run = fine_tune(model, dataset, splits, Settings(epochs=8), seed=0, learning_rate=3e-3)
    truth = [e.labels for e in dataset.splits["test"]]
    wrong = sum(ours != true for ours, true in zip(run.predicted, truth, strict=True))
    assert wrong <= 5  # of 16; by chance 10 to 16
    assert [point["epoch"] for point in run.curve] == list(range(1, 9))
    assert run.curve[-1]["train_loss"] < run.curve[0]["train_loss"] / 2


class Scripted:
    """A classifier whose epochs predict what the test says."""

    def __init__(self, by_epoch):
        self.by_epoch, self.rates, self.seen = by_epoch, [], []
        self.epoch, self.restored = -1, None

    def reset(self, seed):
        self.epoch = -1

    def step(self, examples, learning_rate):
        self.rates.append(learning_rate)
        self.seen.append([int(e.tokens[0]) for e in examples])
        return 1.0

    def predict(self, examples):
        if self.restored is not None:
            return [(self.restored,)] * len(examples)
        self.epoch += 1
        return [(label,) for label in self.by_epoch[self.epoch]]

    def snapshot(self):
        return self.epoch

    def restore(self, snapshot):
        self.restored = snapshot


def numbered(count):
    return [Encoded(np.array([i]), np.int32(0), np.zeros(0, int), False) for i in range(count)]


def test_the_first_best_epoch_predicts_and_the_rate_falls_to_zero():
    splits = {"train": numbered(5), "validation": numbered(2), "test": numbered(1)}
    dataset = dataset_of("single_label", splits)
    model = Scripted([(0, 1), (0, 0), (0, 0)])  # the truth is (0, 0): epochs 2 and 3 are right
    settings = Settings(epochs=3, batch_size=2)
    run = fine_tune(model, dataset, splits, settings, seed=3, learning_rate=0.9)
    assert run.best_epoch == 2
    assert run.predicted == [(1,)]
    np.testing.assert_allclose(model.rates, [0.9 * (1 - i / 9) for i in range(9)])
    epochs = [list(itertools.chain(*model.seen[i : i + 3])) for i in (0, 3, 6)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in epochs)
    assert epochs[0] != epochs[1]
    again = Scripted(model.by_epoch)
    fine_tune(again, dataset, splits, settings, seed=3, learning_rate=0.9)
    assert again.seen == model.seen
    fine_tune(other := Scripted(model.by_epoch), dataset, splits, settings, seed=4, learning_rate=1)
    assert other.seen != model.seen
