# SPDX-License-Identifier: Apache-2.0
"""A step that does not end is ended, with stacks; whatever else takes long is left alone."""

import re
import time

import pytest

from bcmb_jax.errors import HUNG
from bcmb_jax.peers import Peers
from bcmb_jax.training import watchdog
from bcmb_jax.training.watchdog import Watchdog
from tests.fixtures.processes import finish, free_port, start

PROCESS = """
import sys, time
from bcmb_jax.peers import Peers
from bcmb_jax.training import watchdog
watchdog.LEAST_SECONDS = watchdog.POLL_SECONDS = 0.2
peers = Peers()
peers.leave = lambda *x: print("left", x[0])
def hang():
    time.sleep(30)
with watchdog.Watchdog(float(sys.argv[1]), peers) as dog:
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


TWO = """
import sys, time
from bcmb_jax import peers
from bcmb_jax.cluster import Place
from bcmb_jax.training import watchdog
peers.BEAT_SECONDS, watchdog.LEAST_SECONDS, watchdog.STEPS_LONG = 0.4, 1.0, 10**6
process = int(sys.argv[2])
def wait_for_data():
    time.sleep(60)
with peers.Peers(Place(f"localhost:{sys.argv[1]}", 2, process), 30) as joined:
    with watchdog.Watchdog(0, joined) as dog:
        for step in range(1, 8):
            dog.step(step)
            if step == 6 and process == int(sys.argv[3]):
                wait_for_data()
            if step != 6:
                joined.gather("a step", step)
"""


@pytest.mark.parametrize("held", [0, 1])
def test_a_process_that_the_others_wait_for_is_named_and_ended_with_its_stack(held):
    port = free_port()
    ended = finish([start("-c", TWO, port, process, held) for process in range(2)], 60)
    for status, text in ended:
        assert status == HUNG
        assert len(re.findall("^error: ", text, re.MULTILINE)) == 1
        assert re.search(f"process {held} on .* is alive, but for 1 s the others wait", text)
    assert "in wait_for_data" in ended[held][1]


def test_the_bound_follows_the_slowest_step(monkeypatch):
    monkeypatch.setattr(watchdog, "LEAST_SECONDS", 0.1)
    dog = Watchdog(0, Peers())
    for step in range(5):
        dog.step(step)
        time.sleep(0.05)
        if step < watchdog.MEASURED:
            assert dog._bound == watchdog.OTHER_SECONDS
    assert 0.5 <= dog._bound < 5
