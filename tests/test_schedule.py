# SPDX-License-Identifier: Apache-2.0
"""Schedules at their boundaries, with the recipe's own numbers (RECIPE §4)."""

import math

import pytest

from bcmb_jax.schedule import constant_with_warmup, one_minus_sqrt, warmup_stable_decay

PHASE2, LARGE_DECAY = 8_247_337_000, 2_749_112_000
PHASE1 = 160_453_000_000  # beyond 2^31 and 2^37


def test_constant_with_warmup():
    assert [constant_with_warmup(t) for t in (0, 1, PHASE1)] == [1.0, 1.0, 1.0]
    assert [constant_with_warmup(t, warmup_tokens=100) for t in (0, 50, 100, 101)] == [
        0.0,
        0.5,
        1.0,
        1.0,
    ]


@pytest.mark.parametrize(
    ("end", "decay"), [(PHASE2, PHASE2), (PHASE2, LARGE_DECAY), (PHASE1, PHASE1)]
)
def test_one_minus_sqrt(end, decay):
    def at(t):
        return one_minus_sqrt(t, max_tokens=end, decay_tokens=decay)

    start = end - decay
    assert at(0) == at(start) == 1.0
    assert at(start + 1) == 0.001 + 0.999 * (1 - math.sqrt(1 / decay)) < 1.0
    assert at(start + decay // 4) == pytest.approx(0.001 + 0.999 * 0.5, rel=1e-8)
    assert at(end) == at(end + 10**9) == 0.001


def test_warmup_stable_decay():
    def at(t):
        return warmup_stable_decay(
            t, max_tokens=10**12, warmup_tokens=10**10, decay_tokens=10**11, final=0.1
        )

    assert at(0) == 1e-10
    assert at(5 * 10**9) == pytest.approx(0.5)
    assert at(10**10) == at(9 * 10**11) == 1.0
    assert at(95 * 10**10) == pytest.approx(0.55)
    assert at(10**12) == pytest.approx(0.1)
    assert at(2 * 10**12) == 0.0
