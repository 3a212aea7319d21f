# SPDX-License-Identifier: Apache-2.0
"""Baselines of words alone: they learn what words tell, and the same thing at every run."""

import numpy as np
import pytest

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.finetune_text import _log_probabilities, _shape, _viterbi, fit_predict
from bcmb_jax.evaluation.scores import METRIC, scores

SIZES = {"train": 120, "validation": 40, "test": 60}
FILLER = [
    "the",
    "patient",
    "was",
    "seen",
    "and",
    "then",
    "sent",
    "home",
    "with",
    "her",
    "daughter",
    "on",
    "monday",
]
TOPICS = {"heart": ["angina", "stent", "murmur"], "lung": ["cough", "wheeze"], "rest": ["rash"]}
TAGS = ("B-Drug", "I-Drug", "B-Sign", "O")


def classification(kind, sizes=SIZES):
    random = np.random.default_rng(0)

    def example(i):
        count = 1 if kind == "single_label" else int(random.integers(0, 3))
        labels = sorted(random.choice(3, count, replace=False).tolist())
        words = [str(w) for w in random.choice(FILLER, 12)]
        words += [str(random.choice(list(TOPICS.values())[label])) for label in labels]
        return Example(f"made up:{i}", " ".join(random.permutation(words)), tuple(labels))

    splits = {split: [example(i) for i in range(n)] for split, n in sizes.items()}
    return Dataset(kind, tuple(TOPICS), splits)


def tagging(sizes=SIZES):
    """Drugs end in -in and may be followed by "forte", which elsewhere is no drug."""
    random = np.random.default_rng(0)

    def example(i):
        words, labels = [], []
        for _ in range(int(random.integers(3, 9))):
            kind = random.random()
            stem = "".join(random.choice(list("bdklmr") + list("aeo"), 4))
            if kind < 0.2:
                words += [f"{stem}in", "forte"]
                labels += [0, 1]
            elif kind < 0.3:
                words.append(f"{stem}algia")
                labels.append(2)
            elif kind < 0.4:
                words.append("forte")
                labels.append(3)
            else:
                words.append(str(random.choice(FILLER)))
                labels.append(3)
        return Example(f"made up:{i}", tuple(words), tuple(labels))

    return Dataset("tagging", TAGS, {s: [example(i) for i in range(n)] for s, n in sizes.items()})


def make(kind):
    return tagging() if kind == "tagging" else classification(kind)


@pytest.mark.parametrize("kind", METRIC)
def test_beats_the_majority_and_repeats_itself(kind):
    dataset = make(kind)
    truth = [x.labels for x in dataset.splits["test"]]
    ours = fit_predict(dataset, seed=42)
    assert all(type(i) is int for x in ours for i in x)
    majority = {
        "single_label": [(0,)] * len(truth),
        "multi_label": [(0, 1, 2)] * len(truth),
        "tagging": [(3,) * len(x) for x in truth],
    }
    found = [scores(kind, dataset.labels, truth, x)[METRIC[kind]] for x in (ours, majority[kind])]
    assert found[0] > max(0.8, found[1] + 0.3)
    assert fit_predict(dataset, seed=42) == ours


def test_the_test_split_teaches_nothing():
    dataset = make("single_label")
    other = [x._replace(labels=(0,)) for x in dataset.splits["test"]]
    changed = Dataset(dataset.kind, dataset.labels, {**dataset.splits, "test": other})
    assert fit_predict(changed, 42) == fit_predict(dataset, 42)


@pytest.mark.parametrize("kind", METRIC)
def test_a_label_that_never_occurs_in_training_is_never_predicted(kind):
    dataset = make(kind)
    constant = {"single_label": (1,), "multi_label": ()}
    train = [
        x._replace(labels=constant.get(kind, (3,) * len(x.text))) for x in dataset.splits["train"]
    ]
    ours = fit_predict(Dataset(kind, dataset.labels, {**dataset.splits, "train": train}), 42)
    expected = [constant.get(kind, (3,) * len(x.labels)) for x in dataset.splits["test"]]
    assert ours == expected


def test_two_tags_and_sentences_without_words():
    dataset = tagging()
    splits = {
        split: [
            *(x._replace(labels=tuple(int(i == 3) for i in x.labels)) for x in examples),
            Example("empty", (), ()),
        ]
        for split, examples in dataset.splits.items()
    }
    ours = fit_predict(Dataset("tagging", ("B-Any", "O"), splits), 42)
    truth = [x.labels for x in splits["test"]]
    assert ours[-1] == ()
    assert scores("tagging", ("B-Any", "O"), truth, ours)["f1"] > 0.9


def test_viterbi_finds_the_most_probable_tags():
    random = np.random.default_rng(0)
    emit, transit, start = (random.normal(size=s) * 2 for s in ((5, 3), (3, 3), (3,)))

    def log_probability(path):
        total, before = 0.0, start
        for logits, tag in zip(emit, path, strict=True):
            total += _log_probabilities(logits + before)[tag]
            before = transit[tag]
        return total

    best = max(np.ndindex(*(3,) * 5), key=log_probability)
    assert tuple(_viterbi(emit, transit, start)) == best


def test_shapes_of_words():
    assert [_shape(x) for x in ("Phe-24", "mRNA", "3", "")] == ["Aa-0", "aA", "0", ""]


@pytest.mark.parametrize("split", SIZES)
def test_an_empty_split_is_named(split):
    dataset = make("single_label")
    with pytest.raises(InputError, match=f"the split {split} has no examples"):
        fit_predict(Dataset(dataset.kind, dataset.labels, {**dataset.splits, split: []}), 42)


def test_texts_without_words_are_refused():
    dataset = make("multi_label")
    train = [x._replace(text="- . -") for x in dataset.splits["train"]]
    with pytest.raises(InputError, match="no words to learn from"):
        fit_predict(Dataset(dataset.kind, dataset.labels, {**dataset.splits, "train": train}), 42)
