# SPDX-License-Identifier: Apache-2.0
"""Masked-LM scores: fixed masks, and numbers equal to plain formulas."""

import jax
import numpy as np
import pytest
from flax import nnx

from bcmb_jax.data.shards import open_shards
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.evaluation.masked_lm import Bigram, one_at_a_time
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import init_parameters, merge, split
from bcmb_jax.sharding import make_mesh
from bcmb_jax.training.validation import Evaluator, Unigram, evaluation_rows, mask_document
from tests.fixtures.tiny_model import TINY

VOCAB = 512  # of `shards`


@pytest.fixture(scope="module")
def corpus(shards):
    opened = {split: open_shards(shards / split) for split in ("train", "validation")}
    return opened, load_tokenizer(str(shards / "tokenizer"))


def rows_of(corpus, row_length, max_tokens=3000):
    shards, tokenizer = corpus
    return evaluation_rows(
        shards["validation"],
        tokenizer,
        row_length=row_length,
        max_document_length=row_length,
        max_tokens=max_tokens,
    )


def predictions(rows):
    """Sorted (target, input) pairs of all predicted places."""
    row, place = np.nonzero(rows.loss_weights)
    at = rows.masked_positions[row, place]
    return sorted(
        zip(rows.targets[row, place].tolist(), rows.inputs[row, at].tolist(), strict=True)
    )


def test_masks_belong_to_documents_and_not_to_their_packing(corpus):
    assert predictions(rows_of(corpus, 4096)) == predictions(rows_of(corpus, 1024))
    assert predictions(rows_of(corpus, 1024)) == predictions(rows_of(corpus, 1024))


def test_masks_are_fifteen_percent_of_ordinary_tokens(corpus):
    shards, tokenizer = corpus
    tokens = shards["train"].read(0, 0, int(shards["train"].lengths[0]))
    long = np.tile(tokens, 20_000 // len(tokens) + 1)
    inputs, predicted = mask_document(long, tokenizer)
    assert predicted.mean() == pytest.approx(0.15, abs=0.01)
    assert (inputs == tokenizer.special.mask)[predicted].mean() == pytest.approx(0.8, abs=0.03)
    assert (inputs == long)[~predicted].all()
    changed = long.copy()
    changed[0] += 1
    assert (mask_document(changed, tokenizer)[1] != predicted).any()


def test_scores_equal_dense_logits(corpus):
    rows = rows_of(corpus, 512)
    config = TINY.__class__(**TINY.as_dict() | dict(vocab_size=VOCAB))

    def make():
        return ModernBertForMaskedLM(config, rngs=nnx.Rngs(0))

    graph, _ = split(make)
    params = init_parameters(make)
    mesh = make_mesh(-1, 1, 1)
    with jax.set_mesh(mesh):
        found = Evaluator(graph, {"notes": rows}, mesh)(params)["notes"]
    logits = np.asarray(merge(graph, params)(rows.inputs, rows.segment_ids, rows.positions), float)
    row, place = np.nonzero(rows.loss_weights)
    at = logits[row, rows.masked_positions[row, place]]
    targets = rows.targets[row, place]
    at_target = at[np.arange(len(at)), targets]
    losses = np.log(np.exp(at).sum(-1)) - at_target
    better = (at > at_target[:, None]).sum(-1)
    assert found.predicted_tokens == len(targets)
    assert found.loss == pytest.approx(losses.mean(), rel=1e-5)
    assert found.masked_accuracy == pytest.approx((better < 1).mean())
    assert found.top5_accuracy == pytest.approx((better < 5).mean())


def test_every_token_is_masked_once_and_alone(corpus):
    shards, tokenizer = corpus
    validation, special = shards["validation"], tokenizer.special
    first, second = (validation.read(d, 0, int(validation.lengths[d])) for d in (0, 1))
    wanted = min(len(first), 30)  # the first document is cut to a row of 32
    rows = one_at_a_time(validation, tokenizer, 32, wanted + 5)
    assert rows.inputs.shape == (wanted + 5, 32)
    assert (rows.loss_weights == 1).all()
    assert ((rows.inputs == special.mask).sum(1) == 1).all()
    assert rows.targets[:, 0].tolist() == [*first[:wanted].tolist(), *second[:5].tolist()]
    for number in (0, wanted - 1):
        whole = rows.inputs[number].copy()
        whole[rows.masked_positions[number]] = rows.targets[number]
        assert whole[: wanted + 2].tolist() == [special.cls, *first[:wanted], special.sep]
        assert rows.segment_ids[number].sum() == wanted + 2
        assert rows.positions[number, : wanted + 2].tolist() == list(range(wanted + 2))


def test_baselines_equal_their_formulas(corpus):
    shards, _ = corpus
    train = shards["train"]
    rows = rows_of(corpus, 1024)
    unigram = Unigram([train], VOCAB)
    bigram = Bigram([train], unigram)
    # The documents as the reader gives them; pairs across their borders count too.
    text = np.concatenate([train.read(d, 0, int(n)) for d, n in enumerate(train.lengths)])
    counts = np.bincount(text, minlength=VOCAB) + 1.0
    single = counts / counts.sum()
    pairs = np.zeros((VOCAB, VOCAB))
    np.add.at(pairs, (text[:-1], text[1:]), 1)
    total, kinds = pairs.sum(1, keepdims=True), (pairs > 0).sum(1, keepdims=True)
    mixed = (pairs + kinds * single[None]) / np.maximum(total + kinds, 1)
    mixed[total[:, 0] == 0] = single
    row, place = np.nonzero(rows.loss_weights)
    targets, position = rows.targets[row, place], rows.masked_positions[row, place]
    before = rows.inputs[row, position - 1]
    expected = -np.log(single[targets]).mean(), -np.log(mixed[before, targets]).mean()
    assert unigram.score(rows).loss == pytest.approx(expected[0])
    assert bigram.score(rows).loss == pytest.approx(expected[1])
    best = mixed[before].max(-1) <= mixed[before, targets]
    assert bigram.score(rows).masked_accuracy == pytest.approx(best.mean())
    assert bigram.score(rows).loss < unigram.score(rows).loss - 0.5
