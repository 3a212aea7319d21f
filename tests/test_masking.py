# SPDX-License-Identifier: Apache-2.0
"""Masking: its rates, what is never touched, and that a row's draws are its own."""

import jax
import numpy as np
import pytest

from bcmb_jax.batch import Batch
from bcmb_jax.masking import MaskingRule, mask_tokens, masked_positions_per_row
from tests.fixtures.tiny_batches import packed_batch

pytestmark = pytest.mark.usefixtures("strict_dtypes")

RULE = MaskingRule(
    rate=0.3, mask_token=4, special_tokens=(0, 1, 2, 3, 4), random_tokens=np.arange(5, 128)
)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def masked():
    batch = packed_batch(64, 512)
    batch.tokens[:, ::50] = 1  # some [CLS] among the words
    return batch, jax.tree.map(np.asarray, mask_tokens(batch, RULE, KEY))


def predicted(result):
    """`[B, L]` bool: the positions of the targets."""
    flags = np.zeros(result.inputs.shape, bool)
    rows = np.broadcast_to(np.arange(len(flags))[:, None], result.targets.shape)
    used = result.loss_weights > 0
    flags[rows[used], result.masked_positions[used]] = True
    return flags


def test_targets_are_the_original_tokens_at_their_places(masked):
    batch, result = masked
    at_places = np.take_along_axis(batch.tokens, result.masked_positions, axis=1)
    np.testing.assert_array_equal(result.targets, at_places)
    assert (result.inputs == batch.tokens)[~predicted(result)].all()
    assert predicted(result).sum() == result.loss_weights.sum()  # no place twice


def test_special_tokens_and_padding_are_never_predicted_or_drawn(masked):
    batch, result = masked
    assert not predicted(result)[(batch.tokens < 5) | (batch.segment_ids == 0)].any()
    drawn = result.inputs[result.inputs != batch.tokens]
    assert set(np.unique(drawn[drawn < 5])) == {RULE.mask_token}


def test_thirty_percent_and_eighty_ten_ten(masked):
    batch, result = masked
    eligible = (batch.tokens >= 5) & (batch.segment_ids > 0)
    chosen = predicted(result)
    assert chosen.sum() / eligible.sum() == pytest.approx(0.3, abs=0.01)
    kept, is_mask = result.inputs == batch.tokens, result.inputs == RULE.mask_token
    assert is_mask[chosen].mean() == pytest.approx(0.8, abs=0.02)
    # A random word is the original one in 123.
    assert kept[chosen].mean() == pytest.approx(0.1 + 0.1 / 123, abs=0.015)


def test_a_row_depends_on_its_number_alone(masked):
    batch, result = masked
    again = mask_tokens(Batch(*(x[7:9] for x in batch)), RULE, KEY)
    for one, all_rows in zip(again, result, strict=True):
        np.testing.assert_array_equal(one, all_rows[7:9])
    renumbered = mask_tokens(batch._replace(row_ids=batch.row_ids + 1), RULE, KEY)
    assert (np.asarray(renumbered.inputs) != result.inputs).any()


def test_masked_positions_never_overflow():
    assert masked_positions_per_row(8192, 0.3) == 2624
    assert masked_positions_per_row(16, 0.3) == 16
    full = Batch(
        np.full((1, 32), 9, np.int32), np.ones((1, 32), np.int32), np.arange(32)[None], np.zeros(1)
    )
    greedy = MaskingRule(1.0, 4, (), np.arange(5, 9))
    result = mask_tokens(full._replace(row_ids=np.zeros(1, np.int32)), greedy, KEY)
    assert result.loss_weights.sum() == 32
