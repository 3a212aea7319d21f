# SPDX-License-Identifier: Apache-2.0
"""What counting alone predicts: unigram and bigram baselines for masked-LM scores."""

from collections.abc import Sequence

import numpy as np

from bcmb_jax.data.shards import Shards
from bcmb_jax.masking import MaskedBatch
from bcmb_jax.training.validation import Scores

DOCUMENTS_AT_ONCE = 2000
MOST_TOKENS = 20_000_000  # of each source: shards are shuffled, so the first are a sample


class Unigram:
    """Token frequencies of the training documents, every token counted once more (add-one)."""

    def __init__(self, sources: Sequence[Shards], vocab_size: int):
        counts = np.ones(vocab_size)
        for shards in sources:
            for tokens in _pieces(shards):
                counts += np.bincount(tokens, minlength=vocab_size)
        self.log_probabilities = np.log(counts / counts.sum())
        self._ranks = np.empty(vocab_size, int)
        self._ranks[np.argsort(-counts, kind="stable")] = np.arange(vocab_size)

    def score(self, rows: MaskedBatch) -> Scores:
        targets = rows.targets[rows.loss_weights > 0]
        return _scores(self.log_probabilities[targets], self._ranks[targets])


class Bigram:
    """The token before (as the model sees it), interpolated with the unigram (Witten-Bell)."""

    def __init__(self, sources: Sequence[Shards], unigram: Unigram):
        self._unigram = unigram
        self._size = len(unigram.log_probabilities)
        codes, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for shards in sources:
            for tokens in _pieces(shards):
                pairs = tokens[:-1].astype(np.int64) * self._size + tokens[1:]
                new, new_counts = np.unique(pairs, return_counts=True)
                codes, owner = np.unique(np.concatenate([codes, new]), return_inverse=True)
                counts = np.bincount(owner, np.concatenate([counts, new_counts])).astype(np.int64)
        self._followers, self._counts = codes % self._size, counts
        self._first = np.searchsorted(codes, np.arange(self._size + 1) * self._size)

    def score(self, rows: MaskedBatch) -> Scores:
        row, place = np.nonzero(rows.loss_weights)
        position = rows.masked_positions[row, place]
        before, targets = rows.inputs[row, position - 1], rows.targets[row, place]
        logs, ranks = np.empty(len(targets)), np.empty(len(targets), int)
        order = np.argsort(before, kind="stable")
        for same in np.split(order, np.flatnonzero(np.diff(before[order])) + 1):
            probabilities = self._after(before[same[0]])
            at_target = probabilities[targets[same]]
            logs[same] = np.log(at_target)
            best = -np.sort(-probabilities)[:5]
            ranks[same] = (best[None, :] > at_target[:, None]).sum(1)
        return _scores(logs, ranks)

    def _after(self, token: int) -> np.ndarray:
        followers = slice(self._first[token], self._first[token + 1])
        counts = self._counts[followers]
        total, kinds = counts.sum(), len(counts)
        probabilities = np.exp(self._unigram.log_probabilities)
        if total:
            probabilities *= kinds / (total + kinds)
            probabilities[self._followers[followers]] += counts / (total + kinds)
        return probabilities


def _pieces(shards: Shards):
    """The first `MOST_TOKENS` tokens' documents joined, some thousands at a time."""
    ends = np.cumsum(shards.lengths, dtype=np.int64)
    count = min(len(shards), int(np.searchsorted(ends, MOST_TOKENS)) + 1)
    for first in range(0, count, DOCUMENTS_AT_ONCE):
        last = min(first + DOCUMENTS_AT_ONCE, count)
        yield np.concatenate([shards.read(d, 0, shards.lengths[d]) for d in range(first, last)])


def _scores(log_probabilities: np.ndarray, ranks: np.ndarray) -> Scores:
    return Scores(
        loss=-float(log_probabilities.mean()),
        masked_accuracy=float((ranks < 1).mean()),
        top5_accuracy=float((ranks < 5).mean()),
        predicted_tokens=len(ranks),
    )
