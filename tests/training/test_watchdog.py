# SPDX-License-Identifier: Apache-2.0
"""A step that does not end is ended, with stacks; whatever else takes long is left alone."""

import time

import pytest

from bcmb_jax.training import watchdog
from bcmb_jax.training.watchdog import HUNG, Watchdog
from tests.fixtures.processes import finish, start

PROCESS = """
import sys, time
from bcmb_jax.training import watchdog
watchdog.LEAST_SECONDS = watchdog.POLL_SECONDS = 0.2
left = []
def hang():
    time.sleep(30)
with watchdog.Watchdog(float(sys.argv[1]), lambda *x: print("left", x[0])) as dog:
    for step in range(1, 6):
        dog.step(step)
        time.sleep(0.01)
    dog.other("a save")
    time.sleep(1.5)
    dog.step(6)
    hang()
"""


@pytest.mark.parametrize(("seconds", "bound"), [(0, "0"), (1, "1")])
def test_a_step_that_does_not_end_is_ended_with_its_stack(seconds, bound):
    ((status, text),) = finish([start("-c", PROCESS, seconds)], 20)
    assert status == HUNG
    assert "in hang" in text
    assert "step 6 on " in text
    assert f"takes more than {bound} s: ended as hung" in text
    assert "left 70" in text


def test_the_bound_follows_the_slowest_step(monkeypatch):
    monkeypatch.setattr(watchdog, "LEAST_SECONDS", 0.1)
    dog = Watchdog(0, lambda status, why: None)
    for step in range(5):
        dog.step(step)
        time.sleep(0.05)
        if step < watchdog.MEASURED:
            assert dog._bound == watchdog.OTHER_SECONDS
    assert 0.5 <= dog._bound < 5
