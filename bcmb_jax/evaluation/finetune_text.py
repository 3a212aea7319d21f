# SPDX-License-Identifier: Apache-2.0
"""Baselines from words alone: TF-IDF with logistic regression, and a linear tagger.

A model that is worth its training should beat them. Every seed gives the same classifier, since
logistic regression has one optimum; taggers differ by the order of their examples.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.examples import Dataset, Example, Text
from bcmb_jax.evaluation.scores import METRIC, scores

# The strongest first: of penalties that are equally good on validation, the first is used.
INVERSE_PENALTIES = (1.0, 10.0, 100.0)
PENALTIES = (1e-4, 1e-5, 1e-6)
EPOCHS = 20

Predict = Callable[[Sequence[Example]], list[tuple[int, ...]]]


def count_words(text: Text) -> int:
    """Count the words of a text."""
    return len(text.split() if isinstance(text, str) else text)


def fit_predict(dataset: Dataset, seed: int) -> list[tuple[int, ...]]:
    """Predict the labels of the test split with the penalty that is best on validation.

    Of equally good penalties the strongest is used.

    Raises:
      InputError: a split is missing or empty, or holds no word.
    """
    for split in ("train", "validation", "test"):
        if not dataset.splits.get(split):
            raise InputError(f"the split {split} has no examples")
    validation, kind = dataset.splits["validation"], dataset.kind
    truth = [example.labels for example in validation]

    def validated(predict: Predict) -> float:
        return scores(kind, dataset.labels, truth, predict(validation))[METRIC[kind]]

    fitted = _taggers(dataset, seed) if kind == "tagging" else _classifiers(dataset, seed)
    return max(fitted, key=validated)(dataset.splits["test"])


def _classifiers(dataset: Dataset, seed: int) -> Iterator[Predict]:
    """Fit classifiers with each penalty; for multi_label, one regression for each label."""
    train = dataset.splits["train"]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
    inputs = _fit(words, [example.text for example in train])
    if dataset.kind == "single_label":
        targets = np.array([example.labels for example in train])
    else:
        every = range(len(dataset.labels))
        targets = np.array([np.isin(every, example.labels) for example in train], int)
    for inverse_penalty in INVERSE_PENALTIES:
        columns = [_regression(inputs, column, inverse_penalty, seed) for column in targets.T]

        def predict(examples: Sequence[Example], columns=columns) -> list[tuple[int, ...]]:
            x = words.transform([example.text for example in examples])
            rows = np.stack([predict_column(x) for predict_column in columns], axis=1)
            if dataset.kind == "single_label":
                return [(int(label),) for (label,) in rows]
            return [tuple(np.flatnonzero(row).tolist()) for row in rows]

        yield predict


def _regression(
    inputs: sparse.spmatrix, targets: np.ndarray, inverse_penalty: float, seed: int
) -> Callable[[sparse.spmatrix], np.ndarray]:
    if (targets == targets[0]).all():  # a regression needs two classes
        return lambda x: np.full(x.shape[0], targets[0])
    model = LogisticRegression(C=inverse_penalty, max_iter=2000, random_state=seed)
    return model.fit(inputs, targets).predict


def _taggers(dataset: Dataset, seed: int) -> Iterator[Predict]:
    """Fit maximum-entropy Markov models, one for each penalty.

    A tag's probability depends on its word's features and on the tag before (in training the true
    one); the most probable tags of a whole text are found by Viterbi's algorithm.
    """
    train = dataset.splits["train"]
    # A feature that occurs only once does not generalize.
    vocabulary = CountVectorizer(analyzer=lambda x: x, binary=True, min_df=2, dtype=np.float32)
    words = _fit(vocabulary, [x for example in train for x in _features(example.text)])
    tags = np.concatenate([np.asarray(example.labels, int) for example in train])
    if (tags == tags[0]).all():
        yield lambda examples: [(int(tags[0]),) * len(x.text) for x in examples]
        return
    start = len(dataset.labels)
    before = np.concatenate([np.asarray([start, *x.labels[:-1]], int) for x in train if x.labels])
    one_hot = sparse.csr_matrix(
        (np.ones(len(before), np.float32), (np.arange(len(before)), before)), (len(tags), start + 1)
    )
    inputs = sparse.hstack([words, one_hot], format="csr")
    for penalty in PENALTIES:
        model = SGDClassifier(
            "log_loss", alpha=penalty, max_iter=EPOCHS, tol=None, average=True, random_state=seed
        ).fit(inputs, tags)

        def predict(examples: Sequence[Example], model=model) -> list[tuple[int, ...]]:
            weights, bias, known = model.coef_, model.intercept_, model.classes_
            if len(known) == 2:  # scikit-learn keeps one row
                weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
            emit, transit = weights[:, : -(start + 1)], weights[:, -(start + 1) :].T
            x = vocabulary.transform([x for example in examples for x in _features(example.text)])
            ends = np.cumsum([len(example.text) for example in examples])
            texts = np.split(x @ emit.T + bias, ends[:-1])
            paths = (_viterbi(emits, transit[known], transit[start]) for emits in texts)
            return [tuple(known[path].tolist()) for path in paths]

        yield predict


def _viterbi(emit: np.ndarray, transit: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the most probable tags `[N]` of a text.

    Args:
      emit: `[N, T]` logits of the tags of each word.
      transit: `[T, T]` logits added by the tag before: `transit[before]`.
      start: `[T]` logits added to the first word's.
    """
    if not len(emit):
        return np.zeros(0, int)
    total = _log_probabilities(emit[0] + start)
    best_before = []
    for word in emit[1:]:
        through = total[:, None] + _log_probabilities(word + transit)
        best_before.append(through.argmax(0))
        total = through.max(0)
    path = [int(total.argmax())]
    for best in reversed(best_before):
        path.append(int(best[path[-1]]))
    return np.asarray(path[::-1])


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Normalize logits of one-against-rest regressions over the last axis."""
    single = -np.logaddexp(0, -logits)
    return single - np.logaddexp.reduce(single, axis=-1, keepdims=True)


def _features(words: Text) -> list[list[str]]:
    """List the features of each word: itself, shape, beginnings and ends, and neighbours."""
    padded = ["<<", "<", *words, ">", ">>"]
    lower, shape = [word.lower() for word in padded], list(map(_shape, padded))
    return [
        [f"word {padded[i]}"]
        + [f"lower{j} {lower[i + j]}" for j in (-2, -1, 0, 1, 2)]
        + [f"shape{j} {shape[i + j]}" for j in (-1, 0, 1)]
        + [f"pair{j} {lower[i + j]} {lower[i + j + 1]}" for j in (-1, 0)]
        + [f"begins {lower[i][:size]}" for size in (1, 2, 3, 4)]
        + [f"ends {lower[i][-size:]}" for size in (1, 2, 3, 4)]
        for i in range(2, len(padded) - 2)
    ]


def _shape(word: str) -> str:
    """Return the kinds of characters, runs of one kind as one: `Phe-24` → `Aa-0`."""
    kinds = (
        "A" if c.isupper() else "a" if c.islower() else "0" if c.isdigit() else c for c in word
    )
    return "".join(kind for kind, _ in itertools.groupby(kinds))


def _fit(vectorizer: CountVectorizer, texts: Sequence) -> sparse.spmatrix:
    try:
        return vectorizer.fit_transform(texts)
    except ValueError:  # "empty vocabulary", or none left by min_df
        raise InputError("the training texts have no words to learn from") from None
