# SPDX-License-Identifier: Apache-2.0
"""Measure what a masked LM has kept of its training text: canaries, names and numbers, loss.

Exposure is that of Carlini et al. (2019, "The Secret Sharer"): log2 of the number of candidates
minus log2 of the rank of the one that was planted. A masked LM gives no probability of a text, so
candidates are ranked by pseudo-likelihood (Salazar et al., 2020): each token of the number is
masked in turn, the others staying, and the log-probabilities are added. Lehman et al. (2021) fill
in blanks of clinical notes with a masked LM the same way; see docs/memorization.md.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from scipy import stats

from bcmb_jax.data.canaries import NAME, NUMBER, Canary, draw_numbers, encode_numbers
from bcmb_jax.data.plan import SPECIAL_TOKENS
from bcmb_jax.data.shards import Shards
from bcmb_jax.data.tokenize import Tokenizer
from bcmb_jax.evaluation.blanks import Answer, Progress, Query, ask
from bcmb_jax.evaluation.identifiers import KINDS, find_identifiers
from bcmb_jax.training.validation import mask_document, with_special_tokens
from conversion.pretrained import PretrainedModel

TOP = (1, 10, 100)
"""An identifier is recovered at k if each of its tokens is among the k likeliest."""
TESTED_TOP = 10
LEVEL = 0.05
"""Chance that a model which has kept nothing is flagged, all tests together."""
RESAMPLES = 2000


def measure_canaries(
    model: PretrainedModel,
    tokenizer: Tokenizer,
    canaries: Sequence[Canary],
    *,
    alternatives: int,
    row_length: int,
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Return how much likelier each canary's number is than others, and what is recovered whole.

    Without memorization a canary's rank is uniform, as its number was drawn like its alternatives.
    Then 2 ln 2 times the sum of the exposures is chi-squared with two degrees of freedom a canary
    at most (Fisher's method), and the mean exposure is log2 e = 1.44 bits.

    Args:
      alternatives: other numbers with as many tokens; where a tokenizer has few of them, all.
    """
    random = np.random.default_rng(seed)
    by_length: dict[int, list[np.ndarray]] = {}
    for ids in encode_numbers(draw_numbers(20 * alternatives, random), tokenizer):
        by_length.setdefault(len(ids), []).append(ids)
    queries: list[Query] = []
    shapes = []
    for canary in canaries:
        pieces = canary.encode(tokenizer)
        number = pieces[NUMBER]
        others = [x for x in by_length.get(len(number), []) if (x != number).any()]
        candidates = [number, *others[:alternatives]]
        shapes.append((len(candidates), len(number)))
        for candidate in candidates:
            pieces[NUMBER] = candidate
            places = range(len(candidate))
            queries += [_mask_piece(pieces, NUMBER, tokenizer, [place]) for place in places]
        pieces[NUMBER] = number
        queries += [_mask_piece(pieces, piece, tokenizer) for piece in (NUMBER, NAME)]
    answers = iter(ask(model, queries, row_length, progress))
    shares, numbers, names = [], [], []
    for shape in shapes:
        each = [next(answers).log_probabilities[0] for _ in range(math.prod(shape))]
        shares.append(_share(np.reshape(each, shape).sum(1, dtype=np.float64)))
        numbers.append(next(answers))
        names.append(next(answers))
    exposures = -np.log2(shares)
    return {
        "canaries": len(canaries),
        "candidates": min(count for count, _ in shapes),
        "exposures": exposures.tolist(),
        "mean_exposure": float(exposures.mean()),
        "in_top_percent": sum(share <= 0.01 for share in shares),
        "p_value": float(stats.chi2.sf(2 * math.log(2) * exposures.sum(), 2 * len(canaries))),
        "numbers_recovered": _recovered(numbers),
        "names_recovered": _recovered(names),
    }


def _mask_piece(
    pieces: Sequence[np.ndarray],
    piece: int,
    tokenizer: Tokenizer,
    places: Sequence[int] | None = None,
) -> Query:
    """Mask some tokens of a piece of a canary, or all."""
    inputs = with_special_tokens(np.concatenate(pieces), tokenizer)
    start = 1 + sum(map(len, pieces[:piece]))
    positions = start + np.array(range(len(pieces[piece])) if places is None else places)
    truth = inputs[positions]
    inputs[positions] = tokenizer.special.mask
    return Query(inputs, positions, truth)


def _share(scores: np.ndarray) -> float:
    """Return the rank of the first score, from 1 on, over their number; equal ones are better."""
    return int((~(scores < scores[0])).sum()) / len(scores)


def _recovered(answers: Sequence[Answer]) -> dict[str, int]:
    """Return how many answers have each true token among the k likeliest, for each k."""
    return {str(k): sum(int((x.ranks <= k).all()) for x in answers) for k in TOP}


def measure_notes(
    model: PretrainedModel,
    tokenizer: Tokenizer,
    train: Shards,
    held_out: Shards,
    *,
    documents: int,
    row_length: int,
    leave_out: Collection[str] = (),
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Compare equally many training and held-out documents: identifiers recovered, and loss.

    Args:
      documents: at most so many of each; shards are shuffled, so the first are a sample.
      row_length: longer documents are cut.
      leave_out: words and numbers that are no identifiers of notes, as those of canaries.
    """
    count = min(documents, len(train), len(held_out))
    splits = {"training": train, "held out": held_out}
    texts = {name: list(_read(shards, count, row_length)) for name, shards in splits.items()}
    identifiers = find_identifiers(tokenizer, texts, leave_out)
    queries: dict[tuple[str, str], list[Query]] = {}
    for name, of_split in texts.items():
        masked = [_mask_by_content(tokens, tokenizer) for tokens in of_split]
        queries["loss", name] = [query for query in masked if len(query.masked)]
        for kind in KINDS:
            found = identifiers[kind, name]
            queries[kind, name] = [
                _mask_identifier(texts[name][i], places, tokenizer) for i, places in found
            ]
    asked = [query for some in queries.values() for query in some]
    answers = iter(ask(model, asked, row_length, progress))
    by_kind = {key: [next(answers) for _ in some] for key, some in queries.items()}
    results = {
        kind: _compare_recovered(by_kind[kind, "training"], by_kind[kind, "held out"])
        for kind in KINDS
    }
    return {
        "documents": count,
        **results,
        "loss": _compare_losses(by_kind["loss", "training"], by_kind["loss", "held out"]),
    }


def _read(shards: Shards, count: int, row_length: int) -> Iterator[np.ndarray]:
    for document in range(count):
        length = min(int(shards.lengths[document]), row_length - SPECIAL_TOKENS)
        yield shards.read(document, 0, length).astype(np.int32)


def _mask_by_content(tokens: np.ndarray, tokenizer: Tokenizer) -> Query:
    inputs, predicted = mask_document(tokens, tokenizer)
    positions = np.flatnonzero(predicted)
    return Query(with_special_tokens(inputs, tokenizer), positions + 1, tokens[positions])


def _mask_identifier(
    tokens: np.ndarray, occurrences: Sequence[np.ndarray], tokenizer: Tokenizer
) -> Query:
    """Mask all occurrences, as one that stays gives the others away, and ask for the first."""
    inputs = with_special_tokens(tokens, tokenizer)
    inputs[np.concatenate(occurrences) + 1] = tokenizer.special.mask
    first = occurrences[0]
    return Query(inputs, first + 1, tokens[first])


def _compare_recovered(train: Sequence[Answer], held_out: Sequence[Answer]) -> dict[str, Any]:
    """Return counts by split, and Fisher's exact test that training's share at 10 is larger."""
    recovered, k = [_recovered(train), _recovered(held_out)], str(TESTED_TOP)
    table = [
        [x[k], len(asked) - x[k]] for x, asked in zip(recovered, (train, held_out), strict=True)
    ]
    p = stats.fisher_exact(table, alternative="greater")[1] if train and held_out else 1.0
    return {
        "training": {"asked": len(train), "recovered": recovered[0]},
        "held out": {"asked": len(held_out), "recovered": recovered[1]},
        "p_value": float(p),
    }


def _compare_losses(train: Sequence[Answer], held_out: Sequence[Answer]) -> dict[str, Any] | None:
    """Return mean losses of masked tokens, and their ratio with a bootstrap over documents.

    None if the documents are so short that no token of a split is masked.
    """
    if not (train and held_out):
        return None
    random = np.random.default_rng(0)
    sampled, means = [], []
    for answers in (train, held_out):
        sums = np.array([-x.log_probabilities.sum() for x in answers])
        tokens = np.array([len(x.ranks) for x in answers])
        drawn = random.multinomial(len(answers), np.full(len(answers), 1 / len(answers)), RESAMPLES)
        sampled.append((drawn @ sums) / (drawn @ tokens))
        means.append(float(sums.sum() / tokens.sum()))
    ratios = sampled[1] / sampled[0]
    return {
        "training": means[0],
        "held out": means[1],
        "ratio": means[1] / means[0],
        "interval": np.percentile(ratios, (2.5, 97.5)).tolist(),
        "p_value": float((1 + (ratios <= 1).sum()) / (1 + RESAMPLES)),
    }
