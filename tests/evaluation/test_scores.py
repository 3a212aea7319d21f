# SPDX-License-Identifier: Apache-2.0
"""Scores of tasks: equal to scikit-learn's and seqeval's, and an interval that means something."""

import numpy as np
import pytest
import seqeval.metrics as seqeval
import sklearn.metrics as sklearn
from seqeval.scheme import IOB2

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.scores import (
    METRIC,
    classes,
    confusion,
    counts,
    interval,
    scores,
    scores_by_class,
)

TAGS = ("B-Chemical", "I-Chemical", "B-Disease", "I-Disease", "B", "I", "B-Rare-kind", "O")
EXACT = 1e-12  # the same divisions in another order


def random_single(random, examples, labels, used):
    """Only `used` of the labels occur."""
    return [(int(i),) for i in random.choice(used, examples)]


def random_multi(random, examples, labels, rate):
    return [tuple(np.flatnonzero(random.random(labels) < rate).tolist()) for _ in range(examples)]


def random_tags(random, lengths):
    """Half O, the rest anything: `I-` after `O` and after other types is frequent."""
    rates = np.r_[np.full(len(TAGS) - 1, 0.5 / (len(TAGS) - 1)), 0.5]
    return [tuple(random.choice(len(TAGS), n, p=rates).tolist()) for n in lengths]


def disturbed(random, tags, rate=0.2):
    other = random_tags(random, [len(x) for x in tags])
    return [
        tuple(b if random.random() < rate else a for a, b in zip(x, y, strict=True))
        for x, y in zip(tags, other, strict=True)
    ]


def names_of(tags):
    return [[TAGS[i] for i in x] for x in tags]


def indicators(sets, labels):
    found = np.zeros((len(sets), labels), int)
    for row, x in zip(found, sets, strict=True):
        row[list(x)] = 1
    return found


@pytest.mark.parametrize("seed", range(40))
def test_single_label_equals_scikit_learn(seed):
    random = np.random.default_rng(seed)
    labels = int(random.integers(2, 9))
    used = random.choice(labels, int(random.integers(1, labels + 1)), replace=False)
    examples = int(random.integers(1, 60))
    truth = random_single(random, examples, labels, used)
    ours = random_single(random, examples, labels, np.arange(labels) if seed % 2 else used)
    found = scores("single_label", [f"l{i}" for i in range(labels)], truth, ours)
    flat = np.ravel(truth), np.ravel(ours)
    expected = {"accuracy": sklearn.accuracy_score(*flat)} | {
        f"{average}_f1": sklearn.f1_score(*flat, average=average, zero_division=0)
        for average in ("weighted", "micro", "macro")
    }
    assert found == pytest.approx(expected, abs=EXACT)
    rows = scores_by_class("single_label", [f"l{i}" for i in range(labels)], truth, ours)
    theirs = sklearn.precision_recall_fscore_support(
        *flat, labels=range(labels), average=None, zero_division=0
    )
    for key, column in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        assert [row[key] for row in rows] == pytest.approx(column, abs=EXACT)
    table = confusion("single_label", [f"l{i}" for i in range(labels)], truth, ours)
    assert (table == sklearn.confusion_matrix(*flat, labels=range(labels))).all()


@pytest.mark.parametrize("seed", range(40))
def test_multi_label_equals_scikit_learn(seed):
    random = np.random.default_rng(seed)
    labels, examples = int(random.integers(2, 9)), int(random.integers(1, 60))
    truth = random_multi(random, examples, labels, (0.3, 0.05, 0.0)[seed % 3])
    ours = random_multi(random, examples, labels, (0.3, 0.0)[seed % 2])
    ours[: examples // 2] = truth[: examples // 2]
    names = [f"l{i}" for i in range(labels)]
    found = scores("multi_label", names, truth, ours)
    both = indicators(truth, labels), indicators(ours, labels)
    expected = {"exact_match": sklearn.accuracy_score(*both)} | {
        f"{average}_f1": sklearn.f1_score(*both, average=average, zero_division=0)
        for average in ("weighted", "micro", "macro")
    }
    assert found == pytest.approx(expected, abs=EXACT)
    table = confusion("multi_label", names, truth, ours)
    assert (table == sklearn.multilabel_confusion_matrix(*both)).all()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("seed", range(40))
def test_tagging_equals_seqeval(seed):
    random = np.random.default_rng(seed)
    lengths = random.integers(0 if seed % 2 else 1, 15, int(random.integers(1, 30)))
    truth = random_tags(random, lengths)
    ours = disturbed(random, truth)
    if seed % 5 == 0:  # nothing predicted
        ours = [(TAGS.index("O"),) * len(x) for x in truth]
    both = names_of(truth), names_of(ours)
    found = scores("tagging", TAGS, truth, ours)
    strict = {"mode": "strict", "scheme": IOB2, "average": "micro"}
    assert found == pytest.approx(
        {
            "f1": seqeval.f1_score(*both),
            "precision": seqeval.precision_score(*both),
            "recall": seqeval.recall_score(*both),
            # Without a single entity, seqeval's strict mode averages over no types: NaN.
            "strict_f1": np.nan_to_num(seqeval.f1_score(*both, **strict)),
        },
        abs=EXACT,
    )
    theirs = seqeval.classification_report(*both, output_dict=True, zero_division=0)
    for row in scores_by_class("tagging", TAGS, truth, ours):
        if row["class"] in theirs:
            of_class = theirs[row["class"]]
            assert row["f1"] == pytest.approx(of_class["f1-score"], abs=EXACT)
            assert row["support"] == of_class["support"]
        else:
            assert row["support"] == row["f1"] == 0


def test_an_entity_may_begin_inside_by_default_and_not_strictly():
    truth, ours = [(0, 1, 7)], [(1, 1, 7)]  # B-Chemical I-Chemical O, and I-Chemical I-Chemical O
    assert counts("tagging", TAGS, truth, ours).sum((0, 1)).tolist() == [1, 1, 1]
    assert counts("tagging", TAGS, truth, ours, strict=True).sum((0, 1)).tolist() == [0, 0, 1]
    found = scores("tagging", TAGS, truth, ours)
    assert (found["f1"], found["strict_f1"]) == (1, 0)


def test_classes_of_tags_are_types():
    assert classes("tagging", TAGS) == ("Chemical", "Disease", "Rare-kind", "_")
    assert classes("tagging", ("O",)) == ()
    assert scores("tagging", ("O",), [(0, 0)], [(0, 0)])["f1"] == 0
    with pytest.raises(InputError, match="'Disease' is not a BIO tag"):
        classes("tagging", ("Disease", "O"))


def test_words_are_confused_by_tag():
    table = confusion("tagging", TAGS, [(0, 7), (7,)], [(1, 7), (0,)])
    assert table.sum() == 3
    assert table[0, 1] == table[7, 7] == table[7, 0] == 1


@pytest.mark.parametrize(
    ("kind", "truth", "ours", "message"),
    [
        ("single_label", [], [], "0 examples and 0 predictions"),
        ("multi_label", [(0,)], [(0,), ()], "1 examples and 2 predictions"),
        ("single_label", [(0,), (1,)], [(0,), ()], "example 1 has 1 labels and 0 predicted"),
        ("tagging", [(0, 1)], [(0,)], "example 0 has 2 labels and 1 predicted"),
    ],
)
@pytest.mark.parametrize("of", [counts, scores, scores_by_class, confusion])
def test_predictions_are_of_the_same_examples(of, kind, truth, ours, message):
    with pytest.raises(ValueError, match=message):
        of(kind, TAGS, truth, ours)


def made_up(kind, random, examples):
    if kind == "tagging":
        truth = random_tags(random, random.integers(1, 12, examples))
        return TAGS, truth, [disturbed(random, truth) for _ in range(3)]
    if kind == "single_label":
        truth = random_single(random, examples, 4, range(4))
        noise = [random_single(random, examples, 4, range(4)) for _ in range(3)]
    else:
        truth = random_multi(random, examples, 4, 0.3)
        noise = [random_multi(random, examples, 4, 0.3) for _ in range(3)]
    right = random.random((3, examples)) < 0.7
    return (
        "abcd",
        truth,
        [
            [t if r else n for t, n, r in zip(truth, other, ok, strict=True)]
            for other, ok in zip(noise, right, strict=True)
        ],
    )


@pytest.mark.parametrize("kind", METRIC)
def test_interval_holds_the_score_and_narrows_with_examples(kind):
    widths = []
    for examples in (50, 800):
        labels, truth, ours = made_up(kind, np.random.default_rng(1), examples)
        low, high = interval(kind, labels, truth, ours)
        mean = np.mean([scores(kind, labels, truth, x)[METRIC[kind]] for x in ours])
        assert low < mean < high
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.35)
    assert interval(kind, labels, truth, ours) == interval(kind, labels, truth, ours)
    narrow = interval(kind, labels, truth, ours, level=0.5)
    assert low < narrow[0] < narrow[1] < high


@pytest.mark.parametrize("kind", METRIC)
def test_interval_equals_a_bootstrap_in_words(kind):
    labels, truth, ours = made_up(kind, np.random.default_rng(2), 30)
    means = []
    # A stream of draws is the same however it is cut.
    for drawn in np.random.default_rng(5).integers(0, 30, (60, 30)):
        of_seeds = [
            scores(kind, labels, [truth[i] for i in drawn], [x[i] for i in drawn]) for x in ours
        ]
        means.append(np.mean([x[METRIC[kind]] for x in of_seeds]))
    expected = np.quantile(means, [0.05, 0.95])
    found = interval(kind, labels, truth, ours, samples=60, seed=5, level=0.9)
    assert found == pytest.approx(expected, abs=EXACT)


def test_interval_covers_the_true_accuracy():
    """A predictor's intervals on 100 small test sets hold its true score about 95 times."""
    random = np.random.default_rng(3)
    labels, truth, ours = made_up("single_label", random, 20_000)
    true = np.mean([scores("single_label", labels, truth, x)["weighted_f1"] for x in ours])
    covered = 0
    for first in range(0, 20_000, 200):
        part = slice(first, first + 200)
        low, high = interval(
            "single_label", labels, truth[part], [x[part] for x in ours], samples=300
        )
        covered += low <= true <= high
    assert 88 <= covered <= 99


def test_a_perfect_score_has_no_width():
    truth = random_multi(np.random.default_rng(0), 40, 3, 0.4)
    assert interval("multi_label", "abc", truth, [truth]) == (1, 1)
